//! `ollama-agent status`: how the agent is that runs here.

use clap::Args;
use ollama_coordinator_common::protocol::runtime::{RuntimeKind, RuntimeStatus};
use ollama_coordinator_common::protocol::view::{AgentStatus, UnroutableReason};
use serde_json::json;

use super::{Failure, print};
use crate::config::{Config, Given};
use crate::coordinator::CoordinatorClient;
use crate::doctor::{Access, Home};
use crate::instance::Use;
use crate::local::{LocalError, Meant, RunningAgent};
use crate::status::view::{LinkView, PhaseView, RuntimeStatusView, SCHEMA, StatusView};

const NOT_KNOWN: u8 = 1;
const NOT_CONNECTED: u8 = 3;
const NOT_RUNNING: u8 = 4;
const NO_RUNTIME: u8 = 7;

/// How to show it.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Write JSON for programs
    #[arg(long)]
    json: bool,
}

/// Asks the agent, shows how it is, and returns the exit code that stands for it.
///
/// # Errors
/// The settings are unusable, or the agent refuses.
pub async fn run(args: &StatusArgs, given: &Given) -> Result<u8, Failure> {
    let resolved = given.resolve().map_err(|error| Failure::usage(&error))?;
    let meant = Meant::by(&resolved);
    let status = match RunningAgent::of(&meant) {
        Ok(mut agent) => agent.status().await,
        Err(error) => Err(error),
    };
    match status {
        Ok(status) => tell(args, &status),
        Err(
            LocalError::NotRunning { .. }
            | LocalError::NoPanel { .. }
            | LocalError::Silent { .. }
            | LocalError::Closed { .. },
        ) => unasked(args, &resolved.config, &meant).await,
        Err(error) => Err(error.into()),
    }
}

fn tell(args: &StatusArgs, status: &StatusView) -> Result<u8, Failure> {
    let text = if args.json {
        let json = serde_json::to_string_pretty(status);
        json.expect("plain fields become JSON") + "\n"
    } else {
        text(status)
    };
    print(&text)?;
    Ok(exit_code(status))
}

/// Says what can be known of an agent that cannot be asked.
async fn unasked(args: &StatusArgs, config: &Config, meant: &Meant) -> Result<u8, Failure> {
    let home = Home::look(meant).await;
    let state_dir = home.state_dir.display();
    let (running, code) = match (home.usage, home.access) {
        (Use::Running { .. }, Access::Open) => {
            let is_online = is_online(config, &home).await;
            // It may only have been starting: it registers when its panel is up.
            if is_online == Some(true)
                && let Ok(mut agent) = RunningAgent::of(meant)
                && let Ok(status) = agent.status().await
            {
                return tell(args, &status);
            }
            let code = match is_online {
                Some(true) => 0,
                Some(false) => NOT_CONNECTED,
                None => NOT_KNOWN,
            };
            ("runs without a panel to ask (--panel off)", code)
        }
        (Use::Running { .. }, Access::Closed) => ("runs as a service of this machine", NOT_KNOWN),
        (Use::Unknown, Access::Closed) => ("is a service of this machine", NOT_KNOWN),
        (Use::Free, _) | (Use::Unknown, Access::Open) => ("does not run", NOT_RUNNING),
    };
    let is_running = code != NOT_RUNNING;
    // One that runs may have been told another name than this command.
    let name = (!is_running).then_some(&config.machine_name);
    if args.json {
        let phase = if is_running { "unknown" } else { "not_running" };
        let shown = json!({
            "schema": SCHEMA, "phase": phase, "agent_id": home.agent_id,
            "state_dir": home.state_dir, "machine_name": name,
        });
        print(&format!("{shown:#}\n"))?;
        return Ok(code);
    }
    let identity = match (home.agent_id, home.access) {
        (Some(id), _) => format!("{id} in {state_dir}"),
        (None, Access::Open) => format!("none yet in {state_dir}"),
        (None, Access::Closed) => format!("for administrators only, in {state_dir}"),
    };
    let next = match code {
        NOT_RUNNING => format!("Start it: {}\n", meant.start()),
        NOT_CONNECTED => {
            let doctor = meant.command("doctor");
            format!("The coordinator does not hear from it. Why: {doctor}\n")
        }
        NOT_KNOWN if home.access == Access::Open => {
            "Its coordinator is not known here: the settings file does not name it.\n".to_owned()
        }
        NOT_KNOWN => format!("Ask it: {}\n", meant.command("status")),
        _ => "The coordinator hears from it.\n".to_owned(),
    };
    let name = name.map(|name| format!("{name} · ")).unwrap_or_default();
    print(&format!(
        "Agent        {name}{running}\nIdentity     {identity}\n\n{next}"
    ))?;
    Ok(code)
}

