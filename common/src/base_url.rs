//! Where a server is, as people write it.

use std::net::SocketAddr;

use http::Uri;
use url::Url;

/// Where a server is: `http://host:port`, with an optional path in front of every route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) prefix: String,
}

impl BaseUrl {
    /// Reads `http://host:port/prefix`; `http://` and the port may be left out.
    ///
    /// # Errors
    /// Says what is wrong with the text, such as an `https` scheme, which is not supported.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, InvalidBaseUrl> {
        let invalid = |why| InvalidBaseUrl {
            text: text.to_owned(),
            why,
        };
        let (scheme, rest) = text
            .trim()
            .split_once("://")
            .unwrap_or(("http", text.trim()));
        let read = |scheme| Url::parse(&format!("{scheme}://{rest}"));
        let url = read(scheme).map_err(|_source| invalid("it is not a URL"))?;
        match url.scheme() {
            "http" => {}
            "https" => return Err(invalid("https is not supported yet, use http")),
            _ => return Err(invalid("the scheme must be http")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("a user name or password does not belong in it"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("a query or fragment does not belong in it"));
        }
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| invalid("it names no host"))?.to_owned();
        // A URL does not tell its scheme's own port from none; that of another scheme does.
        let other = read("https").ok().and_then(|url| url.port());
        let port = url.port().or(other).unwrap_or(default_port);
        if port == 0 {
            return Err(invalid("port 0 cannot be dialled"));
        }
        let base = Self {
            host,
            port,
            prefix: url.path().trim_end_matches('/').to_owned(),
        };
        // What a URL may contain is more than what can be asked for.
        match base.to_string().parse::<Uri>() {
            Ok(_) => Ok(base),
            Err(_unusable) => Err(invalid("it has characters that no request can carry")),
        }
    }

    /// Makes the URL of a known address.
    pub fn from_addr(addr: SocketAddr) -> Self {
        let host = match addr {
            SocketAddr::V4(v4) => v4.ip().to_string(),
            SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
        };
        Self {
            host,
            port: addr.port(),
            prefix: String::new(),
        }
    }

    /// Returns the host as written; IPv6 in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the path in front of every route, without a slash at its end.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl std::fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}:{}{}", self.host, self.port, self.prefix)
    }
}

/// The text is not a usable base URL.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not usable as a URL: {why}")]
pub struct InvalidBaseUrl {
    text: String,
    why: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case("http://192.168.1.10:11400", "http://192.168.1.10:11400")]
    #[case("192.168.1.10", "http://192.168.1.10:11400")]
    #[case("gpu-hub:80", "http://gpu-hub:80")]
    #[case("http://gpu-hub:80/fleet", "http://gpu-hub:80/fleet")]
    #[case("http://gpu-hub/fleet/", "http://gpu-hub:11400/fleet")]
    #[case("[::1]:9", "http://[::1]:9")]
    fn base_urls_are_read_as_people_write_them(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(BaseUrl::parse(text, 11400).unwrap().to_string(), expected);
    }

    #[rstest]
    #[case("https://hub", "https is not supported yet")]
    #[case("ftp://hub", "scheme must be http")]
    #[case("http://", "not a URL")]
    #[case("http://user:pw@hub", "password does not belong")]
    #[case("http://hub?x=1", "query or fragment")]
    #[case("http://hub:0", "port 0")]
    #[case("http://{hub}", "no request can carry")]
    fn unusable_urls_say_why(#[case] text: &str, #[case] why: &str) {
        let error = BaseUrl::parse(text, 11400).unwrap_err().to_string();

        assert!(error.contains(why), "{error}");
    }

    /// Texts that look like URLs, and some that do not.
    fn any_url() -> impl Strategy<Value = String> {
        let likely = "(http|HTTP|ws|https)?(://)?[a-zA-Z0-9.\\[\\]:%_-]{0,20}(:[0-9]{1,6})?[/\\\\a-z?#% ]{0,8}";
        prop_oneof![3 => likely, 1 => "\\PC{0,40}", 1 => any::<String>()]
    }

    proptest! {
        #[test]
        fn whatever_is_read_can_be_dialled_and_reads_the_same_again(
            text in any_url(), default_port in 1_u16..,
        ) {
            if let Ok(url) = BaseUrl::parse(&text, default_port) {
                let again = BaseUrl::parse(&url.to_string(), 1).unwrap();
                prop_assert_eq!(&again, &url, "{:?}", text);
                prop_assert!(url.to_string().parse::<http::Uri>().is_ok(), "{}", url);
            }
        }

        #[test]
        fn port_that_is_written_is_the_one_that_is_used(
            port in prop_oneof![Just(80_u16), Just(443), 1_u16..], zeros in 0_usize..3,
            scheme in prop::sample::select(vec!["", "http://", "HTTP://"]),
            around in prop::sample::select(vec![("", ""), (" ", "\n"), ("", "/"), ("", "\\fleet")]),
        ) {
            let zeros = "0".repeat(zeros);
            let (before, after) = around;
            let text = format!("{before}{scheme}gpu-hub:{zeros}{port}{after}");

            prop_assert_eq!(BaseUrl::parse(&text, 11400).map(|url| url.port).ok(), Some(port), "{}", text);
        }
    }
}
