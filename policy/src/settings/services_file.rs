//! `services` of `tollgate.yaml`: where services of the installation live, as written, and turned into what it means.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::ServiceInstance;
use super::decode::Text;
use super::reader::Reader;
use super::upstream_file::service_name;
use super::value::{self, Wrong};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenInstance {
    address: Text,
    id: Option<Text>,
}

type Services = BTreeMap<Arc<str>, Vec<ServiceInstance>>;

/// The meaning of `services`; mistakes go to `reader`.
pub(super) fn services(
    reader: &mut Reader,
    mut found: Services,
    written: &BTreeMap<Text, Vec<WrittenInstance>>,
) -> Services {
    for (name, written) in written {
        let instances: Vec<_> = written
            .iter()
            .filter_map(|it| instance(reader, name, it))
            .collect();
        if let Some(name) = reader.value("services", Some(name), service_name) {
            found.insert(name, instances);
        }
    }
    found
}

fn instance(
    reader: &mut Reader,
    name: &Text,
    written: &WrittenInstance,
) -> Option<ServiceInstance> {
    let field = |inner: &str| format!("services.{}.{inner}", name.text);
    let id = reader.value(&field("id"), written.id.as_ref(), |text| {
        text.parse().map_err(|_| {
            Wrong::new(
                format!("`{text}` is no identity of a workload"),
                "write spiffe://domain/service/name",
            )
        })
    });
    let address = reader.value(
        &field("address"),
        Some(&written.address),
        value::socket_address,
    )?;
    // An identity that cannot be read must not become none at all.
    (id.is_some() == written.id.is_some()).then_some(ServiceInstance { address, id })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use crate::settings::tests::Files;
    use crate::settings::{Direction, ProcessConfig};

    fn read(text: &str) -> Result<ProcessConfig, Vec<String>> {
        let read = Files::new().process(text);
        read.map_err(|findings| findings.into_iter().map(|it| it.what).collect())
    }

    #[test]
    fn services_and_the_way_to_them_are_read() {
        let config = read(
            "listeners: [{ address: '127.0.0.1:8080' }, { address: '127.0.0.1:9081', direction: outbound }]
services:
  orders:
    - { address: '10.0.0.1:9080', id: 'spiffe://shop.example/service/orders' }
    - { address: '10.0.0.2:8080' }
  none-yet: []
",
        )
        .unwrap();
        let directions = config.listeners.iter().map(|it| it.direction);
        assert!(directions.eq([Direction::Inbound, Direction::Outbound]));
        let orders = &config.services["orders"];
        let name = orders[0].id.as_ref().unwrap().dns_name();
        assert_eq!(name, "orders.service.shop.example");
        assert_eq!(orders[1].id, None);
        assert!(config.services["none-yet"].is_empty());
    }

    #[test]
    fn a_service_whose_identity_cannot_be_read_is_a_mistake() {
        for (text, wrong) in [
            (
                "services: { orders: [{ address: '10.0.0.1:80', id: orders }] }",
                "no identity",
            ),
            ("services: { orders: [{ address: orders }] }", "no address"),
            ("services: { orders.example: [] }", "no name of a service"),
            (
                "listeners: [{ address: '127.0.0.1:1', direction: out }]",
                "neither inbound",
            ),
        ] {
            let findings = read(text).unwrap_err();
            assert!(findings[0].contains(wrong), "{text}: {findings:?}");
        }
    }
}
