//! Counting connections, so that no address and no crowd takes all of them.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// How many connections there may be.
pub(super) struct Rooms {
    all: usize,
    each: usize,
    handshakes: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    each: HashMap<IpAddr, Share>,
}

/// What one address has.
struct Share {
    taken: usize,
    handshakes: Arc<Semaphore>,
}

/// One connection's place; given back when dropped.
pub(super) struct Room {
    rooms: Arc<Rooms>,
    handshakes: Arc<Semaphore>,
    /// Whose share it counts against; `None` once the other end is known.
    address: Mutex<Option<IpAddr>>,
}

impl Rooms {
    /// `all` connections, `each` of one address, `handshakes` of one address at a time.
    pub(super) fn new(all: usize, each: usize, handshakes: usize) -> Self {
        Self {
            all,
            each,
            handshakes: handshakes.max(1),
            taken: Mutex::default(),
        }
    }

    /// A place for a connection from `address`, if there is one.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Room> {
        let address = neighbourhood(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.all {
            return None;
        }
        let share = taken.each.entry(address).or_insert_with(|| Share {
            taken: 0,
            handshakes: Arc::new(Semaphore::new(self.handshakes)),
        });
        if share.taken >= self.each {
            return None;
        }
        share.taken += 1;
        let handshakes = share.handshakes.clone();
        taken.all += 1;
        Some(Room {
            rooms: self.clone(),
            handshakes,
            address: Mutex::new(Some(address)),
        })
    }
}

impl Room {
    /// Waits for a place among the handshakes of its address.
    pub(super) async fn handshake(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        self.handshakes.clone().acquire_owned().await
    }

    /// The other end has shown who it is: it no longer counts against its address.
    pub(super) fn known(&self) {
        let address = self.address.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut taken = self.rooms.taken.lock().unwrap_or_else(PoisonError::into_inner);
        give_back(&mut taken, address);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let address = self.address.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut taken = self.rooms.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        give_back(&mut taken, address);
    }
}

fn give_back(taken: &mut Taken, address: Option<IpAddr>) {
    let Some(address) = address else {
        return;
    };
    if let Some(share) = taken.each.get_mut(&address) {
        share.taken = share.taken.saturating_sub(1);
        if share.taken == 0 {
            taken.each.remove(&address);
        }
    }
}

/// One line has many IPv6 addresses, but one /64.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_gives_it_back() {
        let rooms = Arc::new(Rooms::new(3, 2, 1));
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let first = rooms.enter(a).unwrap();
        let second = rooms.enter(a).unwrap();
        assert!(rooms.enter(a).is_none());
        first.known();
        let third = rooms.enter(a).unwrap();
        assert!(rooms.enter(b).is_none(), "all are taken");
        drop((first, second, third));
        assert!(rooms.taken.lock().unwrap().each.is_empty());
        assert_eq!(rooms.taken.lock().unwrap().all, 0);
    }

    #[test]
    fn a_slash_64_is_one_neighbour() {
        let rooms = Arc::new(Rooms::new(9, 1, 1));
        let first = rooms.enter("2001:db8::1".parse().unwrap());
        assert!(first.is_some() && rooms.enter("2001:db8::2".parse().unwrap()).is_none());
        assert!(rooms.enter("2001:db8:0:1::2".parse().unwrap()).is_some());
    }
}
