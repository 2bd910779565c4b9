//! `ollama-coordinator agents`: the machines as a table, or as JSON for programs.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use ollama_coordinator_common::protocol::view::AgentView;
use serde::Serialize;

use self::filter::{Filter, Order};
use self::table::Width;
use super::ask::{CommandError, UrlArgs, client, fetch};

pub mod filter;
pub mod table;

const WATCH_INTERVAL: Duration = Duration::from_secs(1);
const CLEAR_SCREEN: &str = "\x1b[2J\x1b[H";

/// Which coordinator to ask, and how to show the answer.
#[derive(Debug, Clone, Args)]
pub struct AgentsArgs {
    /// Which coordinator to ask.
    #[command(flatten)]
    pub coordinator: UrlArgs,
    /// How to show them
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
    /// Show only these, such as `state=offline`, `gpu~a6000` or `label.room=101`; separated by
    /// commas: those for which all is true
    #[arg(long, value_name = "FILTER", value_delimiter = ',')]
    pub filter: Vec<Filter>,
    /// The order in which to show them
    #[arg(long, value_enum, default_value_t)]
    pub sort: Order,
    /// Exit with 5 when one that is shown gets no requests
    #[arg(long, conflicts_with = "watch")]
    pub check: bool,
    /// Keep showing them: redraws a terminal, else writes one line of JSON a second
    #[arg(long)]
    pub watch: bool,
}

/// How to show agents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table for people.
    #[default]
    Table,
    /// The table with more of each agent.
    Wide,
    /// JSON for programs.
    Json,
    /// Values between tabs, the titles first.
    Tsv,
}

/// How the agents that were shown are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As they should be, or nobody asked.
    Fine,
    /// One gets no requests, and `--check` was given.
    Degraded,
}

/// What `-o json` prints. Fields are only ever added.
#[derive(Debug, Serialize)]
struct Listing<'a> {
    schema: &'static str,
    generated_at: DateTime<Utc>,
    agents: &'a [AgentView],
}

/// Shows the agents, once or until interrupted.
pub async fn run(args: AgentsArgs) -> Result<Outcome, CommandError> {
    let mut client = client(args.coordinator.base()?);
    let mut outage = Outage::default();
    loop {
        match fetch::<Vec<AgentView>>(&mut client, "/api/agents").await {
            Ok(agents) => {
                let agents = chosen(agents, &args);
                match show(&agents, &args) {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                        return Ok(Outcome::Fine);
                    }
                    shown => shown?,
                }
                outage = Outage::Over;
                if !args.watch {
                    return Ok(outcome(&agents, &args));
                }
            }
            Err(error) => outage = outage.go_on(error)?,
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

fn chosen(mut agents: Vec<AgentView>, args: &AgentsArgs) -> Vec<AgentView> {
    agents.retain(|agent| args.filter.iter().all(|filter| filter.matches(agent)));
    args.sort.sort(&mut agents);
    agents
}

fn outcome(agents: &[AgentView], args: &AgentsArgs) -> Outcome {
    if args.check && agents.iter().any(|agent| !agent.routable) {
        Outcome::Degraded
    } else {
        Outcome::Fine
    }
}

/// Whether the coordinator that is watched answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Outage {
    /// It has never answered.
    #[default]
    FromTheStart,
    /// It answers.
    Over,
    /// It answered before, and that it does not has been said.
    Told,
}

impl Outage {
    /// Says once that an answer is missing; without any answer so far, it is an error.
    fn go_on(self, error: CommandError) -> Result<Self, CommandError> {
        match self {
            Self::FromTheStart => return Err(error),
            Self::Over => writeln!(io::stderr(), "{error}; waiting for it")?,
            Self::Told => {}
        }
        Ok(Self::Told)
    }
}

fn show(agents: &[AgentView], args: &AgentsArgs) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let now = Utc::now();
    let redraws = args.watch && out.is_terminal();
    let clear = if redraws { CLEAR_SCREEN } else { "" };
    let listing = Listing {
        schema: "ollama-coordinator.agents/1",
        generated_at: now,
        agents,
    };
    let is_once = !args.watch;
    match args.output {
        Output::Table if is_once || redraws => {
            write!(out, "{clear}{}", text(agents, (args, Width::Normal), now))?;
        }
        Output::Wide if is_once || redraws => {
            write!(out, "{clear}{}", text(agents, (args, Width::Wide), now))?;
        }
        Output::Tsv if is_once => write!(out, "{}", table::tab_separated(agents, now))?,
        Output::Json if is_once => {
            serde_json::to_writer_pretty(&mut out, &listing)?;
            writeln!(out)?;
        }
        Output::Table | Output::Wide | Output::Tsv | Output::Json => {
            serde_json::to_writer(&mut out, &listing)?;
            writeln!(out)?;
        }
    }
    out.flush()
}

fn text(agents: &[AgentView], (args, width): (&AgentsArgs, Width), now: DateTime<Utc>) -> String {
    match (agents.is_empty(), args.filter.is_empty()) {
        (true, true) => {
            "No agents yet. On each machine, run: ollama-agent --coordinator URL\n".to_owned()
        }
        (true, false) => "No agent is so.\n".to_owned(),
        (false, _) => table::render(agents, width, now),
    }
}
