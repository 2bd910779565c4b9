//! Many agents that register and send heartbeats, each of which now and then falls silent, and
//! writes down what it was told.

use std::time::Duration;

use http::{Method, StatusCode};
use ollama_coordinator_common::protocol::heartbeat::HeartbeatResponse;
use ollama_coordinator_common::protocol::register::{LeaseTerms, RegisterResponse};
use ollama_simulator::history::{Fact, Moment, Recorder};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::agent::FakeAgent;
use super::api::{Answer, Api, request};

/// As a real agent's.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(500);

/// A crowd; dropped, it is silent.
pub(crate) struct Crowd {
    _agents: JoinSet<()>,
}

/// How often its agents fall silent, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Silence {
    /// Once in so many heartbeats; 0: never.
    pub(crate) one_in: u32,
    pub(crate) lasts: Duration,
}

impl Crowd {
    /// Starts so many agents, which join over the first second.
    pub(crate) fn start(api: Api, agents: u64, silence: Silence, recorder: &Recorder) -> Self {
        let mut crowd = JoinSet::new();
        for agent in 0..agents {
            let member = Member {
                agent: FakeAgent::new(&format!("crowd-{agent}")),
                api,
                silence,
                recorder: recorder.clone(),
                rng: SmallRng::seed_from_u64(agent),
            };
            crowd.spawn(member.live());
        }
        Self { _agents: crowd }
    }
}

struct Member {
    agent: FakeAgent,
    api: Api,
    silence: Silence,
    recorder: Recorder,
    rng: SmallRng,
}

impl Member {
    async fn live(mut self) {
        sleep(Duration::from_secs(1).mul_f64(self.rng.random())).await;
        loop {
            let Some(mut interval) = self.register().await else {
                sleep(RETRY).await;
                continue;
            };
            loop {
                sleep(interval.mul_f64(self.rng.random_range(0.9..1.1))).await;
                self.fall_silent_now_and_then().await;
                interval = match self.beat().await {
                    Beat::Renewed(interval) => interval,
                    Beat::Failed => RETRY,
                    Beat::Unknown => break,
                };
            }
        }
    }

    /// Registers; returns when the next heartbeat is due.
    async fn register(&self) -> Option<Duration> {
        let sent = self.recorder.now();
        let body = self.agent.registration().to_string();
        let registration = request(Method::POST, "/api/agents", body);
        let asked = self.api.try_send(self.agent.signed(registration));
        let granted: RegisterResponse =
            granted(timeout(ANSWERED_WITHIN * 5, asked).await.ok()?.ok()?).await?;
        self.recorder.record(Fact::Registered {
            machine: self.agent.name.clone(),
            agent: granted.id,
            epoch: granted.epoch,
            at: self.recorder.now(),
        });
        Some(self.renewed(sent, granted.lease))
    }

    async fn beat(&self) -> Beat {
        let sent = self.recorder.now();
        let asked = timeout(ANSWERED_WITHIN, self.agent.try_beat(self.api));
        match asked.await {
            Ok(Ok(answer)) if answer.status == StatusCode::NOT_FOUND => Beat::Unknown,
            Ok(Ok(answer)) => match granted::<HeartbeatResponse>(answer).await {
                Some(granted) => Beat::Renewed(self.renewed(sent, granted.lease)),
                None => Beat::Failed,
            },
            Ok(Err(_)) | Err(_) => Beat::Failed,
        }
    }

    fn renewed(&self, sent: Moment, terms: LeaseTerms) -> Duration {
        self.recorder.record(Fact::Renewed {
            machine: self.agent.name.clone(),
            sent,
            answered: self.recorder.now(),
            ttl: Duration::from_millis(terms.ttl_ms),
        });
        Duration::from_millis(terms.heartbeat_interval_ms)
    }

    async fn fall_silent_now_and_then(&mut self) {
        let one_in = self.silence.one_in;
        if one_in == 0 || !self.rng.random_ratio(1, one_in) {
            return;
        }
        self.recorder.silent(&self.agent.name);
        sleep(self.silence.lasts).await;
        self.recorder.disturbed(&self.agent.name);
    }
}

enum Beat {
    Renewed(Duration),
    Unknown,
    Failed,
}

async fn granted<T: serde::de::DeserializeOwned>(mut answer: Answer) -> Option<T> {
    let (text, _error) = answer.read_all().await;
    let is_granted = answer.status.is_success();
    is_granted
        .then(|| serde_json::from_str(&text).ok())
        .flatten()
}
