use super::*;
use crate::{
    desired::{Desired, Ipv4},
    observe::{Address, Route, devices},
};

fn host(dynamic: bool) -> (Vec<Nic>, Kernel) {
    let nic = |n: u32| Nic {
        name: format!("vmnic{n}"),
        device: format!("enp{n}s0"),
        mtu: 1500,
        ..Nic::default()
    };
    let mut kernel = Kernel::default();
    kernel.links.entry("enp0s0".into()).or_default().mac = "52:54:00:00:00:01".into();
    let address = "192.168.10.5".parse().unwrap();
    kernel.addresses.push(Address {
        device: "enp0s0".into(),
        address,
        prefix: 24,
        dynamic,
    });
    kernel.routes.push(Route {
        destination: (Ipv4Addr::UNSPECIFIED, 0),
        gateway: Some("192.168.10.1".parse().unwrap()),
        device: "enp0s0".into(),
        metric: 0,
    });
    (vec![nic(0), nic(1)], kernel)
}

#[test]
fn the_base_profile_of_a_host_with_a_fixed_address() {
    let (nics, kernel) = host(false);
    let profile = base_profile(&nics, &kernel);
    insta::assert_yaml_snapshot!(profile);
    let desired = Desired::read(&profile, &devices(&nics), "h").unwrap();
    assert_eq!(desired.not_enforced, [""; 0]);
    assert_eq!(desired.desired.switches[0].uplinks[0].device, "enp0s0");
}

#[test]
fn an_address_from_dhcp_stays_with_dhcp() {
    let (nics, kernel) = host(true);
    let desired = Desired::read(&base_profile(&nics, &kernel), &devices(&nics), "h")
        .unwrap()
        .desired;
    assert_eq!(desired.vmknics[0].ipv4, Ipv4::Dhcp);
    assert_eq!(desired.vmknics[0].mac, "52:54:00:00:00:01");
}
