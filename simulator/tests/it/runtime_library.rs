//! How a scripted runtime's models change: pull, push, create, copy, delete and uploads.

use std::num::NonZeroU32;
use std::time::Duration;

use http::{Method, StatusCode};
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::{FailureMode, RuntimeScript};
use ollama_simulator::wait::{PATIENCE, wait_for};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{get, post, send};

const MODEL: &str = "simulated-small:latest";
/// The digest of `hello`.
const HELLO: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

async fn runtime() -> ScriptedRuntime {
    ScriptedRuntime::start(RuntimeScript::default())
        .await
        .expect("a loopback port is free")
}

async fn names(runtime: &ScriptedRuntime) -> Vec<String> {
    let tags = get(runtime.addr(), "/api/tags").await.json().await;
    let models = tags["models"].as_array().expect("tags has models").iter();
    models
        .map(|model| model["name"].as_str().expect("a name is text").to_owned())
        .collect()
}

#[rstest]
#[case(json!({ "model": "other" }))]
#[case(json!({ "name": "other:latest", "insecure": false }))]
#[tokio::test]
async fn pulled_model_is_there_once_the_progress_has_ended(#[case] body: Value) {
    let runtime = runtime().await;

    let mut answer = post(runtime.addr(), "/api/pull", body).await;

    assert_eq!(answer.content_type(), "application/x-ndjson");
    let lines = answer.lines().await;
    assert_eq!(lines[0], json!({ "status": "pulling manifest" }));
    assert_eq!(lines.last().unwrap(), &json!({ "status": "success" }));
    let moved: Vec<_> = lines
        .iter()
        .filter_map(|line| line["completed"].as_u64())
        .collect();
    assert!(moved.len() > 5 && moved.is_sorted(), "{moved:?}");
    assert_eq!(moved.last(), lines[1]["total"].as_u64().as_ref());
    assert!(lines[1]["digest"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(names(&runtime).await, [MODEL, "other:latest"]);
}

#[tokio::test]
async fn pull_takes_its_time_and_is_not_done_when_the_client_leaves() {
    let script = RuntimeScript {
        transfer_time: Duration::from_hours(1),
        ..RuntimeScript::default()
    };
    let runtime = ScriptedRuntime::start(script).await.unwrap();
    let mut answer = post(runtime.addr(), "/api/pull", json!({ "model": "other" })).await;
    answer.next_frame().await.unwrap().unwrap();
    assert_eq!(runtime.in_flight(), 1);

    drop(answer);

    let seen = async || (runtime.cancelled(), runtime.in_flight());
    wait_for("the abort", PATIENCE, seen, |seen| *seen == (1, 0)).await;
    assert_eq!(names(&runtime).await, [MODEL]);
}

#[tokio::test]
async fn pull_in_one_piece_answers_with_the_last_message() {
    let script = RuntimeScript {
        transfer_time: Duration::from_millis(50),
        ..RuntimeScript::default()
    };
    let runtime = ScriptedRuntime::start(script).await.unwrap();
    let body = json!({ "model": "other", "stream": false });
    let began = Instant::now();

    let answer = post(runtime.addr(), "/api/pull", body).await.json().await;

    assert_eq!(answer, json!({ "status": "success" }));
    assert!(began.elapsed() >= Duration::from_millis(50));
}

#[rstest]
#[case("/api/pull", json!({}), 400, "invalid model name")]
#[case("/api/pull", json!({ "model": "no good" }), 400, "invalid model name")]
#[case("/api/pull", json!({ "model": "missing" }), 500, "pull model manifest: file does not exist")]
#[case("/api/push", json!({}), 400, "model is required")]
#[case("/api/push", json!({ "model": "nope" }), 404, "model 'nope:latest' not found")]
#[case("/api/create", json!({ "model": "new" }), 400, "neither 'from' or 'files' was specified")]
#[case("/api/create", json!({ "model": "new", "from": "nope" }), 404, "model 'nope' not found")]
#[case("/api/copy", json!({ "source": "nope", "destination": "new" }), 404, "model \"nope\" not found")]
#[case("/api/copy", json!({ "source": "nope" }), 400, "destination \"\" is invalid")]
#[tokio::test]
async fn change_that_cannot_be_made_is_refused_before_anything_is_sent(
    #[case] path: &str,
    #[case] body: Value,
    #[case] status: u16,
    #[case] error: &str,
) {
    let runtime = runtime().await;

    let mut answer = post(runtime.addr(), path, body).await;

    assert_eq!(answer.status.as_u16(), status);
    assert!(answer.content_type().starts_with("application/json"));
    assert_eq!(answer.json().await, json!({ "error": error }));
    assert_eq!(names(&runtime).await, [MODEL]);
}

#[tokio::test]
async fn pull_that_breaks_off_ends_with_an_error_line_and_no_model() {
    let runtime = runtime().await;

    let mut answer = post(runtime.addr(), "/api/pull", json!({ "model": "broken" })).await;

    assert_eq!(answer.status, StatusCode::OK);
    let lines = answer.lines().await;
    let error = json!({ "error": "simulated failure" });
    assert_eq!(lines.last().unwrap(), &error);
    assert!(lines.len() > 3, "{lines:?}");
    assert_eq!(names(&runtime).await, [MODEL]);
}

#[tokio::test]
async fn model_is_created_copied_pushed_and_deleted() {
    let runtime = runtime().await;
    let addr = runtime.addr();

    let create = json!({ "model": "mine", "from": "simulated-small", "system": "Be brief." });
    let lines = post(addr, "/api/create", create).await.lines().await;
    assert_eq!(lines.last().unwrap(), &json!({ "status": "success" }));
    let copy = json!({ "source": "mine", "destination": "me/yours:v1" });
    let mut copied = post(addr, "/api/copy", copy).await;
    assert_eq!(
        (copied.status, copied.text().await),
        (StatusCode::OK, String::new())
    );
    assert_eq!(names(&runtime).await, [MODEL, "mine:latest", "me/yours:v1"]);
    let show = post(addr, "/api/show", json!({ "model": "me/yours:v1" }))
        .await
        .json()
        .await;
    assert_eq!(show["details"]["parent_model"], MODEL);
    let push = json!({ "model": "me/yours:v1", "stream": false });
    let pushed = post(addr, "/api/push", push).await.json().await;
    assert_eq!(pushed, json!({ "status": "success" }));

    for name in [json!({ "model": "mine" }), json!({ "name": "me/yours:v1" })] {
        let mut deleted = send(addr, Method::DELETE, "/api/delete", &name.to_string())
            .await
            .unwrap();
        assert_eq!(
            (deleted.status, deleted.text().await),
            (StatusCode::OK, String::new())
        );
    }

    assert_eq!(names(&runtime).await, [MODEL]);
    let gone = json!({ "model": "mine" }).to_string();
    let mut gone = send(addr, Method::DELETE, "/api/delete", &gone)
        .await
        .unwrap();
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    assert_eq!(
        gone.json().await,
        json!({ "error": "model 'mine' not found" })
    );
}

#[tokio::test]
async fn upload_is_kept_when_its_digest_is_right() {
    let runtime = runtime().await;
    let addr = runtime.addr();
    let path = format!("/api/blobs/{HELLO}");
    let head = async || send(addr, Method::HEAD, &path, "").await.unwrap().status;
    assert_eq!(head().await, StatusCode::NOT_FOUND);

    let mut wrong = send(addr, Method::POST, &path, "hullo").await.unwrap();
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    let error = wrong.json().await["error"].to_string();
    assert!(error.contains("digest mismatch"), "{error}");
    assert_eq!(head().await, StatusCode::NOT_FOUND);

    let put = async || {
        send(addr, Method::POST, &path, "hello")
            .await
            .unwrap()
            .status
    };
    assert_eq!(put().await, StatusCode::CREATED);
    assert_eq!(put().await, StatusCode::OK);
    assert_eq!(head().await, StatusCode::OK);
}

#[rstest]
#[case(Method::HEAD)]
#[case(Method::POST)]
#[tokio::test]
async fn upload_with_an_unreadable_digest_is_refused(#[case] method: Method) {
    let runtime = runtime().await;

    let answer = send(runtime.addr(), method, "/api/blobs/sha256:abc", "x").await;

    assert_eq!(answer.unwrap().status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn model_is_made_of_uploaded_files_only() {
    let runtime = runtime().await;
    let create = || json!({ "model": "mine", "files": { "model.gguf": HELLO } });

    let lines = post(runtime.addr(), "/api/create", create())
        .await
        .lines()
        .await;
    let error = lines.last().unwrap()["error"].to_string();
    assert!(error.contains("not found"), "{error}");
    let path = format!("/api/blobs/{HELLO}");
    send(runtime.addr(), Method::POST, &path, "hello")
        .await
        .unwrap();

    let lines = post(runtime.addr(), "/api/create", create())
        .await
        .lines()
        .await;

    assert_eq!(lines.last().unwrap(), &json!({ "status": "success" }));
    assert_eq!(names(&runtime).await, [MODEL, "mine:latest"]);
}

#[tokio::test]
async fn slow_runtime_pulls_slowly_and_a_broken_one_not_at_all() {
    let script = RuntimeScript {
        transfer_time: Duration::from_millis(10),
        ..RuntimeScript::default()
    };
    let runtime = ScriptedRuntime::start(script).await.unwrap();
    let factor = NonZeroU32::new(8).unwrap();
    runtime
        .set_failure_everywhere(FailureMode::Slow { factor })
        .await;
    let began = Instant::now();
    let pull = || post(runtime.addr(), "/api/pull", json!({ "model": "other" }));

    pull().await.lines().await;

    assert!(began.elapsed() >= Duration::from_millis(80));
    runtime
        .set_failure_everywhere(FailureMode::Status(StatusCode::BAD_GATEWAY))
        .await;
    assert_eq!(pull().await.status, StatusCode::BAD_GATEWAY);
}
