//! The tunnel: what passes through it, and how it comes back.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::routing::{any, get, post};
use h2::Reason;
use http::{HeaderMap, Method};
use http_body_util::BodyExt as _;
use ollama_agent::Config;
use ollama_agent::config::{Advertised, Link};
use ollama_agent::status::LinkStatus;
use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::protocol::tunnel::LinkKind;
use rstest::rstest;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::support::agent::{TestAgent, config};
use crate::support::coordinator::{Answer, FakeCoordinator};
use crate::support::server::{Reserved, Server};
use crate::support::tunnel::{TestTunnel, body, in_time, next, reason, text};
use crate::support::wait_for;

/// A coordinator, an agent and the tunnel between them.
struct Carried {
    coordinator: FakeCoordinator,
    agent: TestAgent,
    tunnel: TestTunnel,
    state_dir: TempDir,
}

async fn carry_to(runtime: BaseUrl) -> Carried {
    let mut coordinator = FakeCoordinator::start();
    let state_dir = tempfile::tempdir().unwrap();
    let agent = TestAgent::start_with(Config {
        runtime,
        ..config(coordinator.url(), state_dir.path())
    });
    let tunnel = coordinator.tunnel().await;
    Carried {
        coordinator,
        agent,
        tunnel,
        state_dir,
    }
}

fn serve(router: Router) -> Server {
    Reserved::new().serve(router)
}

/// A runtime that gives each request to the test, which answers it.
struct HeldRuntime {
    server: Server,
    requests: mpsc::UnboundedReceiver<Held>,
}

/// One request at the runtime; dropped without an answer, its connection is closed.
struct Held {
    _request: Request,
    answer: tokio::sync::oneshot::Sender<Body>,
}

impl HeldRuntime {
    fn start() -> Self {
        let (sender, requests) = mpsc::unbounded_channel();
        let hold = async |State(sender): State<mpsc::UnboundedSender<Held>>, request: Request| {
            let (answer, answered) = tokio::sync::oneshot::channel();
            drop(sender.send(Held {
                _request: request,
                answer,
            }));
            answered.await.unwrap_or_default()
        };
        let router = Router::new().route("/held", any(hold)).with_state(sender);
        Self {
            server: serve(router),
            requests,
        }
    }

    async fn next(&mut self) -> Held {
        in_time(self.requests.recv()).await.unwrap()
    }
}

#[tokio::test]
async fn bytes_pass_both_ways_as_they_come() {
    let runtime =
        serve(Router::new().route("/echo", post(async |request: Request| request.into_body())));
    let mut carried = carry_to(runtime.url()).await;
    let (sender, body) = body();

    let request = http::Request::post("http://any.example/echo")
        .body(body)
        .unwrap();
    sender.send("first").await.unwrap();
    let mut echo = carried.tunnel.send(request).await.unwrap().into_body();

    assert_eq!(next(&mut echo).await.unwrap().unwrap(), "first");
    sender.send("second").await.unwrap();
    assert_eq!(next(&mut echo).await.unwrap().unwrap(), "second");
    drop(sender);
    assert!(next(&mut echo).await.is_none());
}

