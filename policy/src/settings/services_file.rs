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
