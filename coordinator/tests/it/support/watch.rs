//! Who watches a run under faults: lists and asks again and again, and writes down what came.

use std::time::Duration;

use http::Method;
use ollama_coordinator_common::protocol::view::AgentView;
use ollama_simulator::history::{Bounds, End, Fact, Recorder, Shown, violations};
use ollama_simulator::wait::{PATIENCE, wait_for};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::api::{Api, request};
use super::seen::{Seen, ask};

/// How long a list may take before it counts as not given.
const LIST_WITHIN: Duration = Duration::from_secs(5);
/// After this time a request that has not ended hangs.
const HANGS_AFTER: Duration = Duration::from_mins(1);
/// The longest time for which a client who leaves is there.
const LONGEST_STAY: Duration = Duration::from_millis(150);
/// Whoever failed does not ask again at once.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);

/// What a client does again and again.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Habit {
    /// Reads an answer piece by piece.
    Stream,
    /// Wants an answer in one piece.
    Small,
    /// Leaves at a random moment.
    Leave,
}

/// Everybody who watches a coordinator.
pub(crate) struct Watch {
    pub(crate) recorder: Recorder,
    api: Api,
    stop: CancellationToken,
    lister: JoinSet<()>,
    clients: JoinSet<()>,
}

impl Watch {
    /// Lists the agents of a coordinator every `period` from now on.
    pub(crate) fn new(api: Api, period: Duration) -> Self {
        let (recorder, stop) = (Recorder::default(), CancellationToken::new());
        let mut lister = JoinSet::new();
        lister.spawn(list_until(api, period, recorder.clone(), stop.clone()));
        Self {
            recorder,
            api,
            stop,
            lister,
            clients: JoinSet::new(),
        }
    }

    /// Has so many clients ask from now on, with `pause` between two requests of one.
    pub(crate) fn ask(&mut self, clients: u64, habit: Habit, pause: Duration) {
        for client in 0..clients {
            let client = Client {
                api: self.api,
                habit,
                pause,
                recorder: self.recorder.clone(),
                rng: SmallRng::seed_from_u64(client),
            };
            self.clients.spawn(client.ask_until(self.stop.clone()));
        }
    }

    /// Has the clients end what they have begun, waits until nothing is counted any more, and
    /// returns what was violated.
    pub(crate) async fn end(mut self, bounds: &Bounds) -> Verdict {
        self.stop.cancel();
        while let Some(client) = self.clients.join_next().await {
            client.expect("it does not panic");
        }
        while let Some(lister) = self.lister.join_next().await {
            lister.expect("it does not panic");
        }
        let api = self.api;
        let counted = async || counted(api).await;
        let is_idle = |counted: &(u64, u64)| *counted == (0, 0);
        let (in_flight, queued) = wait_for("nothing counted", PATIENCE, counted, is_idle).await;
        self.recorder.record(Fact::Counted { in_flight, queued });
        let history = self.recorder.history();
        let lists = |fact: &&Fact| matches!(fact, Fact::Listed { .. });
        let lists = history.iter().filter(lists).count();
        let ends = [End::Whole, End::Told, End::Left, End::Failed, End::Broken];
        let [whole, told, left, failed, broken] = self.recorder.ends(ends);
        Verdict {
            violations: violations(&history, bounds)
                .iter()
                .map(ToString::to_string)
                .collect(),
            said: format!(
                "{lists} lists; requests: {whole} whole, {told} told, {left} left; while the \
                 coordinator was away {failed} failed, {broken} broken"
            ),
            whole,
        }
    }
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Verdict {
    violations: Vec<String>,
    /// What was watched.
    pub(crate) said: String,
    whole: usize,
}

impl Verdict {
    /// Checks that something was answered and nothing violated.
    pub(crate) fn assert_clean(&self, run: &str) {
        let first: Vec<_> = self.violations.iter().take(10).collect();
        let count = self.violations.len();
        assert!(
            count == 0,
            "{run}: {count} violations, such as {first:#?}\n{}",
            self.said
        );
        assert!(self.whole > 0, "{run}: nothing was answered: {}", self.said);
    }
}

async fn list_until(api: Api, period: Duration, recorder: Recorder, stop: CancellationToken) {
    while stop.run_until_cancelled(sleep(period)).await.is_some() {
        let asked = recorder.now();
        let listed = timeout(LIST_WITHIN, list(api)).await;
        if let Ok(Some(agents)) = listed {
            let (agents, at) = (agents.iter().map(Shown::from).collect(), recorder.now());
            recorder.record(Fact::Listed { asked, at, agents });
        }
    }
}

/// Lists the agents of a coordinator that may not be there.
async fn list(api: Api) -> Option<Vec<AgentView>> {
    let asked = api.try_send(request(Method::GET, "/api/agents", ""));
    let (text, error) = asked.await.ok()?.read_all().await;
    error
        .is_none()
        .then(|| serde_json::from_str(&text).expect("it is a list"))
}

struct Client {
    api: Api,
    habit: Habit,
    pause: Duration,
    recorder: Recorder,
    rng: SmallRng,
}

impl Client {
    async fn ask_until(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let began = self.recorder.now();
            let end = self.ask().await;
            let ended = self.recorder.now();
            self.recorder.record(Fact::Asked { began, ended, end });
            if end == End::Failed {
                sleep(PAUSE_AFTER_FAILURE).await;
            }
            sleep(self.pause).await;
        }
    }

    async fn ask(&mut self) -> End {
        let (streams, stays) = match self.habit {
            Habit::Stream => (true, HANGS_AFTER),
            Habit::Small => (false, HANGS_AFTER),
            Habit::Leave => (self.rng.random(), LONGEST_STAY.mul_f64(self.rng.random())),
        };
        let asked = timeout(stays, ask(self.api, "hi", streams)).await;
        match (asked.map(|told| told.seen), self.habit) {
            (Ok(Seen { whole: 1, .. }), _) => End::Whole,
            (Ok(Seen { told: 1, .. }), _) => End::Told,
            (Ok(Seen { failed: 1, .. }), _) => End::Failed,
            (Ok(Seen { broken: 1, .. }), _) => End::Broken,
            (Ok(_silent), _) => End::Cut,
            (Err(_elapsed), Habit::Leave) => End::Left,
            (Err(_elapsed), Habit::Stream | Habit::Small) => End::Hung,
        }
    }
}

/// Returns how many requests are in flight and queued, as the metrics say.
async fn counted(api: Api) -> (u64, u64) {
    let page = api.get("/metrics").await.text().await;
    let sum = |name: &str| {
        let lines = page.lines().filter(|line| line.starts_with(name));
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        values.sum()
    };
    (
        sum("ollama_coordinator_in_flight "),
        sum("ollama_coordinator_queued"),
    )
}
