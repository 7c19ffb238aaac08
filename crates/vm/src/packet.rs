//! Addresses learned from the talk about addresses. Pure; everything here comes from a guest or its network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// An address that a network card was seen to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Learned {
    /// The address.
    pub ip: IpAddr,
    /// Length of its prefix, if it was seen.
    pub prefix: Option<u8>,
}

/// A MAC address as bytes.
#[must_use]
pub fn mac(text: &str) -> Option<[u8; 6]> {
    let mut out = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut out {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(out)
}

/// What a frame says about the card of this MAC address. Only the card's own word counts (the sender of ARP and
/// of neighbour discovery), or a DHCP server's acknowledgement to it.
#[must_use]
pub fn learn(frame: &[u8], card: [u8; 6]) -> Option<Learned> {
    let from_card = frame.get(6..12)? == card;
    let body = frame.get(14..)?;
    match be16(frame, 12)? {
        0x0806 if from_card => arp(body, card),
        0x0800 => dhcp(body, card),
        0x86dd if from_card => neighbour(body),
        _ => None,
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(
        bytes.get(at..at.checked_add(2)?)?.try_into().ok()?,
    ))
}

fn ipv4(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    Some(
        <[u8; 4]>::try_from(bytes.get(at..at.checked_add(4)?)?)
            .ok()?
            .into(),
    )
}

fn ipv6(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    Some(
        <[u8; 16]>::try_from(bytes.get(at..at.checked_add(16)?)?)
            .ok()?
            .into(),
    )
}

fn usable(ip: impl Into<IpAddr>) -> Option<Learned> {
    let ip = ip.into();
    (!ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback()).then_some(Learned { ip, prefix: None })
}

/// RFC 826: Ethernet and IPv4; a sender of 0.0.0.0 only asks whether an address is free.
fn arp(body: &[u8], card: [u8; 6]) -> Option<Learned> {
    let ethernet_ipv4 = body.get(..6)? == [0, 1, 8, 0, 6, 4];
    if !ethernet_ipv4 || body.get(8..14)? != card {
        return None;
    }
    usable(ipv4(body, 14)?)
}

/// RFC 2131: an acknowledgement for the card's hardware address.
fn dhcp(packet: &[u8], card: [u8; 6]) -> Option<Learned> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let bootp = packet.get(header.checked_add(8)?..)?;
    let reply_to_card = bootp.get(..3)? == [2, 1, 6] && bootp.get(28..34)? == card;
    if !reply_to_card || bootp.get(236..240)? != [99, 130, 83, 99] {
        return None;
    }
    let (mut acknowledged, mut prefix, mut rest) = (false, None, bootp.get(240..)?);
    while let Some((&code, after)) = rest.split_first() {
        match code {
            0 => {
                rest = after;
                continue;
            }
            255 => break,
            _ => {}
        }
        let (&length, after) = after.split_first()?;
        let value = after.get(..usize::from(length))?;
        match (code, value) {
            (53, [kind]) => acknowledged = *kind == 5,
            (1, [_, _, _, _]) => {
                let mask = u32::from(ipv4(value, 0)?);
                let ones = mask.leading_ones();
                let whole = mask.count_ones() == ones;
                prefix = u8::try_from(ones).ok().filter(|_| whole);
            }
            _ => {}
        }
        rest = after.get(usize::from(length)..)?;
    }
    let learned = usable(ipv4(bootp, 16)?)?;
    acknowledged.then_some(Learned { prefix, ..learned })
}

