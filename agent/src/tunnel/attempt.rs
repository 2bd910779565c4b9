//! One attempt to open a tunnel: a connection of its own, and the request that turns it.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderName, HeaderValue, UPGRADE, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::dial::Dial;
use ollama_coordinator_common::http::{HttpError, HttpResponse};
use ollama_coordinator_common::protocol::tunnel::PROTOCOL;
use tokio::net::TcpStream;

use super::Standing;
use crate::coordinator::CoordinatorError;
use crate::platform;

/// The most bytes of a refusal that are read.
const REFUSAL_LIMIT: usize = 64 * 1024;
const AGENT_NAME: &str = concat!("ollama-agent/", env!("CARGO_PKG_VERSION"));

/// Where tunnels lead, and how long it may take to open one.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) coordinator: BaseUrl,
    pub(super) dial: Dial,
    pub(super) connect: Duration,
    pub(super) answer: Duration,
}

/// Connects and asks the coordinator to use the connection as this agent's tunnel.
pub(super) async fn open(
    target: &Target,
    standing: &Standing,
) -> Result<Upgraded, CoordinatorError> {
    let dialled = target.dial.connect(&target.coordinator, target.connect);
    let dialled = dialled.await?;
    if let Err(error) = platform::keep_little_unsent(&dialled.stream) {
        tracing::debug!(%error, "The tunnel's socket is used as the system made it");
    }
    let asking = ask(dialled.stream, request(target, standing)?);
    let asked = tokio::time::timeout(target.answer, asking).await;
    asked.map_err(|_elapsed| HttpError::Timeout {
        stage: "answer",
        after: target.answer,
    })?
}

fn request(target: &Target, standing: &Standing) -> Result<Request<Empty<Bytes>>, HttpError> {
    let Target { coordinator, .. } = target;
    let Standing {
        agent_id,
        session,
        secret,
        ..
    } = standing;
    let path = format!(
        "{}/api/agents/{agent_id}/tunnel?session={session}",
        coordinator.prefix()
    );
    let host = format!("{}:{}", coordinator.host(), coordinator.port());
    let mut bearer = HeaderValue::try_from(format!("Bearer {}", secret.expose()))
        .map_err(|source| HttpError::Exchange(source.into()))?;
    bearer.set_sensitive(true);
    let headers: [(HeaderName, HeaderValue); 3] = [
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static(PROTOCOL)),
        (USER_AGENT, HeaderValue::from_static(AGENT_NAME)),
    ];
    let mut request = Request::get(path)
        .header(HOST, host)
        .header(AUTHORIZATION, bearer);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request
        .body(Empty::new())
        .map_err(|source| HttpError::Exchange(source.into()))
}

async fn ask(
    stream: TcpStream,
    request: Request<Empty<Bytes>>,
) -> Result<Upgraded, CoordinatorError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        if is_tunnel(&answer) {
            return Ok(hyper::upgrade::on(answer).await.map_err(broken)?);
        }
        Err(refusal(answer).await?)
    };
    let driver = async { Ok(connection.with_upgrades().await.map_err(broken)?) };
    let (upgraded, ()) = tokio::try_join!(answer, driver)?;
    Ok(upgraded)
}

fn is_tunnel(answer: &Response<Incoming>) -> bool {
    let protocol = answer.headers().get(UPGRADE).map(HeaderValue::as_bytes);
    answer.status() == StatusCode::SWITCHING_PROTOCOLS
        && protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case(PROTOCOL.as_bytes()))
}

async fn refusal(answer: Response<Incoming>) -> Result<CoordinatorError, HttpError> {
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, REFUSAL_LIMIT).collect().await;
    let body = body.map_err(HttpError::Exchange)?.to_bytes();
    Ok(CoordinatorError::from_answer(&HttpResponse {
        status: head.status,
        headers: head.headers,
        body,
    }))
}

fn broken(error: hyper::Error) -> HttpError {
    HttpError::Exchange(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                             upgrade: ollama-coordinator-tunnel\r\n\r\n";

    /// Asks a server that answers with these bytes and hangs up.
    fn ask_one_that_says(answer: &[u8]) -> Result<Upgraded, CoordinatorError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap())
                .await
                .unwrap();
            let (mut server, _) = listener.accept().await.unwrap();
            server.write_all(answer).await.unwrap();
            server.shutdown().await.unwrap();
            let request = Request::get("/")
                .header(UPGRADE, PROTOCOL)
                .header(CONNECTION, "upgrade");
            ask(stream, request.body(Empty::new()).unwrap()).await
        })
    }

    #[test]
    fn only_the_right_answer_opens_a_tunnel() {
        assert!(ask_one_that_says(SWITCHING.as_bytes()).is_ok());
        let other = SWITCHING.replace("ollama-coordinator-tunnel", "websocket");
        assert!(ask_one_that_says(other.as_bytes()).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_answer_makes_it_panic_and_none_but_the_right_one_opens_a_tunnel(
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
            start in prop::option::of(prop::collection::vec(any::<u8>(), 0..80)),
        ) {
            let answer = start.unwrap_or_else(|| {
                let mut answer = SWITCHING.as_bytes().to_vec();
                for (at, byte) in edits {
                    *at.get_mut(&mut answer) = byte;
                }
                answer.truncate(cut.index(answer.len()) + 1);
                answer
            });

            if ask_one_that_says(&answer).is_ok() {
                let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
                prop_assert!(text.starts_with("http/1.1 101"), "{text}");
                prop_assert!(text.contains("ollama-coordinator-tunnel\r"), "{text}");
            }
        }
    }
}
