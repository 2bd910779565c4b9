//! The far end of a tunnel, which does what a test says.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ollama_coordinator_common::protocol::tunnel::{LinkKind, PROTOCOL};
use ollama_simulator::runtime::ScriptedRuntime;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::agent::FakeAgent;
use super::api::{Api, BoxError};

/// A tunnel; dropping it cuts it.
#[derive(Debug)]
pub(crate) struct FakeTunnel {
    task: JoinSet<()>,
}

/// What becomes of requests that arrive.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bearer {
    /// They go to a runtime.
    Runtime(SocketAddr),
    /// They are refused, as when no runtime can be connected to.
    Refuses,
    /// Nothing.
    Silent,
}

impl FakeTunnel {
    /// Asks for a tunnel, and gets it or the status of the refusal.
    pub(crate) async fn open(
        api: Api,
        agent: &FakeAgent,
        bearer: Bearer,
    ) -> Result<Self, StatusCode> {
        let path = agent.path(&format!("/tunnel?session={}", agent.session));
        let mut ask = Request::new(Empty::<Bytes>::new());
        *ask.method_mut() = Method::GET;
        *ask.uri_mut() = path.parse().expect("a path is a URI");
        let secret = format!("Bearer {}", agent.secret.expose());
        let secret = HeaderValue::from_str(&secret).expect("a secret is ASCII");
        let headers = ask.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_static("coordinator"));
        headers.insert(header::AUTHORIZATION, secret);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));

        let stream = TcpStream::connect(api.addr()).await;
        let stream = stream.expect("the coordinator listens");
        let mut task = JoinSet::new();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .expect("HTTP/1 begins");
        task.spawn(async move { drop(connection.with_upgrades().await) });
        let answer = sender.send_request(ask).await.expect("it is answered");
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(answer.status());
        }
        let upgraded = hyper::upgrade::on(answer).await.expect("it is upgraded");
        task.spawn(async move {
            let service = service_fn(move |request| pass_on(request, bearer));
            let served = http2::Builder::new(TokioExecutor::new())
                .serve_connection(upgraded, service)
                .await;
            drop(served);
        });
        Ok(Self { task })
    }

    /// Resolves when the coordinator has ended the tunnel.
    pub(crate) async fn ended(mut self) {
        while self.task.join_next().await.is_some() {}
    }
}

/// Registers an agent that carries its traffic itself, and waits until requests come.
pub(crate) async fn joined_by_tunnel(
    api: Api,
    runtime: &ScriptedRuntime,
) -> (FakeAgent, FakeTunnel) {
    let mut agent = FakeAgent::in_front_of(runtime, "behind-nat");
    agent.link = LinkKind::Tunnel;
    agent.register(api).await;
    let tunnel = FakeTunnel::open(api, &agent, Bearer::Runtime(runtime.addr())).await;
    api.wait_until_routable(agent.id).await;
    (agent, tunnel.expect("the tunnel opens"))
}

async fn pass_on(
    request: Request<Incoming>,
    bearer: Bearer,
) -> Result<Response<Incoming>, BoxError> {
    let runtime = match bearer {
        Bearer::Runtime(runtime) => runtime,
        Bearer::Refuses => return Err(h2::Error::from(h2::Reason::REFUSED_STREAM).into()),
        Bearer::Silent => std::future::pending().await,
    };
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = path.parse()?;
    head.version = http::Version::HTTP_11;
    let host = HeaderValue::from_str(&runtime.to_string())?;
    head.headers.insert(header::HOST, host);
    let stream = TcpStream::connect(runtime).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    #[expect(clippy::disallowed_methods, reason = "ends with its connection")]
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender
        .send_request(Request::from_parts(head, body.boxed()))
        .await?)
}
