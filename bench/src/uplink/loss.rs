//! What a stream lost, and how late the rest was. Pure.

use std::{fmt, time::Duration};

use super::stream::Packet;
use crate::measured::milliseconds;

/// What became of the packets that were sent in a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    /// For how long packets were sent that did not arrive. A packet stands for the time until the next one is sent.
    pub(super) lost: Duration,
    /// The longest that one of the others took.
    pub(super) late: Duration,
}

impl Fate {
    /// Of the packets that were sent from a moment on and before another. The last one of a stream is left out: it
    /// stands for no time.
    pub(super) fn of(packets: &[Packet], from: Duration, until: Duration) -> Self {
        let mut fate = Self::default();
        for pair in packets.windows(2) {
            let [packet, next] = pair else { continue };
            if packet.sent < from || packet.sent >= until {
                continue;
            }
            match packet.arrived {
                Some(arrived) => fate.late = fate.late.max(arrived.saturating_sub(packet.sent)),
                None => fate.lost += next.sent.saturating_sub(packet.sent),
            }
        }
        fate
    }

    /// The worse of both, in each respect.
    pub(super) fn worse(self, other: Self) -> Self {
        Self {
            lost: self.lost.max(other.lost),
            late: self.late.max(other.late),
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lost, late) = (milliseconds(&self.lost), milliseconds(&self.late));
        write!(f, "{lost:.0} ms lost, {late:.0} ms late")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet each given millisecond; those of some milliseconds don't arrive, the others take 2 ms.
    fn stream(sent: &[u64], lost: &[u64]) -> Vec<Packet> {
        let packet = |ms: &u64| Packet {
            sent: Duration::from_millis(*ms),
            arrived: (!lost.contains(ms)).then(|| Duration::from_millis(ms + 2)),
        };
        sent.iter().map(packet).collect()
    }

    fn lost(packets: &[Packet], from: u64, until: u64) -> u128 {
        let fate = Fate::of(packets, Duration::from_millis(from), Duration::from_millis(until));
        fate.lost.as_millis()
    }

    #[test]
    fn a_lost_packet_stands_for_the_time_to_the_next() {
        let packets = stream(&[0, 1, 2, 3, 4, 5], &[2, 3]);
        assert_eq!(lost(&packets, 0, 9), 2);
        assert_eq!(lost(&packets, 3, 9), 1, "what was sent before does not count");
        assert_eq!(lost(&packets, 0, 3), 1, "nor what was sent after");
    }

    #[test]
    fn a_sender_that_was_late_makes_an_outage_no_shorter() {
        assert_eq!(lost(&stream(&[0, 1, 9, 10], &[1]), 0, 99), 8);
    }

    #[test]
    fn late_packets_are_not_lost() {
        let mut packets = stream(&[0, 1, 2], &[]);
        packets[1].arrived = Some(Duration::from_millis(301));
        let fate = Fate::of(&packets, Duration::ZERO, Duration::from_secs(9));
        assert_eq!((fate.lost.as_millis(), fate.late.as_millis()), (0, 300));
        assert_eq!(fate.to_string(), "0 ms lost, 300 ms late");
    }
}
