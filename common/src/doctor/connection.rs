//! Looks at the way to a coordinator layer by layer, as nobody in particular: nothing is registered
//! and nothing changes there.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::header::{CONNECTION, DATE, HeaderValue, UPGRADE};
use http::{HeaderMap, Method};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::lookup_host;

use super::impostor::{Impostor, explain};
use super::{Check, CheckId};
use crate::base_url::BaseUrl;
use crate::dial::Dial;
use crate::http::{HttpClient, HttpError, HttpResponse, HttpTimeouts};
use crate::id::{AgentId, SessionId};
use crate::probe::COORDINATOR_SERVICE;
use crate::protocol::error::{ErrorCode, Problem};
use crate::protocol::tunnel;
use crate::version::{self, Version};

/// A difference between two clocks that is not worth a word.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(30);
/// How much of a greeting tells what is spoken.
const GREETING: usize = 16;

/// What was found on the way to a coordinator.
#[derive(Debug)]
pub struct Connection {
    /// Layer by layer, up to the first that is broken.
    pub checks: Vec<Check>,
    /// A connection to the coordinator, when it is one.
    pub coordinator: Option<HttpClient>,
}

/// Looks at the way to a coordinator.
pub async fn look(server: &BaseUrl, dial: &Dial, timeouts: HttpTimeouts) -> Connection {
    let mut checks = Vec::new();
    let coordinator = climb(server, dial, timeouts, &mut checks).await;
    Connection {
        checks,
        coordinator,
    }
}

/// Adds a check for each layer; ends at the first that is broken.
async fn climb(
    server: &BaseUrl,
    dial: &Dial,
    timeouts: HttpTimeouts,
    checks: &mut Vec<Check>,
) -> Option<HttpClient> {
    let mut client = HttpClient::new(server.clone(), timeouts).with_dial(dial.clone());
    let proxy = dial.named_proxy_of(server);
    if proxy.is_none() {
        match name(server, timeouts.connect).await {
            Ok(found) => checks.extend(found),
            Err(broken) => return stop(checks, broken),
        }
    }
    let ends = match client.connect().await {
        Ok(ends) => ends,
        Err(error) => return stop(checks, explain(&error, server)),
    };
    if let Some((variable, proxy)) = proxy {
        let found = format!("{} is asked through {variable}={proxy}", server.host());
        checks.push(Check::ok(CheckId::Proxy, found));
    }
    checks.push(Check::ok(
        CheckId::Tcp,
        format!("{} takes connections", ends.peer),
    ));
    let answer = match client.get("/healthz").await {
        Ok(answer) => answer,
        Err(error @ HttpError::Exchange(_)) => {
            let broken = unintelligible(server, dial, timeouts).await;
            return stop(checks, broken.unwrap_or_else(|| explain(&error, server)));
        }
        Err(error) => return stop(checks, explain(&error, server)),
    };
    checks.push(Check::ok(
        CheckId::Http,
        format!("status {}", answer.status),
    ));
    let Some(health) = health(&answer) else {
        let impostor = impostor(&mut client, &answer).await;
        return stop(checks, impostor.explain(server));
    };
    let found = format!("{server} is Ollama Coordinator {}", health.version);
    checks.push(Check::ok(CheckId::Coordinator, found));
    let about = about(&mut client).await;
    let oldest_agent = about.and_then(|about| about.oldest_agent);
    checks.push(version(&health.version, oldest_agent.as_deref()));
    checks.extend(clock_ahead(&answer.headers, Utc::now()).map(clock));
    Some(client)
}

fn stop(checks: &mut Vec<Check>, broken: Check) -> Option<HttpClient> {
    checks.push(broken);
    None
}

/// Looks the host name up; an address needs no such thing.
async fn name(server: &BaseUrl, within: Duration) -> Result<Option<Check>, Check> {
    let host = server.host();
    if host
        .trim_matches(['[', ']'])
        .parse::<std::net::IpAddr>()
        .is_ok()
    {
        return Ok(None);
    }
    let failed = |source| {
        let host = host.to_owned();
        explain(&HttpError::Resolve { host, source }, server)
    };
    let looked = tokio::time::timeout(within, lookup_host((host, server.port()))).await;
    let addrs = looked.map_err(|_elapsed| failed(std::io::ErrorKind::TimedOut.into()))?;
    let addrs = addrs.map_err(failed)?.map(|addr| addr.ip().to_string());
    let addrs = addrs.collect::<Vec<_>>().join(", ");
    Ok(Some(Check::ok(CheckId::Name, format!("{host} is {addrs}"))))
}

