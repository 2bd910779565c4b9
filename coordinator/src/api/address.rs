//! Which addresses a registration may name: it must not turn the coordinator into somebody's way
//! into a network. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const GOOGLE_METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254);

/// The two ends of the connection a request came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Who called.
    pub remote: SocketAddr,
    /// The coordinator's own end.
    pub local: SocketAddr,
}

/// Why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It names no single machine, or one that is never a runtime.
    #[error("ip_address {0} is {1}, which the coordinator never dials")]
    Never(IpAddr, &'static str),
    /// It is loopback and the caller is elsewhere.
    #[error(
        "ip_address {0} means the coordinator's own machine, and this request came from another: \
         leave ip_address out, or name an address at which the coordinator reaches the runtime"
    )]
    LoopbackFromElsewhere(IpAddr),
    /// It is a public address that the caller does not have.
    #[error("ip_address {0} is neither a private address nor the one this request came from ({1})")]
    NotTheCallers(IpAddr, IpAddr),
    /// It is the coordinator itself.
    #[error("{0} is this coordinator itself, not a runtime")]
    Coordinator(SocketAddr),
}

/// Returns the address to dial for a registration that names `named`, or none, and `port`.
pub fn resolve(named: Option<IpAddr>, port: u16, peer: Peer) -> Result<IpAddr, AddressError> {
    let caller = peer.remote.ip().to_canonical();
    let address = named.unwrap_or(caller).to_canonical();
    if let Some(what) = never_dialled(address) {
        return Err(AddressError::Never(address, what));
    }
    let own = peer.local.ip().to_canonical();
    let is_same_machine = caller.is_loopback() || caller == own;
    if address.is_loopback() && !is_same_machine {
        return Err(AddressError::LoopbackFromElsewhere(address));
    }
    if port == peer.local.port() && (address.is_loopback() || address == own) {
        return Err(AddressError::Coordinator(SocketAddr::new(address, port)));
    }
    if address != caller && !address.is_loopback() && !is_private(address) {
        return Err(AddressError::NotTheCallers(address, caller));
    }
    Ok(address)
}

fn never_dialled(address: IpAddr) -> Option<&'static str> {
    let is_metadata = match address {
        IpAddr::V4(v4) => {
            v4 == Ipv4Addr::new(169, 254, 169, 254) || v4 == Ipv4Addr::new(100, 100, 100, 200)
        }
        IpAddr::V6(v6) => {
            let [first, second, ..] = v6.segments();
            (first, second) == (0xfd00, 0xec2) || v6 == GOOGLE_METADATA_V6
        }
    };
    let is_link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let is_broadcast = match address {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.octets()[0] == 0 || v4.octets()[0] >= 240,
        IpAddr::V6(_) => false,
    };
    if is_metadata {
        Some("a cloud's metadata service")
    } else if address.is_unspecified() {
        Some("the unspecified address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else if is_link_local {
        Some("a link-local address")
    } else if is_broadcast {
        Some("a broadcast or reserved address")
    } else {
        None
    }
}

