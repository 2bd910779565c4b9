//! What the log says when something goes wrong for the first time: what it is, and what to do.

use std::path::Path;

use axum::Router;
use axum::response::Html;
use chrono::{TimeDelta, Utc};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinSet;

use crate::support::DEADLINE;
use crate::support::coordinator::{Answer, FakeCoordinator};
use crate::support::process::command;
use crate::support::runtime::FakeRuntime;
use crate::support::server::Reserved;

#[tokio::test]
async fn url_of_ollama_is_named_as_such() {
    let runtime = FakeRuntime::start(&[]);

    let line = first_line_with("Not connected", &runtime.url().to_string()).await;

    assert_has(
        &line,
        &[
            "answers, but it is Ollama, not an Ollama Coordinator",
            "a coordinator is usually on port 11400",
        ],
    );
}

#[tokio::test]
async fn localhost_where_no_coordinator_runs_is_explained() {
    let nowhere = Reserved::new();
    let url = format!("http://localhost:{}", nowhere.url().port());

    let line = first_line_with("Not connected", &url).await;

    assert_has(
        &line,
        &[
            "localhost means this machine, and no coordinator runs here",
            "use the address of the coordinator's machine, such as http://192.168.1.10:11400",
        ],
    );
}

#[tokio::test]
async fn proxy_that_interferes_is_named_with_its_variable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let mut proxying = JoinSet::new();
    proxying.spawn(refuse_everything(listener));
    let state_dir = tempfile::tempdir().unwrap();
    let mut command = agent(state_dir.path(), "http://hub.invalid:11400");
    command.env("HTTP_PROXY", &proxy);

    let line = Log::of(&mut command).line_with("Not connected").await;

    assert_has(
        &line,
        &[
            &format!("HTTP_PROXY={proxy} is set, so hub.invalid is asked through it"),
            "502 Bad Gateway",
            "add hub.invalid to NO_PROXY",
        ],
    );
}

#[tokio::test]
async fn login_page_of_a_network_is_named_by_its_title() {
    let page = async || Html("<html><head><title>Campus login</title></head></html>");
    let portal = Reserved::new().serve(Router::new().fallback(page));

    let line = first_line_with("Not connected", &portal.url().to_string()).await;

    assert_has(
        &line,
        &[
            r#"it is a web page (title \"Campus login\"), not an Ollama Coordinator"#,
            "if this network wants a login, do that in a browser",
        ],
    );
}

#[tokio::test]
async fn agent_that_is_too_old_is_told_to_update() {
    let coordinator = FakeCoordinator::start();
    coordinator.answer_registrations([Answer::Problem(400, "agent_too_old")]);

    let line = first_line_with("Not connected", &coordinator.url().to_string()).await;

    assert_has(&line, &["as scripted; update ollama-agent on this machine"]);
}

#[tokio::test]
async fn clock_that_is_behind_is_a_warning() {
    let coordinator = FakeCoordinator::start();
    let theirs = Utc::now() + TimeDelta::minutes(6);
    coordinator.set_date(theirs.format("%a, %d %b %Y %H:%M:%S GMT").to_string());

    let line = first_line_with("Clocks differ", &coordinator.url().to_string()).await;

    assert_has(
        &line,
        &["WARN", "behind the coordinator's; charts may look shifted"],
    );
}

#[tokio::test]
async fn copy_of_an_identity_says_who_has_the_original() {
    let coordinator = FakeCoordinator::start();
    coordinator.answer_heartbeats([Answer::Problem(409, "duplicate_identity")]);

    let line = first_line_with("uses this identity", &coordinator.url().to_string()).await;

    assert_has(
        &line,
        &[
            "the-original at 192.168.1.5, seen",
            "a copied disk or state directory?",
            "made a new one",
        ],
    );
}

#[tokio::test]
async fn missing_ollama_is_joined_without_and_where_to_get_it_is_told() {
    let coordinator = FakeCoordinator::start();
    let nowhere = Reserved::new();
    let state_dir = tempfile::tempdir().unwrap();
    let mut command = agent(state_dir.path(), &coordinator.url().to_string());
    command.env("OLLAMA_HOST", nowhere.url().to_string());

    let line = Log::of(&mut command)
        .line_with("Runtime did not answer")
        .await;

    assert_has(
        &line,
        &[
            &nowhere.url().to_string(),
            "Connection refused",
            "joining anyway, serving starts when it appears",
            "https://ollama.com/download",
        ],
    );
}

#[tokio::test]
async fn runtime_that_ollamas_own_variable_names_is_told() {
    let coordinator = FakeCoordinator::start();
    let runtime = FakeRuntime::start(&[]);
    let state_dir = tempfile::tempdir().unwrap();
    let mut command = agent(state_dir.path(), &coordinator.url().to_string());
    let said = format!("0.0.0.0:{}", runtime.url().port());
    command.env("OLLAMA_HOST", &said);

    let line = Log::of(&mut command).line_with("OLLAMA_HOST").await;

    assert_has(
        &line,
        &[
            "OLLAMA_HOST names the runtime",
            &said,
            &runtime.url().to_string(),
        ],
    );
}

#[tokio::test]
async fn end_of_an_outage_says_how_long_it_took() {
    let nowhere = Reserved::new();
    let state_dir = tempfile::tempdir().unwrap();
    let mut log = Log::of(&mut agent(state_dir.path(), &nowhere.url().to_string()));
    let first = log.line_with("Not connected").await;

    let _coordinator = FakeCoordinator::start_at(nowhere);

    let joined = log.line_with("Joined the coordinator").await;
    assert_has(&first, &["tries=1", "next_try_in="]);
    assert_has(&joined, &["after="]);
}

fn assert_has(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{part}\nis not in\n{line}");
    }
}

fn agent(state_dir: &Path, coordinator: &str) -> Command {
    let mut command = command(state_dir);
    command.args(["--coordinator", coordinator]);
    command
}

async fn first_line_with(text: &str, coordinator: &str) -> String {
    let state_dir = tempfile::tempdir().unwrap();
    Log::of(&mut agent(state_dir.path(), coordinator))
        .line_with(text)
        .await
}

/// What a process writes; it ends with this.
struct Log {
    lines: Lines<BufReader<ChildStderr>>,
    _process: Child,
}

impl Log {
    fn of(command: &mut Command) -> Self {
        let mut process = command.spawn().unwrap();
        let stderr = process.stderr.take().unwrap();
        Self {
            lines: BufReader::new(stderr).lines(),
            _process: process,
        }
    }

    /// Returns the next line that has a text.
    async fn line_with(&mut self, text: &str) -> String {
        let mut wrote = String::new();
        let reading = async {
            loop {
                match self.lines.next_line().await.unwrap() {
                    Some(line) if line.contains(text) => return line,
                    Some(line) => wrote.extend([line.as_str(), "\n"]),
                    None => panic!("it ended without a line with {text:?}:\n{wrote}"),
                }
            }
        };
        let read = tokio::time::timeout(DEADLINE, reading).await;
        read.expect("the line is written in time")
    }
}

/// A proxy that lets nobody through.
async fn refuse_everything(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 1024];
        if stream.read(&mut asked).await.is_ok_and(|read| read > 0) {
            let refusal = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n";
            drop(stream.write_all(refusal).await);
        }
    }
}
