//! `OLLAMA_AGENT_ADVERTISE`: an address at which the coordinator reaches the runtime by itself.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ollama_coordinator_common::protocol::tunnel::LinkKind;

/// How the coordinator is to reach the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// The agent dials the coordinator and carries the requests.
    Tunnel,
    /// The coordinator dials the runtime.
    Direct {
        /// Where; else at this machine's address towards the coordinator.
        advertised: Option<Advertised>,
    },
}

impl Link {
    /// Returns what a registration says of it.
    pub fn kind(self) -> LinkKind {
        match self {
            Self::Tunnel => LinkKind::Tunnel,
            Self::Direct { .. } => LinkKind::Direct,
        }
    }
}

/// Where the operator says that the runtime is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advertised {
    /// The address.
    pub ip: IpAddr,
    /// The port, when it is not the one on which the agent reaches the runtime.
    pub port: Option<u16>,
}

impl fmt::Display for Advertised {
    /// Writes it so that it can be read again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}", SocketAddr::new(self.ip, port)),
            None => write!(f, "{}", self.ip),
        }
    }
}

/// Reads `192.168.1.21`, `192.168.1.21:11434`, `fd00::21` or `[fd00::21]:11434`.
pub(super) fn parse(text: &str) -> Result<Advertised, InvalidAdvertised> {
    let text = text.trim();
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let advertised = match (bare.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
        (Ok(ip), _) => Advertised { ip, port: None },
        (Err(_), Ok(addr)) => Advertised {
            ip: addr.ip(),
            port: Some(addr.port()),
        },
        (Err(_), Err(_)) => return Err(InvalidAdvertised::NotAnAddress),
    };
    if advertised.ip.is_unspecified() || advertised.ip.is_multicast() {
        return Err(InvalidAdvertised::NobodysAddress);
    }
    if advertised.port == Some(0) {
        return Err(InvalidAdvertised::PortZero);
    }
    Ok(advertised)
}

#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidAdvertised {
    #[error(
        "allowed is an IP address, with or without a port, such as 192.168.1.21 or \
         192.168.1.21:11434"
    )]
    NotAnAddress,
    #[error("nobody can be reached at this address; allowed is one of this machine's own")]
    NobodysAddress,
    #[error("port 0 cannot be dialled")]
    PortZero,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("192.168.1.21", "192.168.1.21", None)]
    #[case(" 192.168.1.21:8080 ", "192.168.1.21", Some(8080))]
    #[case("fd00::21", "fd00::21", None)]
    #[case("[fd00::21]", "fd00::21", None)]
    #[case("[fd00::21]:8080", "fd00::21", Some(8080))]
    fn addresses_are_read_with_and_without_a_port(
        #[case] text: &str,
        #[case] ip: IpAddr,
        #[case] port: Option<u16>,
    ) {
        assert_eq!(parse(text).unwrap(), Advertised { ip, port });
    }

    #[rstest]
    #[case("", "allowed is an IP address")]
    #[case("gpu-02", "allowed is an IP address")]
    #[case("http://192.168.1.21", "allowed is an IP address")]
    #[case("192.168.1.21:99999", "allowed is an IP address")]
    #[case("0.0.0.0", "nobody can be reached")]
    #[case("[::]:11434", "nobody can be reached")]
    #[case("192.168.1.21:0", "port 0")]
    fn other_values_are_refused_with_what_is_allowed(#[case] text: &str, #[case] expected: &str) {
        let error = parse(text).unwrap_err().to_string();

        assert!(error.contains(expected), "{error}");
    }
}
