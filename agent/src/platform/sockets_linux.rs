//! Linux: whose sockets are at both ends of a connection on this machine, as the kernel lists them.

use std::net::SocketAddrV4;

const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

/// Returns whether another user's socket is at the other end of a connection of this process; one
/// that is not listed counts as such. Where there are no lists nobody does.
pub(crate) fn is_of_another_user(peer: SocketAddrV4, own: SocketAddrV4) -> bool {
    let tables = TABLES.map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let user = |near, far| {
        let mut tables = tables.iter();
        tables.find_map(|table| user_in(table, near, far))
    };
    user(own, peer).is_some_and(|own_user| user(peer, own) != Some(own_user))
}

/// Returns whose socket leads from `near` to `far`.
fn user_in(table: &str, near: SocketAddrV4, far: SocketAddrV4) -> Option<u32> {
    let (near, far) = (listed(near), listed(far));
    let mut sockets = table.lines().map(str::split_whitespace);
    sockets.find_map(|mut fields| {
        let is_it = fields.nth(1)?.ends_with(&near) && fields.next()?.ends_with(&far);
        let user = fields.nth(4)?;
        user.parse().ok().filter(|_| is_it)
    })
}

/// An IPv6 socket has the same at the end of its longer address.
fn listed(addr: SocketAddrV4) -> String {
    let ip = u32::from_ne_bytes(addr.ip().octets());
    format!("{ip:08X}:{:04X}", addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

    fn at(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn users_are_read_from_both_lists() {
        let four = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n\
                    0: 0100007F:2C89 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000  1000        0 1\n";
        let six = "0: 0000000000000000FFFF00000100007F:D2F0 0000000000000000FFFF00000100007F:2C89 01 \
                   00000000:00000000 00:00000000 00000000  1001        0 2\n";
        let (panel, browser) = (at(11_401), at(54_000));

        assert_eq!(user_in(four, panel, browser), Some(1000));
        assert_eq!(user_in(four, browser, panel), None);
        assert_eq!(user_in(six, browser, panel), Some(1001));
        assert_eq!(user_in("", panel, browser), None);
    }

    #[test]
    fn connection_of_this_process_is_of_the_same_user() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        let (SocketAddr::V4(peer), SocketAddr::V4(own)) = (peer, accepted.local_addr().unwrap())
        else {
            panic!("both are IPv4");
        };

        assert!(!is_of_another_user(peer, own));
        drop(client);
    }
}
