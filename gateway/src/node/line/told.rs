//! What a node was told of where services live: of those it follows, and what a former process left, as long as nobody asked for that.
//!
//! Bounded, and a file of it is written only where it would say something else. What a control plane that began a moment ago does not know
//! yet stays. Not here: following, and the stream.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use prost::Message as _;
use tollgate_proto::wire::{EndpointsEvent, ServiceEndpoint};

/// Services a former process may have left.
const LEFT: usize = 1000;

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// By service: `None`: it is followed, and nothing was told of it.
    followed: BTreeMap<Arc<str>, Option<EndpointsEvent>>,
    /// Of a former process; nobody follows these yet.
    left: BTreeMap<String, EndpointsEvent>,
    /// By service, what was known before the present stream, and has not been heard of on it.
    before: BTreeMap<String, Vec<ServiceEndpoint>>,
    /// What the file says; `None`: nobody knows.
    written: Option<Vec<u8>>,
}

impl Told {
    /// What a former process was told. A file that is damaged says nothing from there on.
    pub(super) fn read(file: &Path) -> Self {
        let written = std::fs::read(file).unwrap_or_default();
        let mut rest = &*written;
        let mut left = BTreeMap::new();
        while !rest.is_empty() && left.len() < LEFT {
            let Ok(event) = EndpointsEvent::decode_length_delimited(&mut rest) else {
                tracing::warn!(
                    "{} is damaged: where services live is asked for anew",
                    file.display()
                );
                break;
            };
            left.insert(event.service.clone(), event);
        }
        Self {
            left,
            written: Some(written),
            ..Self::default()
        }
    }

    /// These are followed now. Which were not before, and which are no more.
    pub(super) fn follow(&mut self, names: &[Arc<str>]) -> (Vec<String>, Vec<String>) {
        let now: BTreeSet<&Arc<str>> = names.iter().collect();
        let mut unwanted = Vec::new();
        self.followed.retain(|name, _| {
            let stays = now.contains(name);
            if !stays {
                unwanted.push(name.to_string());
            }
            stays
        });
        for name in &unwanted {
            self.before.remove(name);
        }
        let mut wanted = Vec::new();
        for name in now {
            if !self.followed.contains_key(name) {
                wanted.push(name.to_string());
                let left = self.left.remove(&**name);
                if let Some(left) = &left {
                    self.before.insert(name.to_string(), left.endpoints.clone());
                }
                self.followed.insert(Arc::clone(name), left);
            }
        }
        (wanted, unwanted)
    }

    /// The names that are followed.
    pub(super) fn names(&self) -> Vec<String> {
        self.followed.keys().map(ToString::to_string).collect()
    }

    /// What is known of those that are followed.
    pub(super) fn followed(&self) -> impl Iterator<Item = &EndpointsEvent> {
        self.followed.values().flatten()
    }

    /// A stream begins: what is known now was known before it.
    pub(super) fn begin(&mut self) {
        let known = self.followed().cloned();
        self.before = known.map(|it| (it.service, it.endpoints)).collect();
    }

    /// Something was told. All that is known of that service now; `None`: nobody follows it.
    pub(super) fn told(&mut self, mut event: EndpointsEvent) -> Option<&EndpointsEvent> {
        let place = self.followed.get_mut(&*event.service)?;
        match std::mem::take(&mut event.partial) {
            false => drop(self.before.remove(&event.service)),
            true => {
                if let Some(before) = self.before.get_mut(&event.service) {
                    // Whoever was heard of on this stream may leave on it.
                    before.retain(|old| event.endpoints.iter().all(|it| it.address != old.address));
                    event.endpoints.extend_from_slice(before);
                }
            }
        }
        Some(place.insert(event))
    }

    /// What is to be written, where the file says something else. What lives nowhere is left out: a name that somebody made up.
    pub(super) fn changed(&mut self) -> Option<Vec<u8>> {
        let room = LEFT.saturating_sub(self.followed.len());
        let known = self.followed().chain(self.left.values().take(room));
        let mut bytes = Vec::new();
        for event in known.filter(|event| !event.endpoints.is_empty()) {
            bytes.extend(event.encode_length_delimited_to_vec());
        }
        (self.written.as_ref() != Some(&bytes)).then(|| {
            self.written = Some(bytes.clone());
            bytes
        })
    }

