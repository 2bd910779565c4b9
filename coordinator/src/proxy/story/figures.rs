//! Counts for the metrics. One look-up per request; after that everything is an atomic or a short
//! list of buckets.
//!
//! A label is a model that agents have, or an agent: both only while they are known, and never more
//! than the limits below. Whatever is beyond them is counted as `other`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::request::Protocol;
use parking_lot::{Mutex, RwLock};
use prometheus_client::metrics::histogram::Histogram;

use super::times::Times;
use super::tokens::Tokens;
use super::view::{self, WORDS};
use crate::balancer::permit::Outcome;

/// The most models that are counted apart.
const MAX_MODELS: usize = 200;
/// The most agents that are counted apart.
const MAX_AGENTS: usize = 1_000;
/// The most pairs of model and agent that are counted apart.
const MAX_PAIRS: usize = 10_000;
/// What stands for everything that is not counted apart.
pub const OTHER: &str = "other";
/// From a cached embedding to a long answer of a cold model.
const SECONDS: [f64; 15] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
];
/// How statuses are counted: 1xx, 2xx, ...
pub const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// All counts since the start.
#[derive(Debug)]
pub struct Figures {
    models: RwLock<HashMap<Box<str>, Arc<ModelFigures>>>,
    other_models: Arc<ModelFigures>,
    agents: RwLock<HashMap<AgentId, Arc<AgentFigures>>>,
    other_agents: Arc<AgentFigures>,
    pairs: AtomicUsize,
    refusals: Mutex<BTreeMap<&'static str, u64>>,
    /// From a request's arrival to the first byte of an answer that is streamed.
    pub first_tokens: Times,
}

/// What is counted of a model.
#[derive(Debug)]
pub struct ModelFigures {
    /// The model's name without `:latest`, or [`OTHER`].
    pub label: Box<str>,
    /// From a request's arrival to the end of the answer.
    pub duration: Histogram,
    /// From a request's arrival to the first byte of the answer.
    pub first_byte: Histogram,
    /// Time in the queue.
    pub queued: Histogram,
    pairs: RwLock<BTreeMap<Option<AgentId>, Arc<PairFigures>>>,
}

/// What is counted of the attempts at an agent.
#[derive(Debug, Default)]
pub struct AgentFigures {
    firsts: [AtomicU64; WORDS.len()],
    retries: [AtomicU64; WORDS.len()],
}

/// What is counted of a model on an agent, and what belongs to both.
#[derive(Debug)]
pub struct PairFigures {
    requests: [[AtomicU64; STATUS_CLASSES.len()]; Protocol::ALL.len()],
    prompt_tokens: AtomicU64,
    completion_tokens: AtomicU64,
    duration: Histogram,
    first_byte: Histogram,
    queued: Histogram,
    agent: Arc<AgentFigures>,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            models: RwLock::default(),
            other_models: Arc::new(ModelFigures::new(OTHER)),
            agents: RwLock::default(),
            other_agents: Arc::default(),
            pairs: AtomicUsize::new(0),
            refusals: Mutex::default(),
            first_tokens: Times::default(),
        }
    }
}

impl Figures {
    /// Returns where requests for `model` that `agent` answers are counted.
    pub(super) fn pair(&self, model: &str, agent: AgentId) -> Arc<PairFigures> {
        let known = self.models.read().get(model).cloned();
        let of_model = known.unwrap_or_else(|| self.add_model(model));
        let known = of_model.pairs.read().get(&Some(agent)).cloned();
        known.unwrap_or_else(|| self.add_pair(&of_model, agent))
    }

    /// Counts an attempt that is over.
    pub(super) fn count_attempt(&self, agent: AgentId, outcome: Outcome, is_retry: bool) {
        self.agent(agent).1.count(outcome, is_retry);
    }

    /// Counts the first bytes of a good answer that is streamed.
    pub(super) fn count_first_token(&self, after: Duration) {
        self.first_tokens.observe(after);
    }

    /// Counts a request that was refused.
    pub(super) fn count_refusal(&self, reason: &'static str) {
        *self.refusals.lock().entry(reason).or_default() += 1;
    }

    /// Stops counting apart what nobody knows any more.
    pub(super) fn keep(
        &self,
        knows_model: impl Fn(&str) -> bool,
        knows_agent: impl Fn(AgentId) -> bool,
    ) {
        self.models
            .write()
            .retain(|_, model| knows_model(&model.label));
        let mut pairs = 0;
        for model in self.models() {
            let mut of_model = model.pairs.write();
            of_model.retain(|agent, _| agent.is_none_or(&knows_agent));
            pairs += of_model.len();
        }
        self.pairs.store(pairs, Ordering::Relaxed);
        self.agents.write().retain(|agent, _| knows_agent(*agent));
    }

    /// Returns every model that is counted, each once.
    pub fn models(&self) -> Vec<Arc<ModelFigures>> {
        let models = self.models.read();
        let by_label = models.values().map(|model| (&*model.label, model));
        let by_label: BTreeMap<&str, &Arc<ModelFigures>> = by_label.collect();
        let other = std::iter::once(&self.other_models);
        by_label.into_values().chain(other).cloned().collect()
    }

    /// Returns the attempts at each agent; `None` stands for the others.
    pub fn agents(&self) -> Vec<(Option<AgentId>, Arc<AgentFigures>)> {
        let agents = self.agents.read();
        let known = agents
            .iter()
            .map(|(id, agent)| (Some(*id), Arc::clone(agent)));
        let other = std::iter::once((None, Arc::clone(&self.other_agents)));
        known.chain(other).collect()
    }