/// Private ranges, with the shared one (100.64.0.0/10) that overlay networks use.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn peer(remote: &str) -> Peer {
        Peer {
            remote: SocketAddr::new(remote.parse().unwrap(), 50_000),
            local: "192.168.1.10:11400".parse().unwrap(),
        }
    }

    #[rstest]
    #[case::absent(None, "192.168.1.21", "192.168.1.21")]
    #[case::source(Some("203.0.113.9"), "203.0.113.9", "203.0.113.9")]
    #[case::private_behind_nat(Some("10.1.2.3"), "192.168.1.21", "10.1.2.3")]
    #[case::overlay(Some("100.64.0.7"), "192.168.1.21", "100.64.0.7")]
    #[case::unique_local(Some("fd12::7"), "192.168.1.21", "fd12::7")]
    #[case::loopback_from_loopback(Some("127.0.0.1"), "127.0.0.1", "127.0.0.1")]
    #[case::loopback_from_the_same_machine(Some("127.0.0.1"), "192.168.1.10", "127.0.0.1")]
    #[case::mapped(Some("::ffff:192.168.1.21"), "::ffff:192.168.1.21", "192.168.1.21")]
    fn usable_addresses_are_taken(
        #[case] named: Option<&str>,
        #[case] remote: &str,
        #[case] expected: &str,
    ) {
        let named = named.map(|text| text.parse().unwrap());

        assert_eq!(
            resolve(named, 11434, peer(remote)),
            Ok(expected.parse().unwrap())
        );
    }

    #[rstest]
    #[case::metadata("169.254.169.254", "192.168.1.21")]
    #[case::other_metadata("100.100.100.200", "192.168.1.21")]
    #[case::metadata_v6("fd00:ec2::254", "192.168.1.21")]
    #[case::credentials_v6("fd00:ec2::23", "192.168.1.21")]
    #[case::metadata_google_v6("fd20:ce::254", "192.168.1.21")]
    #[case::link_local("169.254.7.7", "169.254.7.7")]
    #[case::link_local_v6("fe80::1", "fe80::1")]
    #[case::multicast("224.0.0.1", "192.168.1.21")]
    #[case::multicast_v6("ff02::1", "192.168.1.21")]
    #[case::unspecified("0.0.0.0", "127.0.0.1")]
    #[case::unspecified_v6("::", "127.0.0.1")]
    #[case::broadcast("255.255.255.255", "192.168.1.21")]
    #[case::this_network("0.1.2.3", "192.168.1.21")]
    #[case::loopback("127.0.0.1", "192.168.1.21")]
    #[case::loopback_v6("::1", "192.168.1.21")]
    #[case::mapped_loopback("::ffff:127.0.0.1", "192.168.1.21")]
    #[case::public("203.0.113.9", "192.168.1.21")]
    #[case::public_v6("2001:db8::1", "192.168.1.21")]
    fn addresses_that_open_a_way_in_are_refused(#[case] named: &str, #[case] remote: &str) {
        let refused = resolve(Some(named.parse().unwrap()), 11434, peer(remote));

        assert!(refused.is_err(), "{refused:?}");
    }

    #[rstest]
    #[case("192.168.1.10", "192.168.1.21")]
    #[case("127.0.0.1", "127.0.0.1")]
    fn coordinators_own_port_is_refused(#[case] named: &str, #[case] remote: &str) {
        let named = named.parse().unwrap();

        assert_eq!(
            resolve(Some(named), 11400, peer(remote)),
            Err(AddressError::Coordinator(SocketAddr::new(named, 11400))),
        );
    }

    fn any_address() -> impl Strategy<Value = IpAddr> {
        let edges = [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "0.0.0.0",
            "::",
            "192.168.1.10",
            "::ffff:192.168.1.10",
            "10.0.0.1",
            "100.64.0.1",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "fe80::1",
            "fd00:ec2::254",
            "fd12::1",
            "ff02::1",
            "203.0.113.9",
            "2001:db8::1",
            "64:ff9b::7f00:1",
        ];
        let edges = edges.map(|text| text.parse::<IpAddr>().unwrap());
        prop_oneof![prop::sample::select(edges.to_vec()), any::<IpAddr>()]
    }

    proptest! {
        #[test]
        fn whatever_is_taken_is_the_callers_or_near_and_never_the_coordinator(
            named in prop::option::of(any_address()), remote in any_address(), local in any_address(),
            port in 11_399_u16..11_402,
        ) {
            let peer = Peer {
                remote: SocketAddr::new(remote, 50_000),
                local: SocketAddr::new(local, 11_400),
            };
            if let Ok(taken) = resolve(named, port, peer) {
                let (remote, local) = (remote.to_canonical(), local.to_canonical());
                let is_here = remote.is_loopback() || remote == local;
                prop_assert_eq!(taken, taken.to_canonical());
                prop_assert!(!taken.is_unspecified() && !taken.is_multicast());
                prop_assert!(!taken.is_loopback() || is_here);
                prop_assert!(port != 11_400 || (!taken.is_loopback() && taken != local));
                let metadata: IpAddr = [169, 254, 169, 254].into();
                prop_assert_ne!(taken, metadata);
                let is_near = match taken {
                    IpAddr::V4(ip) => ip.is_private() || ip.octets()[0] == 100,
                    IpAddr::V6(ip) => ip.is_unique_local(),
                };
                prop_assert!(taken == remote || taken.is_loopback() || is_near);
            }
        }
    }
}