    /// It could not be written.
    pub(super) fn not_written(&mut self) {
        self.written = None;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn event(service: &str, ports: &[u16], partial: bool) -> EndpointsEvent {
        let endpoint = |port: &u16| ServiceEndpoint {
            address: format!("10.0.0.1:{port}"),
            spiffe_id: format!("spiffe://d/service/{service}"),
            tls: true,
        };
        EndpointsEvent {
            service: service.to_owned(),
            endpoints: ports.iter().map(endpoint).collect(),
            partial,
        }
    }

    fn names(names: &[&str]) -> Vec<Arc<str>> {
        names.iter().map(|name| (*name).into()).collect()
    }

    fn ports(event: &EndpointsEvent) -> Vec<u16> {
        let port = |it: &ServiceEndpoint| it.address.rsplit(':').next()?.parse().ok();
        event.endpoints.iter().filter_map(port).collect()
    }

    #[test]
    fn beside_a_part_of_what_lives_what_was_known_before_stays() {
        let mut told = Told::default();
        told.follow(&names(&["shop"]));
        told.told(event("shop", &[1, 2, 3], false)).unwrap();
        // The control plane began anew.
        told.begin();
        let none = told.told(event("shop", &[], true)).unwrap();
        assert_eq!(ports(none), [1, 2, 3]);
        let some = told.told(event("shop", &[2, 4], true)).unwrap();
        assert_eq!(ports(some), [2, 4, 1, 3]);
        // Both were heard of since, and the one left.
        let left = told.told(event("shop", &[4], true)).unwrap();
        assert_eq!(ports(left), [4, 1, 3]);
        let all = told.told(event("shop", &[4, 3], false)).unwrap();
        assert_eq!(ports(all), [4, 3]);
        assert!(!all.partial);
        let later = told.told(event("shop", &[3], true)).unwrap();
        assert_eq!(ports(later), [3]);
    }

    #[test]
    fn what_a_former_process_left_counts_beside_a_part_too() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("services");
        std::fs::write(
            &file,
            event("shop", &[7], false).encode_length_delimited_to_vec(),
        )
        .unwrap();
        let mut told = Told::read(&file);
        told.begin();
        assert_eq!(told.followed().count(), 0);
        told.follow(&names(&["shop"]));
        assert_eq!(told.followed().map(ports).collect::<Vec<_>>(), [[7]]);
        assert_eq!(ports(told.told(event("shop", &[], true)).unwrap()), [7]);
    }

    #[test]
    fn made_up_names_neither_stay_nor_have_the_file_written() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("services");
        let left = event("later", &[9], false).encode_length_delimited_to_vec();
        std::fs::write(&file, left).unwrap();
        let mut told = Told::read(&file);
        told.follow(&names(&["shop"]));
        told.told(event("shop", &[1], false)).unwrap();
        let written = told.changed().unwrap();
        for number in 0..3000 {
            let made_up = format!("s{number}");
            let (wanted, unwanted) = told.follow(&names(&["shop", &made_up]));
            assert_eq!(wanted, [made_up.as_str()]);
            assert_eq!(unwanted.len(), usize::from(number > 0));
            told.told(event(&made_up, &[], false)).unwrap();
            assert!(told.changed().is_none(), "nothing is known that was not");
        }
        assert_eq!(told.followed.len(), 2);
        assert!(told.told(event("s1", &[1], false)).is_none());
        assert_eq!(told.changed(), None);
        told.told(event("shop", &[1], false)).unwrap();
        assert_eq!(told.changed(), None, "it says so already");
        std::fs::write(&file, &written).unwrap();
        let mut again = Told::read(&file);
        again.follow(&names(&["later", "shop"]));
        let known: Vec<_> = again.followed().map(ports).collect();
        assert_eq!(known, [[9], [1]], "also what nobody asked for meanwhile");
        again.not_written();
        assert!(again.changed().is_some());
    }
}