/// RFC 4861: the source of a solicitation, the target of an advertisement. A source of `::` only asks whether
/// an address is free.
fn neighbour(packet: &[u8]) -> Option<Learned> {
    // The filter lets only packets without extension headers through.
    if *packet.get(6)? != 58 {
        return None;
    }
    match packet.get(40)? {
        135 => usable(ipv6(packet, 8)?),
        136 => usable(ipv6(packet, 48)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CARD: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
    const OTHER: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];

    fn frame(source: [u8; 6], kind: u16, body: &[u8]) -> Vec<u8> {
        [&[0xff; 6][..], &source, &kind.to_be_bytes(), body].concat()
    }

    fn arp_from(card: [u8; 6], ip: [u8; 4]) -> Vec<u8> {
        [&[0, 1, 8, 0, 6, 4, 0, 1][..], &card, &ip, &[0; 6], &[10, 0, 0, 1]].concat()
    }

    fn dhcp_reply(card: [u8; 6], options: &[u8]) -> Vec<u8> {
        let mut bootp = vec![0; 236];
        bootp[..3].copy_from_slice(&[2, 1, 6]);
        bootp[16..20].copy_from_slice(&[10, 0, 0, 9]);
        bootp[28..34].copy_from_slice(&card);
        let mut ip = [0; 20];
        ip[0] = 0x45;
        [
            &ip[..],
            &[0, 67, 0, 68, 0, 0, 0, 0],
            &bootp,
            &[99, 130, 83, 99],
            options,
        ]
        .concat()
    }

    #[test]
    fn arp_counts_only_from_the_card_itself() {
        let learned = learn(&frame(CARD, 0x0806, &arp_from(CARD, [10, 0, 0, 7])), CARD);
        assert_eq!(
            learned,
            Some(Learned {
                ip: "10.0.0.7".parse().unwrap(),
                prefix: None
            })
        );
        assert_eq!(
            learn(&frame(OTHER, 0x0806, &arp_from(CARD, [10, 0, 0, 7])), CARD),
            None
        );
        assert_eq!(
            learn(&frame(CARD, 0x0806, &arp_from(OTHER, [10, 0, 0, 7])), CARD),
            None
        );
        assert_eq!(learn(&frame(CARD, 0x0806, &arp_from(CARD, [0; 4])), CARD), None);
    }

    #[test]
    fn a_dhcp_acknowledgement_gives_address_and_prefix() {
        let ack = [0, 53, 1, 5, 1, 4, 255, 255, 240, 0, 255];
        let learned = learn(&frame(OTHER, 0x0800, &dhcp_reply(CARD, &ack)), CARD);
        assert_eq!(
            learned,
            Some(Learned {
                ip: "10.0.0.9".parse().unwrap(),
                prefix: Some(20)
            })
        );
        let offer = [53, 1, 2, 255];
        assert_eq!(
            learn(&frame(OTHER, 0x0800, &dhcp_reply(CARD, &offer)), CARD),
            None
        );
        assert_eq!(learn(&frame(OTHER, 0x0800, &dhcp_reply(OTHER, &ack)), CARD), None);
        let cut = [53, 9, 5];
        assert_eq!(learn(&frame(OTHER, 0x0800, &dhcp_reply(CARD, &cut)), CARD), None);
    }

    #[test]
    fn neighbour_discovery() {
        let address: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let packet = |source: Ipv6Addr, kind: u8, target: Ipv6Addr| {
            [
                &[0x60, 0, 0, 0, 0, 24, 58, 255][..],
                &source.octets(),
                &[0; 16],
                &[kind, 0, 0, 0, 0, 0, 0, 0],
                &target.octets(),
            ]
            .concat()
        };
        let none = Ipv6Addr::UNSPECIFIED;
        let wanted = Some(Learned {
            ip: address.into(),
            prefix: None,
        });
        assert_eq!(
            learn(&frame(CARD, 0x86dd, &packet(address, 135, none)), CARD),
            wanted
        );
        assert_eq!(
            learn(&frame(CARD, 0x86dd, &packet(none, 135, address)), CARD),
            None
        );
        assert_eq!(
            learn(
                &frame(CARD, 0x86dd, &packet("fe80::1".parse().unwrap(), 136, address)),
                CARD
            ),
            wanted
        );
        assert_eq!(
            learn(&frame(OTHER, 0x86dd, &packet(address, 135, none)), CARD),
            None
        );
    }

    #[test]
    fn mac_addresses() {
        assert_eq!(mac("52:54:00:00:00:01"), Some(CARD));
        assert_eq!(
            (mac("52:54:00:00:00"), mac("52:54:00:00:00:01:02"), mac("x")),
            (None, None, None)
        );
    }

    proptest! {
        #[test]
        fn foreign_frames_never_panic(
            kind in prop_oneof![Just(0x0806u16), Just(0x0800), Just(0x86dd), any::<u16>()],
            body in prop::collection::vec(any::<u8>(), 0..400),
            cut in 0usize..20,
        ) {
            let whole = frame(CARD, kind, &body);
            let _ = learn(&whole, CARD);
            let _ = learn(&whole[..cut.min(whole.len())], CARD);
        }

        #[test]
        fn foreign_dhcp_options_never_panic(options in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = learn(&frame(OTHER, 0x0800, &dhcp_reply(CARD, &options)), CARD);
        }
    }
}