#[tokio::test]
async fn runtime_is_asked_under_its_own_name_and_sees_the_rest_as_it_was_sent() {
    let tell = async |method: Method, uri: http::Uri, headers: HeaderMap, body: Bytes| {
        let answer = [
            ("x-answer", "kept"),
            ("connection", "x-hop"),
            ("x-hop", "gone"),
        ];
        (
            http::StatusCode::IM_A_TEAPOT,
            answer,
            format!("{method} {uri} {headers:?} {body:?}"),
        )
    };
    let runtime = serve(Router::new().fallback(tell));
    let mut carried = carry_to(runtime.url()).await;

    let request = http::Request::builder()
        .method("PROPFIND")
        .uri("http://elsewhere.example:9/any%20path?a=1&b")
        .header("x-kept", "yes")
        .header("te", "trailers")
        .header("authorization", "Bearer client's")
        .body(Body::from("hello"))
        .unwrap();
    let answer = carried.tunnel.send(request).await.unwrap();

    assert_eq!(answer.status(), http::StatusCode::IM_A_TEAPOT);
    assert_eq!(answer.headers()["x-answer"], "kept");
    assert!(!answer.headers().contains_key("x-hop"), "{answer:?}");
    let told = text(answer.into_body()).await;
    assert!(told.starts_with("PROPFIND /any%20path?a=1&b "), "{told}");
    let host = runtime.url().to_string().replace("http://", "");
    assert!(told.contains(&format!("\"host\": \"{host}\"")), "{told}");
    assert!(told.contains("\"x-kept\": \"yes\""), "{told}");
    assert!(told.contains("Bearer client's"), "{told}");
    assert!(
        !told.contains("trailers") && !told.contains("elsewhere"),
        "{told}"
    );
    assert!(told.ends_with("b\"hello\""), "{told}");
}

#[tokio::test]
async fn head_is_answered_with_the_length_and_no_body() {
    let runtime = serve(Router::new().route("/", get(async || "Ollama is running")));
    let mut carried = carry_to(runtime.url()).await;

    let request = http::Request::head("http://any.example/").body(Body::empty());
    let answer = carried.tunnel.send(request.unwrap()).await.unwrap();

    assert_eq!(answer.headers()["content-length"], "17");
    assert_eq!(text(answer.into_body()).await, "");
}

#[tokio::test]
async fn request_is_cancelled_at_the_runtime_before_and_while_it_answers() {
    let mut runtime = HeldRuntime::start();
    let mut carried = carry_to(runtime.server.url()).await;

    let mut tunnel = carried.tunnel.sender.clone();
    let request = || {
        http::Request::get("http://a/held")
            .body(Body::empty())
            .unwrap()
    };
    let mut unanswered = Box::pin(tunnel.send_request(request()));
    let mut held = tokio::select! {
        held = runtime.next() => held,
        _ = &mut unanswered => panic!("nobody has answered"),
    };
    drop(unanswered);
    in_time(held.answer.closed()).await;

    let (sender, body) = body();
    let (answer, held) = tokio::join!(carried.tunnel.send(request()), async {
        runtime.next().await.answer.send(body)
    });
    held.unwrap();
    sender.send("begun").await.unwrap();
    let mut answer = answer.unwrap().into_body();
    assert_eq!(next(&mut answer).await.unwrap().unwrap(), "begun");
    drop(answer);
    in_time(sender.closed()).await;
}

#[tokio::test]
async fn requests_that_run_are_counted_until_their_last_byte() {
    let mut runtime = HeldRuntime::start();
    let mut carried = carry_to(runtime.server.url()).await;
    let request = http::Request::get("http://a/held").body(Body::empty());
    let (sender, body) = body();

    let (answer, held) = tokio::join!(carried.tunnel.send(request.unwrap()), async {
        runtime.next().await.answer.send(body)
    });
    held.unwrap();
    carried.agent.wait_for(|status| status.running == 1).await;
    drop(sender);
    text(answer.unwrap().into_body()).await;

    carried.agent.wait_for(|status| status.running == 0).await;
}

#[tokio::test]
async fn stream_is_refused_while_the_runtime_is_down() {
    let nowhere = Reserved::new();
    let mut carried = carry_to(nowhere.url()).await;

    let request = || {
        http::Request::post("http://a/api/chat")
            .body(Body::from("{}"))
            .unwrap()
    };
    let error = carried.tunnel.send(request()).await.unwrap_err();

    assert_eq!(reason(&error), Some(Reason::REFUSED_STREAM), "{error:?}");
    let _runtime = nowhere.serve(Router::new().route("/api/chat", post(async || "back")));
    let answer = carried.tunnel.send(request()).await.unwrap();
    assert_eq!(text(answer.into_body()).await, "back");
}

