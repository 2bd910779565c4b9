//! Tells people what happens with the coordinator: each change once, an outage now and then.

use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::doctor::connection::clock_skew;
use ollama_coordinator_common::protocol::view::UnroutableReason;
use tokio::time::Instant;

use super::state::{Action, Session};
use crate::config::Config;
use crate::coordinator::CoordinatorError;

/// The tries of an outage that are told one by one.
const TOLD_TRIES: [u32; 3] = [1, 2, 5];
/// After those, an outage is told this often, or when its cause becomes another.
const REMINDER: Duration = Duration::from_mins(5);

type ErrorKind = Discriminant<CoordinatorError>;

/// Follows the session and writes the lines that an operator needs.
#[derive(Debug)]
pub(super) struct Narrator {
    coordinator: BaseUrl,
    machine_name: String,
    outage: Option<Outage>,
    last_error: Option<String>,
    last_kind: Option<ErrorKind>,
    was_registered: bool,
    unroutable: Option<UnroutableReason>,
    is_clock_off: bool,
}

impl Narrator {
    pub(super) fn new(config: &Config, coordinator: &BaseUrl) -> Self {
        Self {
            coordinator: coordinator.clone(),
            machine_name: config.machine_name.clone(),
            outage: None,
            last_error: None,
            last_kind: None,
            was_registered: false,
            unroutable: None,
            is_clock_off: false,
        }
    }

    pub(super) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    pub(super) fn unroutable(&self) -> Option<UnroutableReason> {
        self.unroutable
    }

    /// Remembers why the message before the next step failed.
    pub(super) fn failed(&mut self, error: &CoordinatorError) {
        self.last_error = Some(error.explain(&self.coordinator));
        self.last_kind = Some(discriminant(error));
    }

    /// Remembers what the coordinator said about sending requests here.
    pub(super) fn routable(&mut self, reason: Option<UnroutableReason>) {
        if self.unroutable == reason {
            return;
        }
        self.unroutable = reason;
        if reason == Some(UnroutableReason::Paused) {
            tracing::info!("The coordinator knows of the pause");
        } else if let Some(reason) = reason {
            tracing::warn!(%reason, "The coordinator sends no requests here");
        } else {
            tracing::info!("The coordinator sends requests here");
        }
    }

    /// Tells once that this machine's clock and the coordinator's differ.
    pub(super) fn clock(&mut self, coordinator_ahead: Option<i64>) {
        let Some(ahead) = coordinator_ahead else {
            return;
        };
        let skew = clock_skew(ahead);
        let was_off = std::mem::replace(&mut self.is_clock_off, skew.is_some());
        if let Some(skew) = skew.filter(|_| !was_off) {
            tracing::warn!(skew, "Clocks differ");
        }
    }

    /// Tells what the step to `session` means, if it means anything new.
    pub(super) fn follow(&mut self, session: &Session, action: &Action, now: Instant) {
        let Action::WaitUntil(next_try) = action else {
            return;
        };
        match session {
            Session::Registered(registered) if registered.failures == 0 => self.connected(now),
            Session::Registered(registered) => {
                self.disconnected(registered.failures, now, *next_try);
            }
            Session::Unregistered(joining) => {
                self.was_registered = false;
                self.disconnected(joining.attempts, now, *next_try);
            }
            Session::Registering(_) | Session::Leaving | Session::Stopped => {}
        }
    }

    fn connected(&mut self, now: Instant) {
        self.last_error = None;
        let was_registered = std::mem::replace(&mut self.was_registered, true);
        let outage = self.outage.take();
        if was_registered && outage.is_none() {
            return;
        }
        let after = outage.map(|outage| shown(now - outage.since));
        let message = if was_registered {
            "Connected again"
        } else {
            "Joined the coordinator"
        };
        tracing::info!(
            coordinator.url = %self.coordinator,
            agent.name = self.machine_name,
            after = after.as_deref(),
            "{message}"
        );
    }

    fn disconnected(&mut self, tries: u32, now: Instant, next_try: Instant) {
        let outage = self.outage.get_or_insert(Outage {
            since: now,
            told: None,
        });
        if !outage.is_worth_a_line(tries, self.last_kind, now) {
            return;
        }
        tracing::warn!(
            coordinator.url = %self.coordinator,
            error = self.last_error.as_deref(),
            tries,
            next_try_in = shown(next_try - now),
            "Not connected to the coordinator"
        );
    }
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    told: Option<Told>,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    kind: Option<ErrorKind>,
}

impl Outage {
    fn is_worth_a_line(&mut self, tries: u32, kind: Option<ErrorKind>, now: Instant) -> bool {
        let is_news = self.told.as_ref().is_none_or(|told| told.kind != kind);
        let is_due = self
            .told
            .as_ref()
            .is_none_or(|told| now - told.at >= REMINDER);
        let is_worth = is_news || is_due || TOLD_TRIES.contains(&tries);
        if is_worth {
            self.told = Some(Told { at: now, kind });
        }
        is_worth
    }
}

/// Returns `duration` to the tenth of a second.
fn shown(duration: Duration) -> String {
    let tenths = u64::try_from(duration.as_millis() / 100).unwrap_or(u64::MAX / 100);
    humantime::format_duration(Duration::from_millis(tenths * 100)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn outage_is_told_at_tries_1_2_5_and_then_every_five_minutes() {
        let start = Instant::now();
        let mut outage = Outage {
            since: start,
            told: None,
        };
        let kind = Some(discriminant(&CoordinatorError::WrongSecret));

        let told: Vec<u32> = (1..=60)
            .filter(|tries| {
                let now = start + Duration::from_secs(30) * *tries;
                outage.is_worth_a_line(*tries, kind, now)
            })
            .collect();

        assert_eq!(told, [1, 2, 5, 15, 25, 35, 45, 55]);
    }

    #[tokio::test(start_paused = true)]
    async fn outage_with_another_cause_is_told_at_once() {
        let now = Instant::now();
        let mut outage = Outage {
            since: now,
            told: None,
        };
        let first = Some(discriminant(&CoordinatorError::WrongSecret));
        let second = Some(discriminant(&CoordinatorError::UnknownAgent));

        assert!(outage.is_worth_a_line(7, first, now));
        assert!(!outage.is_worth_a_line(8, first, now));
        assert!(outage.is_worth_a_line(9, second, now));
        assert!(!outage.is_worth_a_line(10, second, now));
    }
}
