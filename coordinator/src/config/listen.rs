//! Where the coordinator listens and how much it takes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::Args;

/// The coordinator's default port.
pub const DEFAULT_PORT: u16 = 11400;

/// Where to listen.
#[derive(Debug, Clone, Args)]
pub struct ListenArgs {
    /// Address to listen on [default: every interface; loopback with --dev]
    #[arg(long, env = "OLLAMA_COORDINATOR_HOST", value_name = "ADDRESS", value_parser = host)]
    pub host: Option<IpAddr>,
    /// Port to listen on; 0 takes any free one
    #[arg(long, env = "OLLAMA_COORDINATOR_PORT", value_name = "PORT", default_value_t = DEFAULT_PORT)]
    pub port: u16,
}

fn host(text: &str) -> Result<IpAddr, String> {
    match text.trim() {
        "localhost" => Ok(Ipv4Addr::LOCALHOST.into()),
        "*" => Ok(Ipv6Addr::UNSPECIFIED.into()),
        text => {
            let bare = text.trim_start_matches('[').trim_end_matches(']');
            bare.parse().map_err(|_source| {
                "write an IP address of this machine, such as 0.0.0.0, 127.0.0.1 or ::".to_owned()
            })
        }
    }
}
