//! Why the coordinator sends an agent no requests, in words. Pure.

use super::{Check, CheckId};
use crate::protocol::view::{AgentView, UnroutableReason};

/// Says whether requests go to an agent, and what is to be done when they do not.
pub fn explain(agent: &AgentView) -> Check {
    let Some(reason) = agent.reason else {
        return Check::ok(CheckId::Routable, "the coordinator sends requests here");
    };
    let (found, remedy) = words(agent, reason);
    let found = format!("the coordinator sends no requests here: {found} ({reason})");
    let check = match reason {
        UnroutableReason::Draining
        | UnroutableReason::Paused
        | UnroutableReason::Unverified
        | UnroutableReason::Ejected => Check::warning(CheckId::Routable, found),
        UnroutableReason::Offline
        | UnroutableReason::Unreachable
        | UnroutableReason::NoTunnel
        | UnroutableReason::RuntimeNotAnswering => Check::error(CheckId::Routable, found),
    };
    check.with_remedy(remedy)
}

fn words(agent: &AgentView, reason: UnroutableReason) -> (&'static str, String) {
    match reason {
        UnroutableReason::Offline => (
            "it does not hear from the agent",
            "start the agent there: ollama-agent".to_owned(),
        ),
        UnroutableReason::Draining => (
            "it is being emptied",
            format!(
                "resume it in the dashboard, or: PATCH /api/agents/{} with {{\"draining\": false}}",
                agent.id
            ),
        ),
        UnroutableReason::Paused => (
            "its owner has paused it, on the machine itself",
            match agent.paused_until {
                Some(until) => {
                    format!("wait until {until}, or on that machine: ollama-agent resume")
                }
                None => "on that machine: ollama-agent resume".to_owned(),
            },
        ),
        UnroutableReason::Unverified => (
            "its runtime has not been tried yet",
            "wait some seconds and ask again".to_owned(),
        ),
        UnroutableReason::Unreachable => (
            "nothing answers the coordinator at its address",
            format!(
                "leave --advertise out, so that the agent carries the requests itself; or have the \
                 runtime listen on {} (OLLAMA_HOST) and allow TCP port {} there",
                agent.ip_address, agent.port
            ),
        ),
        UnroutableReason::NoTunnel => (
            "the agent's tunnel is not up",
            "run `ollama-agent doctor` on that machine: a reverse proxy may not pass on upgrades"
                .to_owned(),
        ),
        UnroutableReason::RuntimeNotAnswering => (
            "the runtime does not answer its agent",
            "start the runtime on that machine, or correct --runtime there".to_owned(),
        ),
        UnroutableReason::Ejected => (
            "it failed on requests and gets none for a while",
            "look at its latest requests: GET /api/requests, and at the runtime's own log"
                .to_owned(),
        ),
    }
}
