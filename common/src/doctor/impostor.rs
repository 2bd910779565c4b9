//! What answers at an address where a coordinator was expected, and what its silence means.

use http::StatusCode;
use http::header::SERVER;

use super::{Check, CheckId};
use crate::base_url::BaseUrl;
use crate::dial::ProxyError;
use crate::http::{HttpError, HttpResponse};
use crate::probe::WebPage;

const MAX_SERVER_CHARS: usize = 60;
const USUAL_PORT: &str = "a coordinator is usually on port 11400";
const EXAMPLE: &str = "http://192.168.1.10:11400";

/// What answers in place of a coordinator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Impostor {
    /// A model runtime.
    #[error("it is Ollama, not an Ollama Coordinator")]
    Ollama,
    /// A web site, such as the login page of a network.
    #[error("it is {0}, not an Ollama Coordinator")]
    WebPage(WebPage),
    /// Somebody who wants to know who asks.
    #[error("it wants a login (status {status}), which an Ollama Coordinator does not")]
    Login {
        /// The status it answered.
        status: StatusCode,
    },
    /// A reverse proxy that gets no answer.
    #[error("it is a reverse proxy that gets no answer itself (status {status})")]
    Gateway {
        /// The status it answered.
        status: StatusCode,
    },
    /// Something else.
    #[error(
        "it is not an Ollama Coordinator (status {status}{})",
        .server.as_deref().map(|server| format!(", server \"{server}\"")).unwrap_or_default()
    )]
    Unknown {
        /// The status it answered.
        status: StatusCode,
        /// What it calls itself.
        server: Option<String>,
    },
}

impl Impostor {
    /// Reads what an answer shows that is not a coordinator's. Ollama shows itself only when asked.
    pub fn behind(answer: &HttpResponse) -> Self {
        let status = answer.status;
        if let Some(page) = WebPage::detect(answer).filter(|_| !is_gateways(status)) {
            return Self::WebPage(page);
        }
        if is_gateways(status) {
            return Self::Gateway { status };
        }
        if [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status) {
            return Self::Login { status };
        }
        let server = answer.headers.get(SERVER).and_then(|s| s.to_str().ok());
        let server = server.map(|server| server.chars().take(MAX_SERVER_CHARS).collect());
        Self::Unknown { status, server }
    }

    /// Returns what was found and what to do about it.
    pub fn explain(&self, server: &BaseUrl) -> Check {
        let found = format!("{server} answers, but {self}");
        let remedy = match self {
            Self::Ollama | Self::Unknown { .. } => format!("check the port: {USUAL_PORT}"),
            Self::WebPage(_) => format!(
                "if this network wants a login, do that in a browser; else check the address: \
                 {USUAL_PORT}"
            ),
            Self::Login { .. } => {
                "have the reverse proxy let agents pass, or use the coordinator's own address"
                    .to_owned()
            }
            Self::Gateway { .. } => {
                "start the coordinator behind it, or correct where it leads".to_owned()
            }
        };
        Check::error(CheckId::Coordinator, found).with_remedy(remedy)
    }
}

/// Says which layer towards a coordinator is the first that is broken, and what to do about it.
pub fn explain(error: &HttpError, server: &BaseUrl) -> Check {
    match error {
        HttpError::Resolve { host, source } => Check::error(
            CheckId::Name,
            format!("the name `{host}` is not found ({source})"),
        )
        .with_remedy("check its spelling, or use the coordinator's IP address"),
        HttpError::Connect { addr, source } => connect(server, *addr, source),
        HttpError::Timeout {
            stage: "connection",
            after,
        } => no_connection(server, *after),
        HttpError::Proxy {
            proxy,
            variable,
            source,
        } => through_proxy(server, (variable, proxy), source),
        HttpError::Timeout { after, .. } => Check::error(
            CheckId::Http,
            format!("{server} takes the connection, but does not answer within {after:?}"),
        )
        .with_remedy("look at what runs there: the coordinator, or a proxy before it, hangs"),
        HttpError::Exchange(source) => Check::error(
            CheckId::Http,
            format!("{server} does not speak HTTP ({source})"),
        )
        .with_remedy(format!("check the port: {USUAL_PORT}")),
        HttpError::TooLarge { .. } | HttpError::UnexpectedBody { .. } => Check::error(
            CheckId::Coordinator,
            format!("{server} answers, but {error}"),
        )
        .with_remedy(format!("check the address: {USUAL_PORT}")),
    }
}

fn connect(server: &BaseUrl, addr: std::net::SocketAddr, source: &std::io::Error) -> Check {
    let is_refused = source.kind() == std::io::ErrorKind::ConnectionRefused;
    if is_refused && addr.ip().to_canonical().is_loopback() {
        let host = server.host();
        return Check::error(
            CheckId::Tcp,
            format!("{host} means this machine, and no coordinator runs here ({addr}: {source})"),
        )
        .with_remedy(format!(
            "use the address of the coordinator's machine, such as {EXAMPLE}, or start \
             `ollama-coordinator` here"
        ));
    }
    let remedy = if is_refused {
        format!("is `ollama-coordinator` running there, and on this port? {USUAL_PORT}")
    } else if source.kind() == std::io::ErrorKind::TimedOut {
        swallowed(server)
    } else {
        "check this machine's network and the coordinator's address".to_owned()
    };
    let found = format!("connecting to {addr} failed: {source}");
    Check::error(CheckId::Tcp, found).with_remedy(remedy)
}

