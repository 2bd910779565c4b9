//! The delays and limits that are policy, not settings.

use std::time::Duration;

/// How patient and how eager the agent is. Tests and simulations shorten these.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// The smallest delay before another attempt to register.
    pub first_retry: Duration,
    /// The delay after a refusal that trying again does not cure.
    pub refused_retry: Duration,
    /// For making a connection to the coordinator.
    pub connect: Duration,
    /// For the answer to a registration, which the coordinator first makes durable.
    pub register: Duration,
    /// The most that is waited before a lost tunnel is opened again.
    pub tunnel_retry: Duration,
    /// The longest delay between attempts to open a tunnel.
    pub tunnel_longest_retry: Duration,
    /// For the answer to an attempt to open a tunnel.
    pub tunnel_answer: Duration,
    /// How long requests that run at the end may go on.
    pub drain: Duration,
    /// For saying goodbye, in all.
    pub goodbye: Duration,
    /// How long the first registration waits for the first look at the runtime.
    pub first_report: Duration,
    /// Between looks at a runtime that answers.
    pub probe_running: Duration,
    /// Between looks at a runtime that does not answer.
    pub probe_missing: Duration,
    /// For each answer of the runtime.
    pub probe_answer: Duration,
    /// Between samples of the machine's load.
    pub metrics: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            first_retry: Duration::from_millis(500),
            refused_retry: Duration::from_secs(30),
            connect: Duration::from_secs(2),
            register: Duration::from_secs(10),
            tunnel_retry: Duration::from_millis(250),
            tunnel_longest_retry: Duration::from_secs(5),
            tunnel_answer: Duration::from_secs(5),
            drain: Duration::from_secs(30),
            goodbye: Duration::from_secs(2),
            first_report: Duration::from_secs(1),
            probe_running: Duration::from_secs(5),
            probe_missing: Duration::from_secs(2),
            probe_answer: Duration::from_secs(5),
            metrics: Duration::from_secs(10),
        }
    }
}
