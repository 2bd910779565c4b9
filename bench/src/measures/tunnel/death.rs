//! How long an agent that is killed still counts as one that takes requests.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::way::Way;
use crate::client::{Connection, request};
use crate::machine::{Foreign, Halves};
use crate::peers::start_upstreams;
use crate::plan::show;
use crate::table::{Aim, millis, percentile};

const KILLS: usize = 20;
const LOOK_EVERY: Duration = Duration::from_millis(1);
const NOTICED_WITHIN: Duration = Duration::from_secs(30);

/// Kills one agent after the other and watches until the coordinator sends it nothing more.
pub(super) async fn measure(halves: &Halves) -> anyhow::Result<()> {
    let (_upstreams, addrs) = start_upstreams().await?;
    let runtimes: Vec<_> = addrs.into_iter().cycle().take(KILLS).collect();
    let mut way = Way::start(halves, &runtimes, &[]).await?;
    let foreign = Foreign::watch();
    let documents = way.documents().await?;
    let mut connection = Connection::open(way.addr()).await?;
    let mut times = Vec::new();
    for (name, agent) in way.take_agents() {
        let named =
            |agent: &&Value| agent.get("machine_name").and_then(Value::as_str) == Some(&name);
        let document = documents
            .iter()
            .find(named)
            .context("an agent is not listed")?;
        let id = document.get("id").and_then(Value::as_str);
        let path = format!("/api/agents/{}", id.context("an agent has no id")?);
        let look = request("GET", &path, None, "");
        let killed = Instant::now();
        agent.kill().await?;
        loop {
            let answer = connection.send(&look).await?;
            let document: Value = serde_json::from_slice(answer.body)?;
            if document.get("routable") == Some(&Value::Bool(false)) {
                break;
            }
            anyhow::ensure!(killed.elapsed() < NOTICED_WITHIN, "a death was not noticed");
            sleep(LOOK_EVERY).await;
        }
        times.push(killed.elapsed());
    }
    let [p50, p99] = [50, 99].map(|at| millis(percentile(&times, at)));
    show(
        &foreign,
        &format!("tunnel: a killed agent gets no further request, {KILLS} kills"),
        format!("p50 {p50:.1} / p99 {p99:.1} ms"),
        String::new(),
        Aim::AtMost {
            aim: 1_000.0,
            is: p99,
            unit: " ms",
        },
    );
    Ok(())
}
