//! Where the runtime is, also as Ollama's own `OLLAMA_HOST` says it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ollama_coordinator_common::base_url::{BaseUrl, InvalidBaseUrl};
use ollama_coordinator_common::protocol::register::DEFAULT_RUNTIME_PORT;

/// Reads what `--runtime` and `OLLAMA_HOST` say: `host`, `host:port`, `:port` or `http://...`.
///
/// An address that means "listen everywhere" is dialled on the loopback interface. As in Ollama,
/// `http://host` without a port means port 80.
pub(super) fn parse(text: &str) -> Result<BaseUrl, InvalidBaseUrl> {
    let text = text.trim().trim_matches(['"', '\'']).trim();
    let default_port = if text.starts_with("http://") {
        80
    } else {
        DEFAULT_RUNTIME_PORT
    };
    let text = if text.parse::<Ipv6Addr>().is_ok() {
        format!("[{text}]")
    } else if text.starts_with(':') {
        format!("127.0.0.1{text}")
    } else {
        text.to_owned()
    };
    let said = BaseUrl::parse(&text, default_port)?;
    let addr = said
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    match addr {
        Ok(addr) if addr.to_canonical().is_unspecified() => {
            let loopback = match addr {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            };
            Ok(BaseUrl::from_addr((loopback, said.port()).into()))
        }
        Ok(_) | Err(_) => Ok(said),
    }
}

/// Resolves the runtime when no flag names it.
pub(super) fn from_ollama_host(ollama_host: Option<&str>) -> Result<BaseUrl, InvalidOllamaHost> {
    let Some(text) = ollama_host else {
        return Ok(BaseUrl::from_addr(
            (Ipv4Addr::LOCALHOST, DEFAULT_RUNTIME_PORT).into(),
        ));
    };
    parse(text).map_err(InvalidOllamaHost)
}

/// `OLLAMA_HOST` is no address at which a runtime could be asked.
#[derive(Debug, thiserror::Error)]
#[error("OLLAMA_HOST says {0}; set --runtime or OLLAMA_AGENT_RUNTIME to the runtime's URL")]
pub struct InvalidOllamaHost(InvalidBaseUrl);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case("gpu-01", "http://gpu-01:11434")]
    #[case("gpu-01:9000", "http://gpu-01:9000")]
    #[case("http://gpu-01:9000", "http://gpu-01:9000")]
    #[case("http://gpu-01", "http://gpu-01:80")]
    #[case("0.0.0.0", "http://127.0.0.1:11434")]
    #[case("0.0.0.0:8080", "http://127.0.0.1:8080")]
    #[case("http://0.0.0.0:8080", "http://127.0.0.1:8080")]
    #[case("[::]:8080", "http://[::1]:8080")]
    #[case("::", "http://[::1]:11434")]
    #[case("::1", "http://[::1]:11434")]
    #[case(":8080", "http://127.0.0.1:8080")]
    #[case(" \"127.0.0.1:1\" ", "http://127.0.0.1:1")]
    fn every_form_of_ollama_host_is_understood(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(from_ollama_host(Some(text)).unwrap().to_string(), expected);
    }

    #[test]
    fn ollamas_default_is_used_when_nothing_is_said() {
        assert_eq!(
            from_ollama_host(None).unwrap().to_string(),
            "http://127.0.0.1:11434"
        );
    }

    #[test]
    fn unusable_ollama_host_is_named() {
        let error = from_ollama_host(Some("https://gpu-01"))
            .unwrap_err()
            .to_string();

        assert!(error.contains("OLLAMA_HOST"), "{error}");
        assert!(error.contains("OLLAMA_AGENT_RUNTIME"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in "\\PC{0,60}") {
            if let Ok(url) = parse(&text) {
                prop_assert_ne!(url.port(), 0);
            }
        }
    }
}