/// Finds out what is spoken where HTTP is not.
async fn unintelligible(server: &BaseUrl, dial: &Dial, timeouts: HttpTimeouts) -> Option<Check> {
    let mut stream = dial.connect(server, timeouts.connect).await.ok()?.stream;
    let mut greeting = [0; GREETING];
    let asking = async {
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: coordinator\r\n\r\n")
            .await?;
        stream.read(&mut greeting).await
    };
    let read = tokio::time::timeout(timeouts.answer, asking)
        .await
        .ok()?
        .ok()?;
    let found = spoken(&greeting[..read])?;
    let remedy = "use the coordinator's own port, usually 11400, with http://";
    Some(Check::error(CheckId::Http, format!("{server} {found}")).with_remedy(remedy))
}

/// Returns what the first bytes of an answer show.
fn spoken(greeting: &[u8]) -> Option<&'static str> {
    match greeting {
        [0x15 | 0x16, 0x03, ..] => Some("speaks TLS (https), which is not supported yet"),
        [b'S', b'S', b'H', b'-', ..] => Some("is an SSH server"),
        [] => Some("hangs up without an answer"),
        _ => None,
    }
}

#[derive(Debug, Deserialize)]
struct Health {
    service: String,
    #[serde(default)]
    version: String,
}

fn health(answer: &HttpResponse) -> Option<Health> {
    let health = answer.json::<Health>().ok()?;
    (health.service == COORDINATOR_SERVICE).then_some(health)
}

/// Finds out what answers in place of a coordinator; Ollama tells only when it is asked.
pub async fn impostor(client: &mut HttpClient, answer: &HttpResponse) -> Impostor {
    #[derive(Deserialize)]
    struct OllamaVersion {
        #[serde(rename = "version")]
        _version: String,
    }

    let unasked = Impostor::behind(answer);
    let Impostor::Unknown { .. } = unasked else {
        return unasked;
    };
    match client.get("/api/version").await {
        Ok(answer) if answer.json::<OllamaVersion>().is_ok() => Impostor::Ollama,
        Ok(_) | Err(_) => unasked,
    }
}

#[derive(Debug, Deserialize)]
struct About {
    #[serde(default)]
    oldest_agent: Option<String>,
}

async fn about(client: &mut HttpClient) -> Option<About> {
    client.get("/api/about").await.ok()?.json().ok()
}

/// Compares this program's version with the coordinator's.
fn version(coordinator: &str, oldest_agent: Option<&str>) -> Check {
    let (own, id) = (version::OWN, CheckId::Version);
    let Some(theirs) = Version::parse(coordinator) else {
        return Check::unknown(id, "the coordinator does not say its version");
    };
    if let Some(oldest) = oldest_agent.and_then(Version::parse)
        && Version::own() < oldest
    {
        let found = version::too_old(own, coordinator, oldest);
        return Check::error(id, found).with_remedy("update this machine's ollama-agent");
    }
    if theirs < version::OLDEST_COORDINATOR {
        let oldest = version::OLDEST_COORDINATOR;
        let found =
            format!("coordinator {coordinator} is too old for {own} (needs {oldest} or newer)");
        return Check::error(id, found).with_remedy("update the coordinator");
    }
    if theirs == Version::own() {
        return Check::ok(id, format!("{own}, as the coordinator"));
    }
    Check::ok(id, format!("{own}; the coordinator is {coordinator}"))
}

/// How far the server's clock is ahead of `now`, in seconds, when its answer says the time.
pub fn clock_ahead(headers: &HeaderMap, now: DateTime<Utc>) -> Option<i64> {
    let date = headers.get(DATE)?.to_str().ok()?;
    let theirs = DateTime::parse_from_rfc2822(date).ok()?;
    Some(theirs.signed_duration_since(now).num_seconds())
}

