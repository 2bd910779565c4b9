//! Who may use the panel. Every web site can send requests to loopback, so being local proves
//! nothing: a program shows the token of this launch. A browser shows a cookie, below a path that
//! cannot be guessed, and that the request comes from the panel's own page.
//!
//! Two secrets for a browser, because it gives one of them away: ports share cookies, so any other
//! web server on 127.0.0.1 could get one. Below that path it is sent nowhere else, and a page that
//! does not know the path can address nothing there. Pure but for making the secrets.

use http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use http::{HeaderMap, HeaderName, Method};
use ollama_coordinator_common::secret::AgentSecret;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const COOKIE_NAME: &str = "ollama_agent_panel";

/// What opens the panel in this launch, each secret in one way only, and where it is.
#[derive(Debug, Clone)]
pub(super) struct Access {
    port: u16,
    token: AgentSecret,
    page: AgentSecret,
    cookie: AgentSecret,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is addressed to another host: a name that was made to lead here.
    Host,
    /// What opens the panel is missing or of another launch.
    Secret,
    /// The link that was opened has been used, or is too old.
    Ticket,
    /// Another page has sent it.
    Origin,
}

impl Access {
    /// Makes the secrets of a launch whose panel is at this port.
    pub(super) fn new(port: u16) -> Self {
        Self {
            port,
            token: AgentSecret::generate(),
            page: AgentSecret::generate(),
            cookie: AgentSecret::generate(),
        }
    }

    /// Returns what programs of the same user show.
    pub(super) fn token(&self) -> &AgentSecret {
        &self.token
    }

    /// Returns the path of the page.
    pub(super) fn page(&self) -> String {
        format!("/p/{}/", self.page.expose())
    }

    /// Returns the cookie that a browser gets for a ticket.
    pub(super) fn cookie(&self) -> String {
        format!(
            "{COOKIE_NAME}={}; Path={}; HttpOnly; SameSite=Strict",
            self.cookie.expose(),
            self.page()
        )
    }

    /// Refuses what is addressed to any other name than this machine's own for itself.
    pub(super) fn check_host(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = text(headers, &HOST).ok_or(Refusal::Host)?;
        let is_ours = ["127.0.0.1", "localhost", "[::1]"]
            .iter()
            .any(|name| host == format!("{name}:{}", self.port));
        if is_ours { Ok(()) } else { Err(Refusal::Host) }
    }

    /// Lets a program through, by a header that no page can send.
    pub(super) fn admit_program(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let bearer = text(headers, &AUTHORIZATION).ok_or(Refusal::Secret)?;
        let token = bearer.strip_prefix("Bearer ").ok_or(Refusal::Secret)?;
        if is(&self.token, token) {
            Ok(())
        } else {
            Err(Refusal::Secret)
        }
    }

    /// Lets the panel's own page through, which is below `/p/{page}/`.
    pub(super) fn admit_browser(
        &self,
        page: &str,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        let has_cookie = cookies(headers).any(|cookie| is(&self.cookie, cookie));
        if is(&self.page, page) && has_cookie {
            check_origin(method, headers)
        } else {
            Err(Refusal::Secret)
        }
    }
}

/// Returns whether a text is this secret, in a time that tells nothing of it.
fn is(secret: &AgentSecret, text: &str) -> bool {
    let shown = text.parse::<AgentSecret>();
    shown.is_ok_and(|shown| shown.hash() == secret.hash())
}

/// Returns all that could be ours: other servers of this host may have set cookies of the same name.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lists = headers.get_all(COOKIE).iter();
    let cookies = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(';'));
    cookies.filter_map(|cookie| {
        let (name, value) = cookie.trim().split_once('=')?;
        (name == COOKIE_NAME).then_some(value)
    })
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
        let checked = Access::new(PORT).check_host(&headers(&[("host", host)]));

        assert_eq!(checked.is_ok(), expected);
    }

    #[rstest]
    #[case::page_itself("POST", &[("origin", "http://127.0.0.1:11401")], Ok(()))]
    #[case::page_that_sends_no_origin("POST", &[("sec-fetch-site", "same-origin")], Ok(()))]
    #[case::address_bar("GET", &[("sec-fetch-site", "none")], Ok(()))]
    #[case::old_browser("GET", &[], Ok(()))]
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
        #[case] expected: Result<(), Refusal>,
    ) {
        let access = Access::new(PORT);
        let cookie = access.cookie.expose();
        let cookie = format!("{COOKIE_NAME}=tossed; other=1; {COOKIE_NAME}={cookie}");
        let mut headers = headers(sent);
        headers.insert("host", "127.0.0.1:11401".parse().unwrap());
        headers.insert("cookie", cookie.parse().unwrap());

        let admitted = access.admit_browser(access.page.expose(), &method, &headers);

        assert_eq!(admitted, expected);
    }

    #[test]
    fn each_secret_opens_in_its_own_way_only() {
        let (access, other) = (Access::new(PORT), Access::new(PORT));
        let [token, page, cookie] = [&access.token, &access.page, &access.cookie];
        let refused = Err(Refusal::Secret);
        let program = |token: &AgentSecret| {
            let bearer = format!("Bearer {}", token.expose());
            access.admit_program(&headers(&[("authorization", &bearer)]))
        };
        let browser = |page: &AgentSecret, cookie: &AgentSecret| {
            let cookie = format!("{COOKIE_NAME}={}", cookie.expose());
            let headers = headers(&[("cookie", &cookie)]);
            access.admit_browser(page.expose(), &Method::GET, &headers)
        };

        assert_eq!(program(token), Ok(()));
        for wrong in [page, cookie, &other.token] {
            assert_eq!(program(wrong), refused);
        }
        assert_eq!(access.admit_program(&HeaderMap::new()), refused);
        assert_eq!(browser(page, cookie), Ok(()));
        for (page, cookie) in [
            (page, token),
            (page, page),
            (page, &other.cookie),
            (cookie, cookie),
            (token, cookie),
            (&other.page, cookie),
        ] {
            assert_eq!(browser(page, cookie), refused);
        }
    }
}