/// A runtime that answers each connection with `answer` and hangs up.
fn breaking_runtime(listener: TcpListener, answer: &'static [u8]) -> tokio::task::JoinSet<()> {
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") && stream.read_buf(&mut asked).await.unwrap() > 0 {}
            // The agent may have closed it already.
            drop(stream.write_all(answer).await);
        }
    });
    serving
}

#[rstest]
#[case::before_it_answers(b"")]
#[case::with_nonsense(b"SSH-2.0-OpenSSH\r\n\r\n")]
#[case::by_becoming_something_else(
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
)]
#[tokio::test]
async fn stream_is_reset_when_the_runtime_breaks(#[case] answer: &'static [u8]) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = BaseUrl::from_addr(listener.local_addr().unwrap());
    let _runtime = breaking_runtime(listener, answer);
    let mut carried = carry_to(url).await;

    let request = http::Request::get("http://a/").body(Body::empty()).unwrap();
    let error = carried.tunnel.send(request).await.unwrap_err();

    assert_eq!(reason(&error), Some(Reason::INTERNAL_ERROR), "{error:?}");
}

#[tokio::test]
async fn answer_that_breaks_off_resets_its_stream() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = BaseUrl::from_addr(listener.local_addr().unwrap());
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n";
    let _runtime = breaking_runtime(listener, head);
    let mut carried = carry_to(url).await;

    let mut answer = carried.tunnel.get("/").await.into_body();

    assert_eq!(next(&mut answer).await.unwrap().unwrap(), "begun");
    let error = next(&mut answer).await.unwrap().unwrap_err();
    assert_eq!(reason(&error), Some(Reason::INTERNAL_ERROR), "{error:?}");
}

#[tokio::test]
async fn large_heads_pass_both_ways() {
    let many = async |headers: HeaderMap| {
        let length = headers["x-long"].len();
        let answer = (0..200).map(|number| (format!("x-{number}"), "x".to_owned()));
        let answer: Vec<(String, String)> = answer.collect();
        (axum::response::AppendHeaders(answer), length.to_string())
    };
    let runtime = serve(Router::new().route("/many", get(many)));
    let mut carried = carry_to(runtime.url()).await;

    let request = http::Request::get("http://a/many")
        .header("x-long", "x".repeat(300 * 1024))
        .body(Body::empty());
    let answer = carried.tunnel.send(request.unwrap()).await.unwrap();

    assert_eq!(answer.headers()["x-199"], "x");
    assert_eq!(text(answer.into_body()).await, (300 * 1024).to_string());
}