    /// Returns how many requests were refused, by reason.
    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        self.refusals.lock().clone()
    }

    fn add_model(&self, asked_for: &str) -> Arc<ModelFigures> {
        let label = asked_for.strip_suffix(":latest").unwrap_or(asked_for);
        if label == OTHER {
            return Arc::clone(&self.other_models);
        }
        let mut models = self.models.write();
        if let Some(model) = models.get(asked_for) {
            return Arc::clone(model);
        }
        let model = match models.get(label) {
            Some(model) => Arc::clone(model),
            // Each model has up to two names here.
            None if models.len() >= MAX_MODELS * 2 => return Arc::clone(&self.other_models),
            None => Arc::new(ModelFigures::new(label)),
        };
        models.insert(label.into(), Arc::clone(&model));
        models.insert(asked_for.into(), Arc::clone(&model));
        model
    }

    fn agent(&self, id: AgentId) -> (Option<AgentId>, Arc<AgentFigures>) {
        if let Some(agent) = self.agents.read().get(&id) {
            return (Some(id), Arc::clone(agent));
        }
        let mut agents = self.agents.write();
        if agents.len() >= MAX_AGENTS && !agents.contains_key(&id) {
            return (None, Arc::clone(&self.other_agents));
        }
        (Some(id), Arc::clone(agents.entry(id).or_default()))
    }

    fn add_pair(&self, model: &ModelFigures, agent: AgentId) -> Arc<PairFigures> {
        let (label, of_agent) = self.agent(agent);
        let has_room = self.pairs.load(Ordering::Relaxed) < MAX_PAIRS;
        let (label, of_agent) = if has_room {
            (label, of_agent)
        } else {
            (None, Arc::clone(&self.other_agents))
        };
        let mut pairs = model.pairs.write();
        let pair = pairs.entry(label).or_insert_with(|| {
            self.pairs.fetch_add(1, Ordering::Relaxed);
            Arc::new(PairFigures::new(model, of_agent))
        });
        Arc::clone(pair)
    }
}

impl ModelFigures {
    fn new(label: &str) -> Self {
        Self {
            label: label.into(),
            duration: Histogram::new(SECONDS),
            first_byte: Histogram::new(SECONDS),
            queued: Histogram::new(SECONDS),
            pairs: RwLock::default(),
        }
    }

    /// Returns what is counted of it on each agent; `None` stands for the others.
    pub fn pairs(&self) -> Vec<(Option<AgentId>, Arc<PairFigures>)> {
        let pairs = self.pairs.read();
        let pairs = pairs.iter().map(|(agent, pair)| (*agent, Arc::clone(pair)));
        pairs.collect()
    }
}

impl AgentFigures {
    fn count(&self, outcome: Outcome, is_retry: bool) {
        let counters = if is_retry {
            &self.retries
        } else {
            &self.firsts
        };
        counters[view::index(outcome)].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many attempts ended how, and how many of them were retries.
    pub fn attempts(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = self.firsts.iter().zip(&self.retries);
        WORDS
            .into_iter()
            .zip(counters)
            .map(move |(word, (firsts, retries))| {
                let retries = load(retries);
                (word, load(firsts) + retries, retries)
            })
    }
}

impl PairFigures {
    fn new(model: &ModelFigures, agent: Arc<AgentFigures>) -> Self {
        Self {
            requests: Default::default(),
            prompt_tokens: AtomicU64::new(0),
            completion_tokens: AtomicU64::new(0),
            duration: model.duration.clone(),
            first_byte: model.first_byte.clone(),
            queued: model.queued.clone(),
            agent,
        }
    }

    /// An answer has begun.
    pub(super) fn count_answer(
        &self,
        protocol: Protocol,
        status: u16,
        (queued, first_byte): (Duration, Duration),
    ) {
        let class = usize::from(status / 100).clamp(1, STATUS_CLASSES.len()) - 1;
        self.requests[protocol as usize][class].fetch_add(1, Ordering::Relaxed);
        self.queued.observe(queued.as_secs_f64());
        self.first_byte.observe(first_byte.as_secs_f64());
    }

    /// The attempt that was answered has ended.
    pub(super) fn count_attempt(&self, outcome: Outcome, is_retry: bool) {
        self.agent.count(outcome, is_retry);
    }

    /// An answer has ended.
    pub(super) fn count_end(&self, duration: Duration, tokens: Tokens) {
        self.duration.observe(duration.as_secs_f64());
        let add = |counter: &AtomicU64, count: Option<u64>| {
            if let Some(count) = count {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        };
        add(&self.prompt_tokens, tokens.prompt);
        add(&self.completion_tokens, tokens.completion);
    }

    /// Returns the requests that were answered, by protocol and class of status.
    pub fn requests(&self) -> impl Iterator<Item = (Protocol, &'static str, u64)> {
        let protocols = Protocol::ALL.into_iter().zip(&self.requests);
        protocols.flat_map(|(protocol, classes)| {
            let classes = STATUS_CLASSES.into_iter().zip(classes);
            classes.map(move |(class, counter)| (protocol, class, counter.load(Ordering::Relaxed)))
        })
    }

    /// Returns the tokens of prompts and of answers.
    pub fn tokens(&self) -> [(&'static str, u64); 2] {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("prompt", load(&self.prompt_tokens)),
            ("completion", load(&self.completion_tokens)),
        ]
    }
}
