//! One run: the same requests, one way to choose, event after event under a clock of its own.

use std::time::Duration;

use ollama_coordinator::balancer::permit::Pace;

use super::chooser::{Chooser, Place, Way};
use super::runtime::{Event, PATIENCE, Runtime};
use super::world::{MACHINES, Request};

/// Machines tell what they have in memory so often, each at a moment of its own.
const HEARTBEAT: f64 = 1.0;

/// What a run showed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figures {
    /// Seconds to the first token; who was refused counts with the time a request may wait.
    pub(super) p50: f64,
    pub(super) p95: f64,
    /// Tokens of answers per second from the first request to the last.
    pub(super) tokens_per_second: f64,
    pub(super) loads: f64,
    /// The share that was refused.
    pub(super) refused: f64,
    /// Requests that were answered.
    pub(super) answered: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Record {
    sent_at: f64,
    /// Seconds to the first token, or `None`: refused.
    first: Option<f64>,
    ended: bool,
}

struct Simulation<'a> {
    requests: &'a [Request],
    chooser: Chooser,
    machines: Vec<Runtime>,
    /// What each machine reported last, and when its next report comes if there is news.
    told: Vec<(Vec<usize>, f64)>,
    records: Vec<Record>,
    tokens: f64,
}

/// Runs until every request has ended.
pub(super) fn run(way: Way, requests: &[Request], seed: u64) -> Figures {
    let mut simulation = Simulation::new(way, requests, seed);
    simulation.run();
    simulation.figures()
}

impl<'a> Simulation<'a> {
    fn new(way: Way, requests: &'a [Request], seed: u64) -> Self {
        Self {
            requests,
            chooser: Chooser::new(way, seed),
            machines: MACHINES.iter().map(Runtime::new).collect(),
            told: vec![(Vec::new(), f64::INFINITY); MACHINES.len()],
            records: vec![Record::default(); requests.len()],
            tokens: 0.0,
        }
    }

    fn run(&mut self) {
        let mut next_request = 0;
        loop {
            let arrival = self.requests.get(next_request);
            let arrival = arrival.map_or(f64::INFINITY, |request| request.at);
            let machine = self.next_machine();
            let report = self.next_report();
            let deadline = self.chooser.deadline();
            let now = arrival.min(deadline);
            let now = now
                .min(self.machines[machine].next)
                .min(self.told[report].1);
            if now.is_infinite() {
                return;
            }
            if self.machines[machine].next <= now {
                self.advance(machine, now);
            } else if self.told[report].1 <= now {
                self.told[report] = (self.machines[report].loaded(), f64::INFINITY);
                self.chooser.heard(report, &self.told[report].0, now);
            } else if deadline <= now {
                self.chooser.advance(now);
            } else {
                let place = self
                    .chooser
                    .place(next_request, &self.requests[next_request], now);
                self.go(next_request, place, now);
                next_request += 1;
            }
            for (number, place) in self.chooser.woken() {
                self.go(number, place, now);
            }
        }
    }

    fn next_machine(&self) -> usize {
        let by_time = |a: &usize, b: &usize| {
            let (a, b) = (&self.machines[*a], &self.machines[*b]);
            a.next.total_cmp(&b.next)
        };
        (0..self.machines.len()).min_by(by_time).unwrap_or(0)
    }

    fn next_report(&self) -> usize {
        let by_time = |a: &usize, b: &usize| self.told[*a].1.total_cmp(&self.told[*b].1);
        (0..self.told.len()).min_by(by_time).unwrap_or(0)
    }

    fn go(&mut self, number: usize, place: Place, now: f64) {
        match place {
            Place::Queue => {}
            Place::Nowhere => self.records[number].ended = true,
            Place::Machine(machine) => {
                self.records[number].sent_at = now;
                self.machines[machine].put(number, self.requests, now);
                self.plan_report(machine, now);
            }
        }
    }

