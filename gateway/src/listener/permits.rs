//! How many connections may be open: per listener and per address.
//!
//! Promises that a permit is given back when its guard is dropped, and that the table holds no more entries than
//! connections are open. Not here: limits on handshakes (a semaphore in `accept`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::overload::network_of;

/// Connections open, of all listeners and workers.
#[derive(Debug, Default)]
pub(super) struct Permits {
    listeners: Mutex<HashMap<Arc<str>, Arc<AtomicUsize>>>,
    addresses: Mutex<HashMap<u128, usize>>,
}

impl Permits {
    /// The count of one listener, shared by all workers.
    pub(super) fn listener(&self, name: &Arc<str>) -> Arc<AtomicUsize> {
        Arc::clone(self.listeners.lock().entry(Arc::clone(name)).or_default())
    }

    /// A permit for one more connection from this address, unless `limit` are open.
    pub(super) fn address(self: &Arc<Self>, ip: IpAddr, limit: usize) -> Option<AddressPermit> {
        let key = network_of(ip);
        let mut addresses = self.addresses.lock();
        let open = addresses.entry(key).or_insert(0);
        if *open >= limit {
            // An entry made just now for a limit of zero must not stay.
            if *open == 0 {
                addresses.remove(&key);
            }
            return None;
        }
        *open += 1;
        Some(AddressPermit {
            permits: Arc::clone(self),
            key,
        })
    }
}

/// A permit for one more connection of a listener, unless `limit` are open.
pub(super) fn listener_permit(open: &Arc<AtomicUsize>, limit: usize) -> Option<ListenerPermit> {
    let more = |now: usize| (now < limit).then_some(now + 1);
    open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
        .ok()?;
    Some(ListenerPermit {
        open: Arc::clone(open),
    })
}

/// One connection of a listener; gives back on drop.
#[derive(Debug)]
pub(super) struct ListenerPermit {
    open: Arc<AtomicUsize>,
}

impl Drop for ListenerPermit {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One connection of an address; gives back on drop.
#[derive(Debug)]
pub(super) struct AddressPermit {
    permits: Arc<Permits>,
    key: u128,
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut addresses = self.permits.addresses.lock();
        if let Some(open) = addresses.get_mut(&self.key) {
            *open -= 1;
            if *open == 0 {
                addresses.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_its_permits_back_and_leaves_no_entry() {
        let permits = Arc::new(Permits::default());
        let home: IpAddr = "2001:db8:1:2::1".parse().unwrap();
        let same_home: IpAddr = "2001:db8:1:2:ffff::9".parse().unwrap();
        let other: IpAddr = "2001:db8:1:3::1".parse().unwrap();
        let first = permits.address(home, 1).unwrap();
        assert!(
            permits.address(same_home, 1).is_none(),
            "one /64 counts as one address"
        );
        let second = permits.address(other, 1).unwrap();
        assert!(permits.address("192.0.2.1".parse().unwrap(), 0).is_none());
        drop((first, second));
        assert!(permits.addresses.lock().is_empty());
        assert!(permits.address(same_home, 1).is_some());
    }

    #[test]
    fn a_listener_stops_at_its_limit() {
        let open = Permits::default().listener(&Arc::from("a"));
        let first = listener_permit(&open, 1);
        assert!(first.is_some());
        assert!(listener_permit(&open, 1).is_none());
        drop(first);
        assert!(listener_permit(&open, 1).is_some());
    }
}
