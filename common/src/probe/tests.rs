//! Probes of scripted servers on real sockets.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;

use super::*;
use crate::base_url::BaseUrl;
use crate::http::HttpTimeouts;
use crate::protocol::runtime::Model;

const OLLAMA: &[(&str, u16, &str)] = &[
    ("/api/version", 200, r#"{"version":"0.12.6"}"#),
    (
        "/api/tags",
        200,
        r#"{"models":[{"name":"b:latest","size":9},{"name":"a:latest"}]}"#,
    ),
    (
        "/api/ps",
        200,
        r#"{"models":[{"name":"b:latest","size_vram":7}]}"#,
    ),
];

#[tokio::test]
async fn ollama_is_reported_with_its_models() {
    let mut server = Server::start(OLLAMA).await;

    let report = probe(&mut server.client).await.unwrap();

    assert_eq!(report.kind, RuntimeKind::Ollama);
    assert_eq!(report.status, RuntimeStatus::Running);
    assert_eq!(report.version.as_deref(), Some("0.12.6"));
    let names: Vec<_> = report.models.iter().map(|model| &model.name).collect();
    assert_eq!(names, ["a:latest", "b:latest"]);
    assert_eq!(report.loaded_models[0].size_vram, Some(7));
}

#[tokio::test]
async fn list_without_an_end_in_sight_is_refused() {
    let junk = format!("{{\"models\":[{}0]}}", "0,".repeat(ANSWER_LIMIT / 2));
    let mut server = Server::start(&[OLLAMA[0], ("/api/tags", 200, junk.leak())]).await;

    let error = probe(&mut server.client).await.unwrap_err();

    let is_too_large = matches!(
        error,
        ProbeError::NotAnswering(HttpError::TooLarge {
            limit: ANSWER_LIMIT
        })
    );
    assert!(is_too_large, "{error:?}");
}

#[tokio::test]
async fn verifying_takes_a_runtime_of_the_kind_and_no_coordinator() {
    let health = r#"{"status":"ok","service":"ollama-coordinator","instance_id":"x"}"#;
    let mut routes = OLLAMA.to_vec();
    let mut runtime = Server::start(&routes).await;
    routes.push(("/healthz", 200, health));
    let mut coordinator = Server::start(&routes).await;

    let (ollama, openai) = (RuntimeKind::Ollama, RuntimeKind::Openai);
    let right = verify(&mut runtime.client, ollama).await;
    let wrong = verify(&mut runtime.client, openai).await;
    let looped = verify(&mut coordinator.client, ollama).await;

    assert!(right.is_ok(), "{right:?}");
    assert!(
        matches!(wrong, Err(ProbeError::NotARuntime { .. })),
        "{wrong:?}"
    );
    assert!(matches!(looped, Err(ProbeError::Coordinator)), "{looped:?}");
}

#[tokio::test]
async fn coordinator_check_is_made_once_per_connection() {
    let mut server = Server::start(OLLAMA).await;

    probe(&mut server.client).await.unwrap();
    probe(&mut server.client).await.unwrap();
    server.client.disconnect();
    probe(&mut server.client).await.unwrap();

    let asked = server.asked.lock().clone();
    let checks = asked.iter().filter(|path| *path == "GET /healthz").count();
    assert_eq!(checks, 2, "{asked:?}");
    assert!(
        asked.iter().all(|line| line.starts_with("GET ")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn ollama_without_a_list_of_loaded_models_is_usable() {
    let mut server = Server::start(&OLLAMA[..2]).await;

    let report = probe(&mut server.client).await.unwrap();

    assert_eq!(report.models.len(), 2);
    assert!(report.loaded_models.is_empty());
}

#[tokio::test]
async fn llama_cpp_is_reported_with_its_slots() {
    let mut server = Server::start(&[
        (
            "/v1/models",
            200,
            r#"{"object":"list","data":[{"id":"tiny"}]}"#,
        ),
        (
            "/props",
            200,
            r#"{"total_slots":4,"build_info":"b6000-abc"}"#,
        ),
    ])
    .await;

    let report = probe(&mut server.client).await.unwrap();

    assert_eq!(report.kind, RuntimeKind::Openai);
    assert_eq!(report.models, [Model::named("tiny")]);
    assert_eq!(report.slots.map(NonZeroU32::get), Some(4));
    assert_eq!(report.version.as_deref(), Some("b6000-abc"));
}

#[tokio::test]
async fn server_with_only_the_openai_api_is_a_runtime() {
    let models = r#"{"data":[{"id":"tiny"}]}"#;
    let mut server = Server::start(&[("/v1/models", 200, models)]).await;

    let report = probe(&mut server.client).await.unwrap();

    assert_eq!(report.models, [Model::named("tiny")]);
    assert_eq!(report.slots, None);
}

#[tokio::test]
async fn coordinator_is_told_from_a_runtime() {
    let health = r#"{"status":"ok","service":"ollama-coordinator","instance_id":"x"}"#;
    let mut routes = OLLAMA.to_vec();
    routes.push(("/healthz", 200, health));
    let mut server = Server::start(&routes).await;

    for _ in 0..2 {
        let error = probe(&mut server.client).await.unwrap_err();
        assert!(matches!(error, ProbeError::Coordinator), "{error:?}");
    }
}

#[tokio::test]
async fn web_page_is_named_by_its_title() {
    let page = "<html><title>Campus\n login</title></html>";
    let mut server = Server::start(&[("/api/version", 200, page), ("/v1/models", 200, page)]).await;

    let error = probe(&mut server.client).await.unwrap_err();

    assert!(
        error.to_string().contains("(title \"Campus login\")"),
        "{error}"
    );
}

#[tokio::test]
async fn other_service_is_no_runtime() {
    let mut server = Server::start(&[("/api/version", 200, r#"{"hello":1}"#)]).await;

    let error = probe(&mut server.client).await.unwrap_err();

    assert!(matches!(error, ProbeError::NotARuntime { .. }), "{error:?}");
}

#[tokio::test]
async fn runtime_that_still_loads_its_model_is_said_to_refuse() {
    let mut server = Server::start(&[("/v1/models", 503, r#"{"error":{}}"#)]).await;

    let error = probe(&mut server.client).await.unwrap_err();

    assert_eq!(
        error.to_string(),
        "the runtime answers /v1/models with status 503 Service Unavailable"
    );
}

#[tokio::test]
async fn list_that_fails_is_not_an_empty_list() {
    let mut server = Server::start(&[OLLAMA[0], ("/api/tags", 500, "{}")]).await;

    let error = probe(&mut server.client).await.unwrap_err();

    assert!(
        matches!(
            error,
            ProbeError::Refused {
                path: "/api/tags",
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn nothing_listening_is_not_answering() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);

    let error = probe(&mut client(addr)).await.unwrap_err();

    assert!(matches!(error, ProbeError::NotAnswering(_)), "{error:?}");
}

struct Server {
    client: HttpClient,
    asked: Arc<Mutex<Vec<String>>>,
    tasks: crate::tasks::Tasks,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

impl Server {
    async fn start(routes: &[(&'static str, u16, &'static str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = client(listener.local_addr().unwrap());
        let routes = routes
            .iter()
            .map(|&(path, status, body)| (path, (status, body)));
        let routes: Arc<BTreeMap<_, _>> = Arc::new(routes.collect());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let tasks = crate::tasks::Tasks::default();
        let (token, log) = (tasks.token().clone(), Arc::clone(&asked));
        let accept = async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = service_fn(|request: Request<Incoming>| {
                    let line = format!("{} {}", request.method(), request.uri().path());
                    log.lock().push(line);
                    let answer = answer(&routes, request.uri().path());
                    async move { Ok::<_, Infallible>(answer) }
                });
                let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                drop(served.await);
            }
        };
        tasks.spawn("fake runtime", crate::tasks::OnExit::Log, async move {
            token.run_until_cancelled(accept).await.unwrap_or(());
            Ok::<_, Infallible>(())
        });
        Self {
            client,
            asked,
            tasks,
        }
    }
}

fn answer(
    routes: &BTreeMap<&'static str, (u16, &'static str)>,
    path: &str,
) -> Response<Full<Bytes>> {
    let (status, body) = routes
        .get(path)
        .copied()
        .unwrap_or((404, "404 page not found"));
    let content_type = match body.as_bytes().first() {
        Some(b'<') => "text/html; charset=utf-8",
        Some(b'{') => "application/json",
        Some(_) | None => "text/plain",
    };
    Response::builder()
        .status(status)
        .header("content-type", content_type)
        .body(Full::new(Bytes::from_static(body.as_bytes())))
        .unwrap()
}

fn client(addr: std::net::SocketAddr) -> HttpClient {
    let timeout = Duration::from_secs(5);
    HttpClient::new(
        BaseUrl::from_addr(addr),
        HttpTimeouts {
            connect: timeout,
            answer: timeout,
        },
    )
    .with_answer_limit(ANSWER_LIMIT)
}