    fn advance(&mut self, machine: usize, now: f64) {
        for event in self.machines[machine].advance(self.requests, now) {
            match event {
                Event::Began { request } => self.chooser.began(request, now),
                Event::GaveUp { request } => {
                    self.records[request].ended = true;
                    self.chooser.ended(request, None, now);
                }
                Event::Answered { request, first_at } => {
                    let record = &mut self.records[request];
                    record.first = Some(first_at - self.requests[request].at);
                    record.ended = true;
                    let answer = self.requests[request].answer;
                    self.tokens += f64::from(answer);
                    let pace = Pace {
                        first_byte: Duration::from_secs_f64(first_at - record.sent_at),
                        chunks: u64::from(answer),
                        streaming: Duration::from_secs_f64(now - first_at),
                    };
                    self.chooser.ended(request, Some(pace), now);
                }
            }
        }
        self.plan_report(machine, now);
    }

    /// News goes with the machine's next heartbeat.
    fn plan_report(&mut self, machine: usize, now: f64) {
        let (told, at) = &mut self.told[machine];
        if at.is_infinite() && *told != self.machines[machine].loaded() {
            let share = f64::from(u32::try_from(machine).unwrap_or(0)) / 12.0;
            let phase = HEARTBEAT * share;
            let beats = ((now - phase) / HEARTBEAT).floor() + 1.0;
            *at = beats * HEARTBEAT + phase;
        }
    }

    fn figures(&self) -> Figures {
        // Models are cold and no conversation is under way in the beginning.
        let counted = &self.records[self.records.len() / 10..];
        let mut firsts: Vec<f64> = counted
            .iter()
            .map(|record| record.first.unwrap_or(PATIENCE))
            .collect();
        firsts.sort_by(f64::total_cmp);
        let at = |part: usize| firsts.get(firsts.len() * part / 100).copied();
        let refused = counted.iter().filter(|record| record.first.is_none());
        let share = |part: usize| f64::from(u32::try_from(part).unwrap_or(u32::MAX));
        let last = self.requests.last().map_or(1.0, |request| request.at);
        let loads: u32 = self.machines.iter().map(|machine| machine.loads).sum();
        Figures {
            p50: at(50).unwrap_or(0.0),
            p95: at(95).unwrap_or(0.0),
            tokens_per_second: self.tokens / last,
            loads: f64::from(loads),
            refused: share(refused.count()) / share(counted.len()),
            answered: self.records.iter().filter(|r| r.first.is_some()).count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use ollama_coordinator::balancer::policy::Policy;

    use super::super::WAYS;
    use super::super::world::requests;
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_figures_and_another_seed_others() {
        for (way, _) in WAYS {
            let trace = requests(1_000, 0.6, 7);
            let again = requests(1_000, 0.6, 7);

            assert_eq!(run(way, &trace, 7), run(way, &again, 7), "{way:?}");
        }
        let least_loaded = Way::Balancer(Policy::LeastLoaded);
        let first = run(least_loaded, &requests(1_000, 0.6, 7), 7);
        assert_ne!(first, run(least_loaded, &requests(1_000, 0.6, 8), 8));
    }

    #[test]
    fn every_request_is_answered_or_refused_and_no_slot_stays_taken() {
        let trace = requests(2_000, 1.5, 3);
        for (way, name) in WAYS {
            let mut simulation = Simulation::new(way, &trace, 3);

            simulation.run();

            assert!(
                simulation.records.iter().all(|record| record.ended),
                "{name}"
            );
            assert!(simulation.machines.iter().all(Runtime::is_idle), "{name}");
            assert_eq!(simulation.chooser.open(), 0, "{name}");
            let answered = simulation.figures().answered;
            assert!(answered > 500, "{name}: {answered}");
            let tokens: u32 = trace
                .iter()
                .zip(&simulation.records)
                .filter(|(_, record)| record.first.is_some())
                .map(|(request, _)| request.answer)
                .sum();
            assert!(
                (simulation.tokens - f64::from(tokens)).abs() < 0.5,
                "{name}"
            );
        }
    }
}
