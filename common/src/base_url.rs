//! Where a server is, as people write it.

use std::net::SocketAddr;

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
        let with_scheme = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let url = Url::parse(&with_scheme).map_err(|_source| invalid("it is not a URL"))?;
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
        let authority = with_scheme.split("://").nth(1).unwrap_or_default();
        let says_port_80 = authority
            .split('/')
            .next()
            .unwrap_or_default()
            .ends_with(":80");
        let port = url
            .port()
            .unwrap_or(if says_port_80 { 80 } else { default_port });
        if port == 0 {
            return Err(invalid("port 0 cannot be dialled"));
        }
        Ok(Self {
            host,
            port,
            prefix: url.path().trim_end_matches('/').to_owned(),
        })
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
    fn unusable_urls_say_why(#[case] text: &str, #[case] why: &str) {
        let error = BaseUrl::parse(text, 11400).unwrap_err().to_string();

        assert!(error.contains(why), "{error}");
    }
}