/// Says in words that the clocks differ, when it matters.
pub fn clock_skew(ahead: i64) -> Option<String> {
    let skew = Duration::from_secs(ahead.unsigned_abs());
    if skew <= CLOCK_TOLERANCE {
        return None;
    }
    let skew = humantime::format_duration(skew);
    let way = if ahead > 0 { "behind" } else { "ahead of" };
    Some(format!(
        "this machine's clock is {skew} {way} the coordinator's; charts may look shifted"
    ))
}

fn clock(ahead: i64) -> Check {
    match clock_skew(ahead) {
        Some(skew) => Check::warning(CheckId::Clock, skew)
            .with_remedy("have both machines set their clocks from the network"),
        None => Check::ok(CheckId::Clock, "the coordinator's clock says the same"),
    }
}

/// Tries whether a tunnel could be opened, without opening one: as an agent that does not exist.
pub async fn tunnel(server: &BaseUrl, dial: &Dial, timeouts: HttpTimeouts) -> Check {
    let id = CheckId::Tunnel;
    let mut client = HttpClient::new(server.clone(), timeouts)
        .with_dial(dial.clone())
        .with_header(CONNECTION, HeaderValue::from_static("Upgrade"))
        .with_header(UPGRADE, HeaderValue::from_static(tunnel::PROTOCOL));
    let path = format!(
        "/api/agents/{}/tunnel?session={}",
        AgentId::new(),
        SessionId::new()
    );
    let answer = match client.send(Method::GET, &path, None, Bytes::new()).await {
        Ok(answer) => answer,
        Err(error) => {
            return Check {
                id,
                ..explain(&error, server)
            };
        }
    };
    match answer.json::<Problem>().map(|problem| problem.code) {
        Ok(ErrorCode::UnknownAgent) => {
            Check::ok(id, "the way to the coordinator lets tunnels through")
        }
        Ok(ErrorCode::UpgradeRequired) => Check::error(
            id,
            "a reverse proxy in front of the coordinator lets no tunnel through",
        )
        .with_remedy("have it pass on the headers `Upgrade` and `Connection`"),
        Ok(_) | Err(_) => Check::unknown(
            id,
            format!("the coordinator answered with status {}", answer.status),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Answer;
    use rstest::rstest;

    #[rstest]
    #[case::same(version::OWN, None, Answer::Ok)]
    #[case::agent_too_old("9.0.0", Some("8.0.0"), Answer::Error)]
    #[case::coordinator_too_old("0.0.9", None, Answer::Error)]
    #[case::newer_that_still_understands("9.0.0", Some("0.1.0"), Answer::Ok)]
    #[case::nonsense("banana", None, Answer::Unknown)]
    fn versions_that_do_not_understand_each_other_are_an_error(
        #[case] coordinator: &str,
        #[case] oldest_agent: Option<&str>,
        #[case] expected: Answer,
    ) {
        assert_eq!(version(coordinator, oldest_agent).answer, expected);
    }

    #[rstest]
    #[case("Tue, 24 Nov 2026 12:06:00 GMT", Some("6m behind the coordinator's"))]
    #[case("Tue, 24 Nov 2026 11:00:00 GMT", Some("1h ahead of the coordinator's"))]
    #[case("Tue, 24 Nov 2026 12:00:20 GMT", None)]
    fn clocks_that_differ_by_much_are_told(#[case] date: &str, #[case] expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        headers.insert(DATE, date.parse().unwrap());
        let now = "2026-11-24T12:00:00Z".parse().unwrap();

        let skew = clock_ahead(&headers, now).and_then(clock_skew);

        assert_eq!(skew.is_some(), expected.is_some(), "{skew:?}");
        assert!(
            skew.unwrap_or_default()
                .contains(expected.unwrap_or_default())
        );
    }

    #[rstest]
    #[case(&[0x15, 0x03, 0x01, 0, 2], Some("TLS"))]
    #[case(b"SSH-2.0-OpenSSH_9", Some("SSH"))]
    #[case(b"", Some("hangs up"))]
    #[case(b"220 smtp", None)]
    fn first_bytes_tell_what_is_spoken(#[case] greeting: &[u8], #[case] expected: Option<&str>) {
        let spoken = spoken(greeting);

        assert_eq!(spoken.is_some(), expected.is_some());
        assert!(
            spoken
                .unwrap_or_default()
                .contains(expected.unwrap_or_default())
        );
    }
}
