//! `--panel`: where the settings panel is. It is never anywhere but on this machine.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// Where the panel listens unless told otherwise.
pub const DEFAULT_PANEL_PORT: u16 = 11401;

/// Whether there is a settings panel, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Panel {
    /// There is none.
    Off,
    /// On this port of 127.0.0.1, or on any free one when it is taken.
    Port(u16),
}

impl FromStr for Panel {
    type Err = InvalidPanel;

    /// Reads `off`, `11401` or `127.0.0.1:11401`; port 0 takes any free one.
    fn from_str(text: &str) -> Result<Self, InvalidPanel> {
        let text = text.trim();
        if text == "off" {
            return Ok(Self::Off);
        }
        let port = text.strip_prefix("localhost:").unwrap_or(text);
        if let Ok(port) = port.parse() {
            return Ok(Self::Port(port));
        }
        let addr: SocketAddr = text
            .parse()
            .map_err(|_neither| InvalidPanel::NotAnAddress)?;
        if addr.ip() == std::net::Ipv4Addr::LOCALHOST {
            Ok(Self::Port(addr.port()))
        } else {
            Err(InvalidPanel::NotThisMachine)
        }
    }
}

impl fmt::Display for Panel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Port(port) => write!(f, "127.0.0.1:{port}"),
        }
    }
}

/// The text says nothing that the panel can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPanel {
    /// Not an address at all.
    #[error("allowed are `off`, a port, or 127.0.0.1 with a port, such as 127.0.0.1:11401")]
    NotAnAddress,
    /// An address that others reach.
    #[error("the panel is for this machine only; allowed is 127.0.0.1 with a port, or `off`")]
    NotThisMachine,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("off", Panel::Off)]
    #[case("0", Panel::Port(0))]
    #[case("8000", Panel::Port(8000))]
    #[case(" 127.0.0.1:8000 ", Panel::Port(8000))]
    #[case("localhost:8000", Panel::Port(8000))]
    fn panel_is_off_or_on_a_port_of_this_machine(#[case] text: &str, #[case] expected: Panel) {
        assert_eq!(text.parse(), Ok(expected));
    }

    #[rstest]
    #[case("on", InvalidPanel::NotAnAddress)]
    #[case("70000", InvalidPanel::NotAnAddress)]
    #[case("0.0.0.0:8000", InvalidPanel::NotThisMachine)]
    #[case("192.168.1.7:8000", InvalidPanel::NotThisMachine)]
    #[case("[::1]:8000", InvalidPanel::NotThisMachine)]
    fn panel_is_never_where_others_reach_it(#[case] text: &str, #[case] expected: InvalidPanel) {
        assert_eq!(text.parse::<Panel>(), Err(expected));
    }
}