/// Returns whether the coordinator hears from it; `None`: nobody says which coordinator.
async fn is_online(config: &Config, home: &Home) -> Option<bool> {
    let coordinator = config.coordinator.as_ref()?;
    let Some(id) = home.agent_id else {
        return Some(false);
    };
    let dial = config.dial.clone();
    let mut client = CoordinatorClient::new(coordinator.clone(), dial, config.timing.connect);
    let view = client.view(id).await;
    Some(view.is_some_and(|view| view.status == AgentStatus::Online))
}

fn exit_code(status: &StatusView) -> u8 {
    match status.phase {
        PhaseView::Connected if status.runtime.status == Some(RuntimeStatus::NotAnswering) => {
            NO_RUNTIME
        }
        PhaseView::Connected => 0,
        PhaseView::Unconfigured
        | PhaseView::Starting
        | PhaseView::Joining
        | PhaseView::Disconnected
        | PhaseView::Leaving
        | PhaseView::Stopped => NOT_CONNECTED,
    }
}

fn text(status: &StatusView) -> String {
    let StatusView {
        machine_name,
        pid,
        version,
        ..
    } = status;
    let is_well = exit_code(status) == 0 && status.unroutable.is_none();
    let why = if is_well {
        ""
    } else {
        "\nWhy: ollama-agent doctor\n"
    };
    format!(
        "Agent        {machine_name} · runs (process {pid}) · version {version}\n\
         Coordinator  {}\n\
         Runtime      {}\n\
         State        {}\n{why}",
        coordinator(status),
        runtime(&status.runtime),
        state(status),
    )
}

fn coordinator(status: &StatusView) -> String {
    let Some(url) = &status.coordinator else {
        return "none is given; open the settings panel: ollama-agent panel".to_owned();
    };
    let link = match status.link {
        LinkView::Direct => "direct",
        LinkView::TunnelUp => "tunnel",
        LinkView::TunnelDown => "tunnel is down",
    };
    let error = status.last_error.as_deref().unwrap_or("no answer yet");
    match status.phase {
        PhaseView::Connected => format!("connected to {url} ({link})"),
        PhaseView::Unconfigured | PhaseView::Starting => format!("{url}, not asked yet"),
        PhaseView::Joining | PhaseView::Disconnected => {
            format!(
                "not connected to {url} ({} tries): {error}",
                status.failures
            )
        }
        PhaseView::Leaving | PhaseView::Stopped => format!("leaving {url}"),
    }
}

fn runtime(runtime: &RuntimeStatusView) -> String {
    let url = &runtime.url;
    match (runtime.status, &runtime.error) {
        (Some(RuntimeStatus::Running), _) => {
            let kind = match runtime.kind {
                Some(RuntimeKind::Openai) => "OpenAI API",
                Some(RuntimeKind::Ollama) | None => "Ollama",
            };
            let version = runtime.version.as_deref().unwrap_or_default();
            let kind = format!("{kind} {version}");
            let models = match runtime.models.len() {
                1 => "1 model".to_owned(),
                count => format!("{count} models"),
            };
            let loaded = runtime.loaded_models.join(", ");
            let loaded = if loaded.is_empty() {
                "none".to_owned()
            } else {
                loaded
            };
            format!(
                "{} at {url} · {models} · in memory: {loaded}",
                kind.trim_end()
            )
        }
        (Some(RuntimeStatus::NotAnswering), Some(error)) => format!("{url}: {error}"),
        (Some(RuntimeStatus::NotAnswering), None) => format!("{url} does not answer"),
        (None, _) => format!("{url}, not asked yet"),
    }
}

fn state(status: &StatusView) -> String {
    if let Some(pause) = &status.paused {
        return match &pause.until {
            Some(until) => format!("paused until {until}"),
            None => "paused until: ollama-agent resume".to_owned(),
        };
    }
    match (status.phase, status.unroutable) {
        (PhaseView::Connected, None) => "ready: takes requests".to_owned(),
        (PhaseView::Connected, Some(UnroutableReason::RuntimeNotAnswering)) => {
            "no requests come: the runtime does not answer".to_owned()
        }
        (PhaseView::Connected, Some(reason)) => format!("no requests come: {reason}"),
        (
            PhaseView::Unconfigured
            | PhaseView::Starting
            | PhaseView::Joining
            | PhaseView::Disconnected
            | PhaseView::Leaving
            | PhaseView::Stopped,
            _,
        ) => "no requests come: not connected".to_owned(),
    }
}
