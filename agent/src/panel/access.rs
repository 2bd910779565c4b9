//! Who may use the panel. Every web site can send requests to loopback, so being local proves
//! nothing: a caller shows the token of this launch, and a browser also shows that the request comes
//! from the panel's own page. Pure.

use http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use http::{HeaderMap, HeaderName, Method};
use ollama_coordinator_common::secret::{AgentSecret, SecretHash};

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What opens the panel, and where it is.
#[derive(Debug, Clone)]
pub(super) struct Access {
    port: u16,
    token: SecretHash,
}

/// Who has shown the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// The panel's own page, by its cookie.
    Browser,
    /// A command of the same user, by a header that no page can send.
    Command,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is addressed to another host: a name that was made to lead here.
    Host,
    /// The token is missing or of another launch.
    Token,
    /// The link that was opened has been used, or is too old.
    Ticket,
    /// Another page has sent it.
    Origin,
}

impl Access {
    pub(super) fn new(port: u16, token: &AgentSecret) -> Self {
        Self {
            port,
            token: token.hash(),
        }
    }

    /// Refuses what is addressed to any other name than this machine's own for itself.
    pub(super) fn check_host(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = text(headers, &HOST).ok_or(Refusal::Host)?;
        let is_ours = ["127.0.0.1", "localhost", "[::1]"]
            .iter()
            .any(|name| host == format!("{name}:{}", self.port));
        if is_ours { Ok(()) } else { Err(Refusal::Host) }
    }

    /// Returns who sends a request to this machine.
    pub(super) fn admit(&self, method: &Method, headers: &HeaderMap) -> Result<Caller, Refusal> {
        self.check_host(headers)?;
        if let Some(bearer) = text(headers, &AUTHORIZATION) {
            let token = bearer.strip_prefix("Bearer ").ok_or(Refusal::Token)?;
            return self.check_token(token).map(|()| Caller::Command);
        }
        let cookie = self.cookie_of(headers).ok_or(Refusal::Token)?;
        self.check_token(cookie)?;
        check_origin(method, headers)?;
        Ok(Caller::Browser)
    }

    pub(super) fn check_token(&self, token: &str) -> Result<(), Refusal> {
        let token: AgentSecret = token.parse().map_err(|_unusable| Refusal::Token)?;
        if token.hash() == self.token {
            Ok(())
        } else {
            Err(Refusal::Token)
        }
    }

    /// Returns the cookie that stands for the token from now on.
    pub(super) fn cookie(&self, token: &str) -> String {
        format!(
            "{}={token}; Path=/; HttpOnly; SameSite=Strict",
            self.cookie_name()
        )
    }

    /// Ports share cookies, so each has a name of its own.
    fn cookie_name(&self) -> String {
        format!("ollama_agent_panel_{}", self.port)
    }

    fn cookie_of<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let name = self.cookie_name();
        let lists = headers.get_all(COOKIE).iter();
        let mut cookies = lists
            .filter_map(|list| list.to_str().ok())
            .flat_map(|l| l.split(';'));
        cookies.find_map(|cookie| {
            let (key, value) = cookie.trim().split_once('=')?;
            (key == name).then_some(value)
        })
    }
}

/// A browser says where a request comes from. What changes something must say that it is here.
fn check_origin(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    let site = text(headers, &FETCH_SITE);
    let is_foreign = site.is_some_and(|site| site != "same-origin" && site != "none");
    if is_foreign {
        return Err(Refusal::Origin);
    }
    let is_reading = method == Method::GET || method == Method::HEAD;
    let host = text(headers, &HOST).unwrap_or_default();
    match text(headers, &ORIGIN) {
        Some(origin) if origin == format!("http://{host}") => Ok(()),
        Some(_) => Err(Refusal::Origin),
        None if is_reading || site == Some("same-origin") => Ok(()),
        None => Err(Refusal::Origin),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const PORT: u16 = 11_401;

    fn access() -> (Access, String) {
        let token = AgentSecret::generate();
        (Access::new(PORT, &token), token.expose().to_owned())
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        let pairs =
            pairs.map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        pairs.collect()
    }

    #[rstest]
    #[case("127.0.0.1:11401", true)]
    #[case("localhost:11401", true)]
    #[case("[::1]:11401", true)]
    #[case("127.0.0.1", false)]
    #[case("127.0.0.1:80", false)]
    #[case("rebound.example:11401", false)]
    #[case("localhost.example:11401", false)]
    fn only_names_of_this_machine_are_answered(#[case] host: &str, #[case] expected: bool) {
        let (access, _) = access();

        assert_eq!(
            access.check_host(&headers(&[("host", host)])).is_ok(),
            expected
        );
    }

    #[rstest]
    #[case::page_itself("POST", &[("origin", "http://127.0.0.1:11401")], Ok(Caller::Browser))]
    #[case::page_that_sends_no_origin("POST", &[("sec-fetch-site", "same-origin")], Ok(Caller::Browser))]
    #[case::address_bar("GET", &[("sec-fetch-site", "none")], Ok(Caller::Browser))]
    #[case::old_browser("GET", &[], Ok(Caller::Browser))]
    #[case::unknown_sender("POST", &[], Err(Refusal::Origin))]
    #[case::other_site("POST", &[("origin", "http://evil.example")], Err(Refusal::Origin))]
    #[case::other_port("POST", &[("origin", "http://127.0.0.1:8000")], Err(Refusal::Origin))]
    #[case::other_name("POST", &[("origin", "http://localhost:11401")], Err(Refusal::Origin))]
    #[case::sandbox("POST", &[("origin", "null")], Err(Refusal::Origin))]
    #[case::port_that_reads("GET", &[("sec-fetch-site", "same-site")], Err(Refusal::Origin))]
    #[case::site_that_reads("GET", &[("sec-fetch-site", "cross-site")], Err(Refusal::Origin))]
    fn cookie_counts_for_the_panels_own_page_only(
        #[case] method: Method,
        #[case] sent: &[(&'static str, &str)],
        #[case] expected: Result<Caller, Refusal>,
    ) {
        let (access, token) = access();
        let cookie = format!("other=1; ollama_agent_panel_11401={token}");
        let mut headers = headers(sent);
        headers.insert("host", "127.0.0.1:11401".parse().unwrap());
        headers.insert("cookie", cookie.parse().unwrap());

        assert_eq!(access.admit(&method, &headers), expected);
    }

    #[test]
    fn token_of_another_launch_opens_nothing() {
        let (access, token) = access();
        let other = AgentSecret::generate();
        let bearer = |token: &str| {
            let bearer = format!("Bearer {token}");
            headers(&[("host", "localhost:11401"), ("authorization", &bearer)])
        };
        let admit = |headers| access.admit(&Method::POST, &headers);

        assert_eq!(admit(bearer(&token)), Ok(Caller::Command));
        assert_eq!(admit(bearer(other.expose())), Err(Refusal::Token));
        assert_eq!(admit(bearer("")), Err(Refusal::Token));
        assert_eq!(
            admit(headers(&[("host", "localhost:11401")])),
            Err(Refusal::Token)
        );
    }
}
