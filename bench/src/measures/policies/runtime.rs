//! What a machine does with the requests that it was given: loads models, reads, writes. Pure.

use std::collections::VecDeque;

use super::world::{MODELS, READS, Request, Spec, WRITES};

/// Gigabytes per second from disk into memory.
const LOADS: f64 = 2.0;
/// Seconds after its last request that a model stays in memory if its room is not needed.
const KEEPS: f64 = 300.0;
/// Seconds that a request waits at the machine for a slot and for its model's turn.
pub(super) const PATIENCE: f64 = 60.0;
/// Of so many conversations a model in memory remembers what it has read.
const REMEMBERS: usize = 32;
/// Work closer to its end than this has ended.
const NOTHING: f64 = 1e-9;

/// One machine.
#[derive(Debug)]
pub(super) struct Runtime {
    pub(super) spec: &'static Spec,
    now: f64,
    /// Work done by each of those that ran all the time, in seconds at speed 1.
    done: f64,
    waiting: VecDeque<(usize, f64)>,
    running: Vec<Running>,
    loaded: Vec<Loaded>,
    loading: Option<(usize, f64)>,
    /// How often a model was loaded.
    pub(super) loads: u32,
    /// When something happens next if it gets no request until then.
    pub(super) next: f64,
}

#[derive(Debug)]
struct Running {
    request: usize,
    model: usize,
    phase: Phase,
    first_at: f64,
}

/// `until`: the machine's count of work at which it ends.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Loads,
    Reads { until: f64 },
    Writes { until: f64 },
}

#[derive(Debug)]
struct Loaded {
    model: usize,
    used_at: f64,
    /// Conversations and how many tokens of them were read, the latest last.
    remembers: VecDeque<(u32, u32)>,
}

/// What happened to a request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    /// Its first token came.
    Began { request: usize },
    /// It was answered; when its first token came.
    Answered { request: usize, first_at: f64 },
    /// It did not get its turn in time.
    GaveUp { request: usize },
}

impl Phase {
    fn until(self) -> Option<f64> {
        match self {
            Self::Loads => None,
            Self::Reads { until } | Self::Writes { until } => Some(until),
        }
    }
}

impl Runtime {
    pub(super) fn new(spec: &'static Spec) -> Self {
        Self {
            spec,
            now: 0.0,
            done: 0.0,
            waiting: VecDeque::new(),
            running: Vec::new(),
            loaded: Vec::new(),
            loading: None,
            loads: 0,
            next: f64::INFINITY,
        }
    }

    /// Returns the positions of the models in memory.
    pub(super) fn loaded(&self) -> Vec<usize> {
        self.loaded.iter().map(|loaded| loaded.model).collect()
    }

    /// Returns whether nothing is left to do.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Takes a request.
    pub(super) fn put(&mut self, request: usize, requests: &[Request], now: f64) {
        self.pass(now);
        self.waiting.push_back((request, now));
        self.start(requests);
        self.look_ahead();
    }

    /// Does what is due at `now`.
    pub(super) fn advance(&mut self, requests: &[Request], now: f64) -> Vec<Event> {
        self.pass(now);
        let mut events = Vec::new();
        self.give_up(&mut events);
        if let Some((model, _)) = self.loading.take_if(|(_, ready)| *ready <= now) {
            self.loaded.push(Loaded {
                model,
                used_at: now,
                remembers: VecDeque::new(),
            });
            for index in 0..self.running.len() {
                if self.running[index].model == model {
                    self.running[index].phase = self.reads(&requests[self.running[index].request]);
                }
            }
        }
        let done = self.done + NOTHING;
        self.running.retain_mut(|running| match running.phase {
            Phase::Reads { until } if until <= done => {
                let answer = requests[running.request].answer;
                running.first_at = now;
                events.push(Event::Began {
                    request: running.request,
                });
                running.phase = Phase::Writes {
                    until: until + f64::from(answer) / WRITES,
                };
                true
            }
            Phase::Writes { until } if until <= done => {
                let request = &requests[running.request];
                remember(&mut self.loaded, request, now);
                events.push(Event::Answered {
                    request: running.request,
                    first_at: running.first_at,
                });
                false
            }
            Phase::Loads | Phase::Reads { .. } | Phase::Writes { .. } => true,
        });
        self.unload_unused();
        self.start(requests);
        self.look_ahead();
        events
    }

    fn pass(&mut self, now: f64) {
        self.done += (now - self.now).max(0.0) * self.pace();
        self.now = now;
    }

    fn pace(&self) -> f64 {
        let busy = self.running.iter().filter_map(|r| r.phase.until());
        self.spec
            .pace(u32::try_from(busy.count()).unwrap_or(u32::MAX))
    }

