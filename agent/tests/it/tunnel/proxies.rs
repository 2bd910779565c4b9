//! Tunnels through the proxies that the environment names.

use axum::Router;
use axum::routing::get;
use ollama_coordinator_common::base_url::BaseUrl;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::serve;
use crate::support::coordinator::FakeCoordinator;
use crate::support::server::Reserved;
use crate::support::tunnel::text;
use crate::support::wait_for;

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