fn no_connection(server: &BaseUrl, after: std::time::Duration) -> Check {
    let found = format!("{server} does not take the connection within {after:?}");
    Check::error(CheckId::Tcp, found).with_remedy(swallowed(server))
}

fn swallowed(server: &BaseUrl) -> String {
    format!(
        "is the machine on, and in this network? A firewall may drop what is sent: allow TCP port \
         {} there",
        server.port()
    )
}

fn through_proxy(server: &BaseUrl, (variable, proxy): (&str, &str), source: &ProxyError) -> Check {
    let host = server.host();
    let found = format!("{variable}={proxy} is set, so {host} is asked through it, and {source}");
    let remedy = format!("add {host} to NO_PROXY, or have the proxy let it through");
    Check::error(CheckId::Proxy, found).with_remedy(remedy)
}

/// Answers that a reverse proxy gives for somebody who does not answer it.
fn is_gateways(status: StatusCode) -> bool {
    [
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ]
    .contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue};
    use rstest::rstest;
    use std::io;
    use std::time::Duration;

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> HttpResponse {
        let headers = headers.iter().map(|(name, value)| {
            let name = http::HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        HttpResponse {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.collect::<HeaderMap>(),
            body: body.to_owned().into(),
        }
    }

    const HTML: (&str, &str) = ("content-type", "text/html; charset=utf-8");

    #[rstest]
    #[case::portal(
        answer(200, &[HTML], "<title>Campus login</title>"),
        "it is a web page (title \"Campus login\"), not an Ollama Coordinator"
    )]
    #[case::login(answer(401, &[], ""), "it wants a login (status 401 Unauthorized)")]
    #[case::gateway(answer(502, &[HTML], "<title>502</title>"), "a reverse proxy")]
    #[case::other(
        answer(404, &[("server", "Werkzeug/3")], "{}"),
        "(status 404 Not Found, server \"Werkzeug/3\")"
    )]
    #[case::nameless(answer(204, &[], ""), "(status 204 No Content)")]
    fn impostor_is_known_by_its_answer(#[case] answer: HttpResponse, #[case] expected: &str) {
        let server = BaseUrl::parse("gpu-hub:80", 11400).unwrap();

        let check = Impostor::behind(&answer).explain(&server);

        assert_eq!(check.id, CheckId::Coordinator);
        assert!(check.found.starts_with("http://gpu-hub:80 answers, but "));
        assert!(check.found.contains(expected), "{}", check.found);
        assert!(check.remedy.is_some());
    }

    fn refused(addr: &str) -> HttpError {
        connecting(addr, io::ErrorKind::ConnectionRefused)
    }

    fn connecting(addr: &str, kind: io::ErrorKind) -> HttpError {
        HttpError::Connect {
            addr: addr.parse().unwrap(),
            source: kind.into(),
        }
    }

    #[rstest]
    #[case::here(
        refused("127.0.0.1:11400"),
        CheckId::Tcp,
        "means this machine, and no coordinator"
    )]
    #[case::there(refused("192.168.1.10:11400"), CheckId::Tcp, "running there")]
    #[case::dropped(
        connecting("192.168.1.10:11400", io::ErrorKind::TimedOut),
        CheckId::Tcp,
        "allow TCP port 11400"
    )]
    #[case::late(
        HttpError::Timeout { stage: "connection", after: Duration::from_secs(3) },
        CheckId::Tcp,
        "within 3s; is the machine on"
    )]
    #[case::hangs(
        HttpError::Timeout { stage: "answer", after: Duration::from_secs(3) },
        CheckId::Http,
        "does not answer within 3s"
    )]
    #[case::name(
        HttpError::Resolve { host: "hub".to_owned(), source: io::ErrorKind::NotFound.into() },
        CheckId::Name,
        "`hub` is not found"
    )]
    #[case::proxy(
        HttpError::Proxy {
            proxy: "http://proxy:3128".to_owned(),
            variable: "HTTP_PROXY",
            source: ProxyError::Refused(StatusCode::BAD_GATEWAY),
        },
        CheckId::Proxy,
        "HTTP_PROXY=http://proxy:3128 is set, so hub is asked through it, and it refuses the \
         connection with status 502 Bad Gateway; add hub to NO_PROXY"
    )]
    fn first_broken_layer_is_named(
        #[case] error: HttpError,
        #[case] layer: CheckId,
        #[case] expected: &str,
    ) {
        let check = explain(&error, &BaseUrl::parse("hub", 11400).unwrap());

        assert_eq!(check.id, layer);
        assert!(check.to_string().contains(expected), "{check}");
    }
}
