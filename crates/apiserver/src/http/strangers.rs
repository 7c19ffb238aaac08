//! Connections whose other end has shown no identity: bounded, in all and per address, so that who knows nothing of
//! the host can't keep out who may use it.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

/// Who is here without an identity: in the middle of a handshake, or through it without a certificate.
#[derive(Debug)]
pub(super) struct Strangers {
    /// In all.
    most: usize,
    /// From one address.
    most_each: usize,
    here: Mutex<Here>,
}

#[derive(Debug, Default)]
struct Here {
    all: usize,
    each: HashMap<IpAddr, usize>,
}

/// A stranger's place, until it leaves or says who it is.
#[derive(Debug)]
pub(super) struct Place {
    strangers: Arc<Strangers>,
    address: IpAddr,
}

impl Strangers {
    pub(super) fn new(most: usize, most_each: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_each,
            here: Mutex::default(),
        })
    }

    /// A place for one more from this address, unless there are too many.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = neighbourhood(address);
        let mut here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        let from_there = here.each.get(&address).copied().unwrap_or_default();
        if here.all >= self.most || from_there >= self.most_each {
            return None;
        }
        here.all += 1;
        here.each.insert(address, from_there + 1);
        Some(Place {
            strangers: self.clone(),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut here = self.strangers.here.lock().unwrap_or_else(PoisonError::into_inner);
        here.all = here.all.saturating_sub(1);
        let left = here
            .each
            .get(&self.address)
            .copied()
            .unwrap_or_default()
            .saturating_sub(1);
        if left == 0 {
            here.each.remove(&self.address);
        } else {
            here.each.insert(self.address, left);
        }
    }
}

/// What counts as one address: of IPv6, a whole /64, of which anybody has as many addresses as they like.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let network = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_per_address_and_in_all_and_come_back() {
        let strangers = Strangers::new(3, 2);
        let [a, b] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse::<IpAddr>().unwrap());
        let first = strangers.enter(a);
        let _second = strangers.enter(a);
        assert!(
            first.is_some() && strangers.enter(a).is_none(),
            "two from one address"
        );
        let _third = strangers.enter(b).unwrap();
        assert!(strangers.enter(b).is_none(), "three in all");
        drop(first);
        let _again = strangers.enter(a).unwrap();
        assert_eq!(strangers.here.lock().unwrap().all, 3);
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one() {
        let strangers = Strangers::new(9, 1);
        let _one = strangers.enter("2001:db8::1".parse().unwrap()).unwrap();
        assert!(strangers.enter("2001:db8::2".parse().unwrap()).is_none());
        let _two = strangers.enter("2001:db8:0:1::1".parse().unwrap()).unwrap();
        let _mapped = strangers.enter("::ffff:192.0.2.1".parse().unwrap()).unwrap();
        assert!(strangers.enter("192.0.2.1".parse().unwrap()).is_none());
    }
}