    fn look_ahead(&mut self) {
        let pace = self.pace();
        let ends = self.running.iter().filter_map(|r| r.phase.until());
        let ends = ends.map(|until| self.now + (until - self.done).max(0.0) / pace);
        let ready = self.loading.iter().map(|(_, ready)| *ready);
        let gives_up = self.waiting.iter().map(|(_, since)| since + PATIENCE);
        let unused = self.loaded.iter().filter(|loaded| !self.uses(loaded.model));
        let unloads = unused.map(|loaded| loaded.used_at + KEEPS);
        let events = ends.chain(ready).chain(gives_up).chain(unloads);
        self.next = events.fold(f64::INFINITY, f64::min);
    }

    fn uses(&self, model: usize) -> bool {
        self.running.iter().any(|running| running.model == model)
    }

    fn give_up(&mut self, events: &mut Vec<Event>) {
        let now = self.now;
        self.waiting.retain(|(request, since)| {
            let stays = since + PATIENCE > now;
            if !stays {
                events.push(Event::GaveUp { request: *request });
            }
            stays
        });
    }

    fn unload_unused(&mut self) {
        let running = &self.running;
        self.loaded.retain(|loaded| {
            let is_used = running.iter().any(|running| running.model == loaded.model);
            is_used || loaded.used_at + KEEPS > self.now
        });
    }

    /// Starts those who wait, in turn: who needs room for a model lets nobody pass.
    fn start(&mut self, requests: &[Request]) {
        while let Some((request, _)) = self.waiting.front().copied() {
            let model = requests[request].model;
            let slots = usize::try_from(self.spec.slots).unwrap_or(usize::MAX);
            if self.running.len() >= slots || !self.provide(model) {
                return;
            }
            self.waiting.pop_front();
            let phase = if self.loading.is_some_and(|(loading, _)| loading == model) {
                Phase::Loads
            } else {
                self.reads(&requests[request])
            };
            self.running.push(Running {
                request,
                model,
                phase,
                first_at: 0.0,
            });
        }
    }

    /// Returns whether the model is in memory or on its way there. One is loaded at a time, and
    /// those that nobody uses make room.
    fn provide(&mut self, model: usize) -> bool {
        if let Some((loading, _)) = self.loading {
            return loading == model || self.loaded.iter().any(|loaded| loaded.model == model);
        }
        if self.loaded.iter().any(|loaded| loaded.model == model) {
            return true;
        }
        let size = MODELS[model].gigabytes;
        let used =
            |loaded: &[Loaded]| -> u32 { loaded.iter().map(|l| MODELS[l.model].gigabytes).sum() };
        let in_use: u32 = self
            .loaded
            .iter()
            .filter(|loaded| self.uses(loaded.model))
            .map(|loaded| MODELS[loaded.model].gigabytes)
            .sum();
        if in_use + size > self.spec.gigabytes {
            return false;
        }
        while used(&self.loaded) + size > self.spec.gigabytes {
            let idle = self.loaded.iter().enumerate();
            let idle = idle.filter(|(_, loaded)| !self.uses(loaded.model));
            let oldest = idle.min_by(|(_, a), (_, b)| a.used_at.total_cmp(&b.used_at));
            let Some((oldest, _)) = oldest else {
                return false;
            };
            self.loaded.remove(oldest);
        }
        self.loads += 1;
        self.loading = Some((model, self.now + f64::from(size) / LOADS));
        true
    }

    /// What is not remembered of the conversation has to be read.
    fn reads(&self, request: &Request) -> Phase {
        let loaded = self.loaded.iter().find(|l| l.model == request.model);
        let known = loaded.and_then(|loaded| {
            let found = loaded.remembers.iter();
            found
                .rev()
                .find(|(conversation, _)| *conversation == request.conversation)
        });
        let known = known.map_or(0, |(_, tokens)| *tokens);
        let unread = request.prompt.saturating_sub(known).max(1);
        Phase::Reads {
            until: self.done + f64::from(unread) / READS,
        }
    }
}

fn remember(loaded: &mut [Loaded], request: &Request, now: f64) {
    let Some(loaded) = loaded.iter_mut().find(|l| l.model == request.model) else {
        return;
    };
    loaded.used_at = now;
    let others = |(conversation, _): &(u32, u32)| *conversation != request.conversation;
    loaded.remembers.retain(others);
    if loaded.remembers.len() >= REMEMBERS {
        loaded.remembers.pop_front();
    }
    let tokens = request.prompt + request.answer;
    loaded.remembers.push_back((request.conversation, tokens));
}
