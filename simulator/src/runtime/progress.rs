//! Work that tells how far it is: one line for each step at the pace of the script, or the last line.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::unfold;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::engine::{Engine, slowed};
use super::reply::{ApiError, NDJSON, Reply, json_line};
use super::routes::Call;

/// In how many pieces a model is transferred.
pub(super) const PIECES: u64 = 10;

/// Steps that are told, and what is done before the last of them: success.
pub(super) struct Progress {
    pub(super) steps: Vec<Value>,
    pub(super) finish: Box<dyn FnOnce(&Engine) + Send>,
}

/// How a transfer of `size` bytes goes on.
pub(super) fn transfer(verb: &str, digest: &str, size: u64) -> impl Iterator<Item = Value> {
    let short: String = digest.chars().take(12).collect();
    let status = format!("{verb} {short}");
    let digest = format!("sha256:{digest}");
    (0..=PIECES).map(move |piece| {
        json!({
            "status": status, "digest": digest, "total": size, "completed": size * piece / PIECES,
        })
    })
}

impl Call {
    /// Answers with the progress, or with its end when the client wants one answer.
    pub(super) async fn tell(
        &self,
        stream: Option<bool>,
        work: Progress,
    ) -> Result<Reply, ApiError> {
        let pause = slowed(self.script.transfer_time, &self.script);
        let pause = pause / u32::try_from(PIECES).unwrap_or(1);
        let engine = Arc::clone(&self.engine);
        if stream == Some(false) {
            return told_at_the_end(engine, work, pause).await;
        }
        let state = (work.steps.into_iter(), Some(work.finish), engine);
        let lines = unfold(state, move |(mut steps, mut finish, engine)| async move {
            if let Some(step) = steps.next() {
                pace(&step, pause).await;
                if step.get("error").is_some() {
                    (steps, finish) = (Vec::new().into_iter(), None);
                }
                return Some((json_line(&step), (steps, finish, engine)));
            }
            finish.take()?(&engine);
            let success = json_line(&json!({ "status": "success" }));
            Some((success, (steps, None, engine)))
        });
        Ok(Reply::streamed(NDJSON, lines))
    }
}

async fn told_at_the_end(
    engine: Arc<Engine>,
    work: Progress,
    pause: Duration,
) -> Result<Reply, ApiError> {
    for step in &work.steps {
        pace(step, pause).await;
        if let Some(error) = step.get("error").and_then(Value::as_str) {
            return Err(ApiError::failed(error));
        }
    }
    (work.finish)(&engine);
    Ok(Reply::json(&json!({ "status": "success" })))
}

/// Takes the time for the bytes that a step tells of.
async fn pace(step: &Value, pause: Duration) {
    let is_moving = step["completed"].as_u64().is_some_and(|bytes| bytes > 0);
    if is_moving && !pause.is_zero() {
        sleep(pause).await;
    }
}
