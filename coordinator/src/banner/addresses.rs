//! Which of this machine's addresses to show to the people of other machines.

use std::net::IpAddr;

use if_addrs::Interface;

/// Interfaces that lead to containers and virtual machines of this machine only.
const LOCAL_ONLY: [&str; 5] = ["docker", "br-", "veth", "virbr", "vmnet"];

/// Returns the addresses under which other machines may reach this one, IPv4 first.
pub fn for_other_machines() -> Vec<IpAddr> {
    choose(&if_addrs::get_if_addrs().unwrap_or_default())
}

fn choose(interfaces: &[Interface]) -> Vec<IpAddr> {
    let leads_elsewhere = |interface: &&Interface| {
        let is_local_only = LOCAL_ONLY
            .iter()
            .any(|start| interface.name.starts_with(start));
        !interface.is_loopback() && !interface.is_link_local() && !is_local_only
    };
    let mut addresses: Vec<IpAddr> = interfaces
        .iter()
        .filter(leads_elsewhere)
        .map(Interface::ip)
        .collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use if_addrs::{IfAddr, IfOperStatus, Ifv4Addr, Ifv6Addr};

    fn interface(name: &str, ip: &str) -> Interface {
        let addr = match ip.parse().unwrap() {
            IpAddr::V4(ip) => IfAddr::V4(Ifv4Addr {
                ip,
                netmask: ip,
                prefixlen: 24,
                broadcast: None,
            }),
            IpAddr::V6(ip) => IfAddr::V6(Ifv6Addr {
                ip,
                netmask: ip,
                prefixlen: 64,
                broadcast: None,
            }),
        };
        Interface {
            name: name.to_owned(),
            addr,
            index: None,
            oper_status: IfOperStatus::Up,
            is_p2p: false,
        }
    }

    #[test]
    fn only_addresses_that_other_machines_can_use_are_shown() {
        let interfaces = [
            interface("lo", "127.0.0.1"),
            interface("eth0", "fd00::10"),
            interface("eth0", "fe80::1"),
            interface("docker0", "172.17.0.1"),
            interface("eth0", "192.168.1.10"),
            interface("eth1", "169.254.7.7"),
            interface("wg0", "10.8.0.1"),
        ];

        let shown: Vec<String> = choose(&interfaces).iter().map(IpAddr::to_string).collect();

        assert_eq!(shown, ["192.168.1.10", "10.8.0.1", "fd00::10"]);
    }
}
