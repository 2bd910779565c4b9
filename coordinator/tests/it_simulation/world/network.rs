//! What becomes of packets.

use std::time::Duration;

use ollama_agent::session::state::Failure;
use rand::Rng as _;

use super::{Event, World};
use crate::message::{Exchange, Reply, Request};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

impl World {
    /// Returns how long a packet takes between a machine and the coordinator.
    pub(crate) fn delay(&mut self, index: usize) -> Duration {
        let network = &self.machines[index].network;
        let (loss, slow) = (network.loss, network.slow);
        let mut delay = Duration::from_micros(self.rng.random_range(200..15_000));
        if !slow.is_zero() {
            delay += self.rng.random_range(Duration::ZERO..=slow);
        }
        let mut again = Duration::from_millis(200);
        while again < Duration::from_secs(10) && loss > 0.0 && self.rng.random_bool(loss) {
            delay += again;
            again *= 2;
        }
        delay
    }

    pub(super) fn answer(&mut self, exchange: Exchange, reply: Reply) {
        let index = exchange.from.machine;
        if self.machines[index].network.blocked_from > 0 {
            return;
        }
        let at = self.now + self.delay(index);
        self.schedule(at, Event::Answers(exchange, reply));
    }

    /// Sends a request; it may be late, twice, or never arrive.
    pub(super) fn send(&mut self, index: usize, request: Request, timeout: Duration) {
        let (now, is_there) = (self.now, self.coordinator.is_some());
        let machine = &mut self.machines[index];
        let is_whole = machine.network.is_whole();
        let is_blocked = machine.network.blocked_to > 0;
        let repeats = machine.network.repeats;
        let Some(process) = &mut machine.process else {
            return;
        };
        let exchange = process.exchange();
        if !process.is_connected && !is_whole {
            self.schedule(now + CONNECT_TIMEOUT, Event::GivesUp(exchange));
            return;
        }
        process.is_connected = is_there;
        if !is_there && is_whole {
            let at = now + self.delay(index);
            self.schedule(
                at,
                Event::Answers(exchange, Reply::Failed(Failure::Unreachable)),
            );
            return;
        }
        self.schedule(now + timeout, Event::GivesUp(exchange));
        let mut at = now + self.delay(index);
        if is_blocked {
            // What a kernel has, it goes on sending, also when its process is gone.
            at += self
                .rng
                .random_range(Duration::ZERO..Duration::from_secs(40));
            if self.rng.random_bool(0.5) {
                return;
            }
        }
        if repeats > 0.0 && self.rng.random_bool(repeats) {
            let again = at + Duration::from_millis(self.rng.random_range(0..500));
            self.schedule(again, Event::Arrives(exchange, request.clone()));
        }
        self.schedule(at, Event::Arrives(exchange, request));
    }
}
