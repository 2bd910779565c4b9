//! What the agent does now, in one word for the icon and in a few for people.

use std::fmt;
use std::time::SystemTime;

use chrono::{DateTime, Local};
use ollama_coordinator_common::protocol::view::UnroutableReason;

use crate::pause::Pause;
use crate::status::{AgentStatus, Phase};

/// The one thing about the agent that matters most to the owner of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Nobody has said where the coordinator is.
    Unconfigured,
    /// Looks around.
    Starting,
    /// Waits for the coordinator's first answers.
    Registering,
    /// Takes requests; none runs.
    Ready,
    /// Requests run.
    Busy {
        /// How many.
        running: usize,
    },
    /// The owner has paused it.
    Paused {
        /// When it goes on by itself.
        until: Option<SystemTime>,
        /// Requests that still run.
        running: usize,
    },
    /// The coordinator's operator has paused it.
    Drained {
        /// Requests that still run.
        running: usize,
    },
    /// The runtime does not answer.
    RuntimeNotAnswering,
    /// The coordinator sends no requests, for another reason.
    Unroutable(UnroutableReason),
    /// The coordinator does not answer, or refuses.
    Disconnected,
    /// Was asked to stop.
    Stopping {
        /// Requests that still run.
        running: usize,
    },
}

impl Condition {
    /// Returns what matters most about a status.
    pub fn of(status: &AgentStatus) -> Self {
        let running = status.running + status.finishing;
        let unroutable = match (status.phase, status.paused) {
            (Phase::Leaving | Phase::Stopped, _) => return Self::Stopping { running },
            (Phase::Unconfigured, _) => return Self::Unconfigured,
            (_, Some(Pause { until })) => return Self::Paused { until, running },
            (Phase::Starting, None) => return Self::Starting,
            (Phase::Joining { attempts: 0 }, None) => return Self::Registering,
            (Phase::Joining { .. } | Phase::Disconnected { .. }, None) => {
                return Self::Disconnected;
            }
            (Phase::Connected { unroutable }, None) => unroutable,
        };
        match unroutable {
            _ if status.runtime.error.is_some() => Self::RuntimeNotAnswering,
            Some(UnroutableReason::RuntimeNotAnswering) => Self::RuntimeNotAnswering,
            Some(UnroutableReason::Draining) => Self::Drained { running },
            Some(UnroutableReason::Unverified) => Self::Registering,
            Some(reason) => Self::Unroutable(reason),
            None if running > 0 => Self::Busy { running },
            None => Self::Ready,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unconfigured => f.write_str("no coordinator is set, open the settings"),
            Self::Starting => f.write_str("starting"),
            Self::Registering => f.write_str("registering"),
            Self::Ready => f.write_str("ready"),
            Self::Busy { running } => write!(f, "ready, {running} running"),
            Self::Paused { until, running } => {
                f.write_str("paused")?;
                if let Some(until) = until {
                    let until = DateTime::<Local>::from(*until);
                    write!(f, " until {}", until.format("%-d %b %H:%M"))?;
                }
                still_running(f, *running)
            }
            Self::Drained { running } => {
                f.write_str("paused by the coordinator's operator")?;
                still_running(f, *running)
            }
            Self::RuntimeNotAnswering => f.write_str("the runtime does not answer"),
            Self::Unroutable(reason) => f.write_str(in_words(*reason)),
            Self::Disconnected => f.write_str("not connected, trying again"),
            Self::Stopping { running } => {
                f.write_str("stopping")?;
                still_running(f, *running)
            }
        }
    }
}

fn still_running(f: &mut fmt::Formatter<'_>, running: usize) -> fmt::Result {
    match running {
        0 => Ok(()),
        running => write!(f, ", {running} still running"),
    }
}