#[tokio::test]
async fn reader_that_takes_nothing_holds_up_nobody_else() {
    let endless = async || {
        let chunk = Bytes::from_static(&[b'x'; 16 * 1024]);
        let chunks = futures_util::stream::repeat_with(move || {
            Ok::<_, std::convert::Infallible>(chunk.clone())
        });
        Body::from_stream(chunks)
    };
    let taken = Arc::new(tokio::sync::Notify::new());
    let never_read = async |State(taken): State<Arc<tokio::sync::Notify>>, _request: Request| {
        taken.notify_one();
        std::future::pending::<&str>().await
    };
    let router = Router::new()
        .route("/endless", get(endless))
        .route("/never-read", post(never_read))
        .route("/short", get(async || "short"))
        .with_state(Arc::clone(&taken));
    let runtime = serve(router);
    let mut carried = carry_to(runtime.url()).await;

    let mut unread = Vec::new();
    for _ in 0..16 {
        unread.push(carried.tunnel.get("/endless").await);
    }
    let upload = Bytes::from(vec![b'x'; 4 * 1024 * 1024]);
    let upload = http::Request::post("http://a/never-read")
        .body(Body::from(upload))
        .unwrap();
    let mut tunnel = carried.tunnel.sender.clone();
    let mut uploading = Box::pin(tunnel.send_request(upload));
    tokio::select! {
        () = in_time(taken.notified()) => {}
        _ = &mut uploading => panic!("nobody has answered"),
    }

    for _ in 0..10 {
        let short = carried.tunnel.get("/short").await;
        assert_eq!(text(short.into_body()).await, "short");
    }
    let mut late = unread.remove(7).into_body();
    for _ in 0..100 {
        assert!(in_time(late.frame()).await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn cut_tunnel_is_opened_again_and_what_ran_in_it_is_cancelled() {
    let mut runtime = HeldRuntime::start();
    let mut carried = carry_to(runtime.server.url()).await;
    carried
        .coordinator
        .lease(Duration::from_hours(1), Duration::from_hours(2));
    let mut tunnel = carried.tunnel.sender.clone();
    let request = http::Request::get("http://a/held")
        .body(Body::empty())
        .unwrap();
    let mut running = Box::pin(tunnel.send_request(request));
    let mut held = tokio::select! {
        held = runtime.next() => held,
        _ = &mut running => panic!("nobody has answered"),
    };
    let status = carried
        .agent
        .wait_for(|status| status.link == LinkStatus::TunnelUp);
    assert_eq!(status.await.last_error, None);

    drop(carried.tunnel);

    in_time(held.answer.closed()).await;
    let mut another = carried.coordinator.tunnel().await;
    assert_eq!(another.get("/absent").await.status(), 404);
}

#[tokio::test]
async fn tunnel_that_is_up_again_has_the_lease_renewed_at_once() {
    let mut coordinator = FakeCoordinator::start();
    coordinator.lease(Duration::from_mins(5), Duration::from_mins(15));
    let _agent = TestAgent::start(coordinator.url());

    drop(coordinator.tunnel().await);

    let _another = coordinator.tunnel().await;
    coordinator
        .wait_for(|log| !log.heartbeats().is_empty())
        .await;
}

#[tokio::test]
async fn refused_tunnel_has_the_session_find_out_and_waits_for_it() {
    let mut coordinator = FakeCoordinator::start();
    coordinator.lease(Duration::from_mins(5), Duration::from_mins(15));
    coordinator.answer_tunnels([Answer::Problem(404, "unknown_agent")]);
    coordinator.answer_heartbeats([Answer::Problem(409, "duplicate_identity")]);
    let _agent = TestAgent::start(coordinator.url());

    let mut tunnel = coordinator.tunnel().await;

    assert_eq!(
        reason(&tunnel_error(&mut tunnel).await),
        Some(Reason::REFUSED_STREAM)
    );
    let log = coordinator.wait_for(|log| log.tunnels().len() == 2).await;
    let registered: Vec<_> = log
        .registrations()
        .iter()
        .map(|r| (r.agent_id, r.session))
        .collect();
    let tunnels: Vec<_> = log
        .tunnels()
        .into_iter()
        .map(|(id, s)| (Some(id), Some(s)))
        .collect();
    assert_eq!(registered, tunnels, "{log:?}");
    assert_ne!(tunnels[0], tunnels[1]);
}

/// Sends a request to an agent whose runtime is missing.
async fn tunnel_error(tunnel: &mut TestTunnel) -> hyper::Error {
    let request = http::Request::get("http://a/").body(Body::empty()).unwrap();
    tunnel.send(request).await.unwrap_err()
}

#[rstest]
#[case::unknown(Answer::Problem(404, "unknown_agent"))]
#[case::not_now(Answer::Problem(503, "unavailable"))]
#[case::proxy_without_upgrades(Answer::Problem(426, "upgrade_required"))]
#[case::web_page(Answer::Text(200, "text/html", "<title>Campus login</title>"))]
#[tokio::test]
async fn refused_tunnel_is_tried_again_with_the_next_renewal(#[case] answer: Answer) {
    let mut coordinator = FakeCoordinator::start();
    coordinator.answer_tunnels([answer.clone(), answer]);
    let mut agent = TestAgent::start(coordinator.url());

    let _tunnel = coordinator.tunnel().await;

    agent
        .wait_for(|status| status.link == LinkStatus::TunnelUp)
        .await;
    let log = coordinator.wait_for(|log| log.tunnels().len() == 3).await;
    assert_eq!(log.registrations().len(), 1);
}

#[tokio::test]
async fn new_registration_brings_a_new_tunnel_and_what_runs_in_the_old_one_goes_on() {
    let mut runtime = HeldRuntime::start();
    let mut carried = carry_to(runtime.server.url()).await;
    let request = http::Request::get("http://a/held")
        .body(Body::empty())
        .unwrap();
    let (sender, body) = body();
    let (answer, held) = tokio::join!(carried.tunnel.send(request), async {
        runtime.next().await.answer.send(body)
    });
    held.unwrap();

    carried
        .coordinator
        .answer_heartbeats([Answer::Problem(404, "unknown_agent")]);

    let mut another = carried.coordinator.tunnel().await;
    assert_eq!(another.get("/absent").await.status(), 404);
    sender.send("still here").await.unwrap();
    drop(sender);
    assert_eq!(text(answer.unwrap().into_body()).await, "still here");
    carried.tunnel.closed().await;
}

#[tokio::test]
async fn end_lets_a_running_request_finish_and_takes_no_further_ones() {
    let mut runtime = HeldRuntime::start();
    let mut carried = carry_to(runtime.server.url()).await;
    let request = || {
        http::Request::get("http://a/held")
            .body(Body::empty())
            .unwrap()
    };
    let (sender, body) = body();
    let (answer, held) = tokio::join!(carried.tunnel.send(request()), async {
        runtime.next().await.answer.send(body)
    });
    held.unwrap();

    carried.agent.ask_to_stop();
    carried
        .coordinator
        .wait_for(|log| log.goodbyes().len() == 1)
        .await;
    let mut status = carried.agent;
    status
        .wait_for(|status| status.link == LinkStatus::TunnelDown)
        .await;
    sender.send("the rest").await.unwrap();
    drop(sender);

    assert_eq!(text(answer.unwrap().into_body()).await, "the rest");
    status.ended().await.unwrap();
    assert!(carried.tunnel.send(request()).await.is_err());
}

#[tokio::test]
async fn other_settings_let_a_running_request_finish_before_they_count() {
    let mut runtime = HeldRuntime::start();
    let mut carried = carry_to(runtime.server.url()).await;
    let request = http::Request::get("http://a/held")
        .body(Body::empty())
        .unwrap();
    let (sender, body) = body();
    let (answer, held) = tokio::join!(carried.tunnel.send(request), async {
        runtime.next().await.answer.send(body)
    });
    held.unwrap();
    let mut settings = config(carried.coordinator.url(), carried.state_dir.path());
    settings.machine_name = "renamed".to_owned();

    carried.agent.control().apply(settings);
    carried
        .coordinator
        .wait_for(|log| log.goodbyes().len() == 1)
        .await;
    sender.send("the rest").await.unwrap();
    drop(sender);

    assert_eq!(text(answer.unwrap().into_body()).await, "the rest");
    let log = carried
        .coordinator
        .wait_for(|log| log.registrations().len() == 2)
        .await;
    let [first, second] = log.registrations()[..] else {
        panic!("there are two: {log:?}");
    };
    assert_eq!(first.agent_id, second.agent_id);
    assert_eq!(second.machine_name, "renamed");
}

#[tokio::test]
async fn second_request_to_stop_cuts_what_runs() {
    let mut runtime = HeldRuntime::start();
    let mut carried = carry_to(runtime.server.url()).await;
    let request = http::Request::get("http://a/held")
        .body(Body::empty())
        .unwrap();
    let (sender, body) = body();
    let (answer, held) = tokio::join!(carried.tunnel.send(request), async {
        runtime.next().await.answer.send(body)
    });
    held.unwrap();
    sender.send("begun").await.unwrap();
    let mut answer = answer.unwrap().into_body();
    assert_eq!(next(&mut answer).await.unwrap().unwrap(), "begun");

    carried.agent.ask_to_stop();
    carried
        .coordinator
        .wait_for(|log| log.goodbyes().len() == 1)
        .await;
    carried.agent.stop().await.unwrap();

    assert!(next(&mut answer).await.unwrap().is_err());
    in_time(sender.closed()).await;
}

#[tokio::test]
async fn advertised_address_is_registered_and_no_tunnel_is_opened() {
    let mut coordinator = FakeCoordinator::start();
    let state_dir = tempfile::tempdir().unwrap();
    let advertised = Advertised {
        ip: [192, 168, 1, 21].into(),
        port: Some(8080),
    };
    let mut agent = TestAgent::start_with(Config {
        link: Link::Direct {
            advertised: Some(advertised),
        },
        ..config(coordinator.url(), state_dir.path())
    });

    let log = coordinator
        .wait_for(|log| log.heartbeats().len() >= 3)
        .await;

    let registration = log.registrations()[0];
    assert_eq!(registration.link, LinkKind::Direct);
    assert_eq!(registration.ip_address, Some(advertised.ip));
    assert_eq!(registration.port, 8080);
    assert!(log.tunnels().is_empty(), "{log:?}");
    agent
        .wait_for(|status| status.link == LinkStatus::Direct)
        .await;
}

#[tokio::test]
async fn tunnel_is_what_an_agent_registers_unless_told_otherwise() {
    let mut coordinator = FakeCoordinator::start();
    let _agent = TestAgent::start(coordinator.url());

    let log = coordinator
        .wait_for(|log| !log.registrations().is_empty())
        .await;

    assert_eq!(log.registrations()[0].link, LinkKind::Tunnel);
}

/// A proxy that connects whoever asks to one address, and counts.
async fn connect_proxy(to: BaseUrl, listener: TcpListener, count: watch::Sender<Vec<String>>) {
    let mut tunnels = tokio::task::JoinSet::new();
    let to = format!("{}:{}", to.host(), to.port());
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") && near.read_buf(&mut asked).await.unwrap() > 0 {}
        let line = String::from_utf8_lossy(&asked)
            .lines()
            .next()
            .map(str::to_owned);
        count.send_modify(|lines| lines.extend(line));
        near.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")
            .await
            .unwrap();
        let mut far = tokio::net::TcpStream::connect(&to).await.unwrap();
        tunnels.spawn(async move {
            // It ends when either side hangs up.
            drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
        });
    }
}

#[tokio::test]
async fn coordinator_is_reached_through_the_proxy_of_the_environment() {
    let mut coordinator = FakeCoordinator::start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let (sender, mut asked) = watch::channel(Vec::new());
    let mut proxying = tokio::task::JoinSet::new();
    proxying.spawn(connect_proxy(coordinator.url(), listener, sender));
    let runtime = serve(Router::new().route("/", get(async || "Ollama is running")));
    let state_dir = tempfile::tempdir().unwrap();

    let _agent = crate::support::process::command(state_dir.path())
        .args(["--coordinator", "hub.example.org"])
        .args(["--runtime", &runtime.url().to_string()])
        .env("HTTPS_PROXY", proxy)
        .spawn()
        .unwrap();

    let mut tunnel = coordinator.tunnel().await;
    let answer = tunnel.get("/").await;
    assert_eq!(text(answer.into_body()).await, "Ollama is running");
    let asked = wait_for(&mut asked, |lines| lines.len() >= 2).await;
    let connect = "CONNECT hub.example.org:11400 HTTP/1.1";
    assert!(asked.iter().all(|line| line == connect), "{asked:?}");
    let log = coordinator
        .wait_for(|log| !log.heartbeats().is_empty())
        .await;
    assert_eq!(log.registrations()[0].ip_address, None);
}

#[tokio::test]
async fn coordinator_on_this_machine_is_reached_without_a_proxy() {
    let mut coordinator = FakeCoordinator::start();
    let nowhere = Reserved::new();
    let state_dir = tempfile::tempdir().unwrap();

    let _agent = crate::support::process::command(state_dir.path())
        .args(["--coordinator", &coordinator.url().to_string()])
        .env("HTTPS_PROXY", nowhere.url().to_string())
        .env("ALL_PROXY", nowhere.url().to_string())
        .spawn()
        .unwrap();

    coordinator.tunnel().await;
}
