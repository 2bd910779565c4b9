//! What passes through a tunnel, and how each request in it ends.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::routing::{get, post};
use h2::Reason;
use http::{HeaderMap, Method};
use http_body_util::BodyExt as _;
use ollama_coordinator_common::base_url::BaseUrl;
use rstest::rstest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{HeldRuntime, carry_to, held, serve};
use crate::support::server::Reserved;
use crate::support::tunnel::{body, in_time, next, reason, text};

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
    let mut unanswered = Box::pin(tunnel.send_request(held()));
    let mut held = tokio::select! {
        held = runtime.next() => held,
        _ = &mut unanswered => panic!("nobody has answered"),
    };
    drop(unanswered);
    in_time(held.answer.closed()).await;

    let (sender, answer) = carried.begin(&mut runtime).await;
    sender.send("begun").await.unwrap();
    let mut answer = answer.into_body();
    assert_eq!(next(&mut answer).await.unwrap().unwrap(), "begun");
    drop(answer);
    in_time(sender.closed()).await;
}

#[tokio::test]
async fn requests_that_run_are_counted_until_their_last_byte() {
    let mut runtime = HeldRuntime::start();
    let mut carried = carry_to(runtime.server.url()).await;
    let (sender, answer) = carried.begin(&mut runtime).await;
    carried.agent.wait_for(|status| status.running == 1).await;
    drop(sender);
    text(answer.into_body()).await;

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