fn in_words(reason: UnroutableReason) -> &'static str {
    match reason {
        UnroutableReason::Offline => "the coordinator counts it as offline",
        UnroutableReason::Paused => "paused",
        UnroutableReason::Draining => "paused by the coordinator's operator",
        UnroutableReason::Unverified => "registering",
        UnroutableReason::Unreachable => "the coordinator cannot reach the runtime",
        UnroutableReason::NoTunnel => "the way for requests is not open",
        UnroutableReason::RuntimeNotAnswering => "the runtime does not answer",
        UnroutableReason::Ejected => "no requests for a while: too many failed here",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tray::Icon;
    use crate::tray::view::tests::sample;
    use rstest::rstest;

    #[rstest]
    #[case::unconfigured(
        Phase::Unconfigured,
        "no coordinator is set, open the settings",
        Icon::Attention
    )]
    #[case::starting(Phase::Starting, "starting", Icon::Waiting)]
    #[case::joining(Phase::Joining { attempts: 0 }, "registering", Icon::Waiting)]
    #[case::in_vain(
        Phase::Joining { attempts: 3 },
        "not connected, trying again",
        Icon::Disconnected
    )]
    #[case::ready(Phase::Connected { unroutable: None }, "ready", Icon::Ready)]
    #[case::lost(
        Phase::Disconnected { failures: 1 },
        "not connected, trying again",
        Icon::Disconnected
    )]
    #[case::leaving(Phase::Leaving, "stopping", Icon::Waiting)]
    #[case::stopped(Phase::Stopped, "stopping", Icon::Waiting)]
    fn phase_is_said_and_shown(
        #[case] phase: Phase,
        #[case] expected: &str,
        #[case] expected_icon: Icon,
    ) {
        let status = AgentStatus { phase, ..sample() };

        let condition = Condition::of(&status);

        assert_eq!(condition.to_string(), expected);
        assert_eq!(Icon::of(&condition), expected_icon);
    }

    #[rstest]
    #[case(
        UnroutableReason::Draining,
        "paused by the coordinator's operator",
        Icon::Paused
    )]
    #[case(UnroutableReason::Unverified, "registering", Icon::Waiting)]
    #[case(
        UnroutableReason::Unreachable,
        "the coordinator cannot reach the runtime",
        Icon::Attention
    )]
    #[case(
        UnroutableReason::NoTunnel,
        "the way for requests is not open",
        Icon::Attention
    )]
    #[case(
        UnroutableReason::RuntimeNotAnswering,
        "the runtime does not answer",
        Icon::Attention
    )]
    #[case(
        UnroutableReason::Ejected,
        "no requests for a while: too many failed here",
        Icon::Attention
    )]
    fn reason_for_no_requests_is_said_and_shown(
        #[case] reason: UnroutableReason,
        #[case] expected: &str,
        #[case] expected_icon: Icon,
    ) {
        let status = AgentStatus {
            phase: Phase::Connected {
                unroutable: Some(reason),
            },
            ..sample()
        };

        let condition = Condition::of(&status);

        assert_eq!(condition.to_string(), expected);
        assert_eq!(Icon::of(&condition), expected_icon);
    }

    #[rstest]
    fn pause_is_said_whatever_else_is_the_matter(
        #[values(
            Phase::Starting,
            Phase::Joining { attempts: 3 },
            Phase::Connected { unroutable: None },
            Phase::Disconnected { failures: 1 }
        )]
        phase: Phase,
    ) {
        let status = AgentStatus {
            phase,
            paused: Some(Pause { until: None }),
            running: 1,
            ..sample()
        };

        let condition = Condition::of(&status);

        assert_eq!(condition.to_string(), "paused, 1 still running");
        assert_eq!(Icon::of(&condition), Icon::Paused);
    }

    #[test]
    fn end_of_a_pause_is_said_in_local_time() {
        let until = SystemTime::now();
        let paused = Some(Pause { until: Some(until) });
        let status = AgentStatus { paused, ..sample() };

        let said = Condition::of(&status).to_string();

        let local = DateTime::<Local>::from(until).format("%H:%M").to_string();
        assert!(said.starts_with("paused until "), "{said}");
        assert!(said.ends_with(&local), "{said}");
    }

    #[test]
    fn running_requests_are_counted() {
        let status = AgentStatus {
            running: 2,
            ..sample()
        };

        let condition = Condition::of(&status);

        assert_eq!(condition.to_string(), "ready, 2 running");
        assert_eq!(Icon::of(&condition), Icon::Busy);
    }

    #[test]
    fn runtime_that_does_not_answer_is_said_before_the_coordinator_knows() {
        let mut status = sample();
        status.runtime.error = Some("connection refused".to_owned());

        let condition = Condition::of(&status);

        assert_eq!(condition, Condition::RuntimeNotAnswering);
    }
}
