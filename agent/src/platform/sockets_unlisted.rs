//! Systems that do not simply tell whose a socket is.

use std::net::SocketAddrV4;

/// Returns that nobody says so.
pub(crate) fn is_of_another_user(_peer: SocketAddrV4, _own: SocketAddrV4) -> bool {
    false
}
