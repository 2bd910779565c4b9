//! `ollama-coordinator agents`: the machines as a table, or as JSON for programs.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use ollama_coordinator_common::base_url::{BaseUrl, InvalidBaseUrl};
use ollama_coordinator_common::http::{HttpClient, HttpError, HttpTimeouts};
use ollama_coordinator_common::protocol::view::AgentView;
use serde::Serialize;

use crate::config::listen::DEFAULT_PORT;

pub mod table;

const TIMEOUTS: HttpTimeouts = HttpTimeouts {
    connect: Duration::from_secs(3),
    answer: Duration::from_secs(10),
};
/// A list of the largest fleet with many models on each machine.
const ANSWER_LIMIT: usize = 64 * 1024 * 1024;
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
const CLEAR_SCREEN: &str = "\x1b[2J\x1b[H";

/// Which coordinator to ask, and how to show the answer.
#[derive(Debug, Clone, Args)]
pub struct AgentsArgs {
    /// URL of the coordinator
    #[arg(
        long,
        env = "OLLAMA_COORDINATOR_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:11400"
    )]
    pub url: String,
    /// How to show them
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
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
    /// JSON for programs.
    Json,
}

/// Why the agents could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum AgentsError {
    /// The URL cannot be used.
    #[error(transparent)]
    Url(#[from] InvalidBaseUrl),
    /// No coordinator answers.
    #[error(
        "no coordinator answers at {url}; start one with `ollama-coordinator`, or name it with --url"
    )]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// The layer that broke.
        #[source]
        source: HttpError,
    },
    /// Something else answers.
    #[error("{url} answers, but it is not an Ollama Coordinator (status {status})")]
    NotACoordinator {
        /// Where it was looked for.
        url: String,
        /// What it answered.
        status: u16,
    },
    /// The output cannot be written.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

impl AgentsError {
    /// Returns the exit code that the help text promises.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Url(_) => 2,
            Self::Unreachable { .. } | Self::NotACoordinator { .. } => 3,
            Self::Output(_) => 1,
        }
    }
}

/// What `-o json` prints. Fields are only ever added.
#[derive(Debug, Serialize)]
struct Listing<'a> {
    schema: &'static str,
    generated_at: DateTime<Utc>,
    agents: &'a [AgentView],
}

/// Shows the agents, once or until interrupted.
pub async fn run(args: AgentsArgs) -> Result<(), AgentsError> {
    let base = BaseUrl::parse(&args.url, DEFAULT_PORT)?;
    let mut client = HttpClient::new(base, TIMEOUTS).with_answer_limit(ANSWER_LIMIT);
    let mut outage = Outage::default();
    loop {
        match fetch(&mut client).await {
            Ok(agents) => match show(&agents, &args) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                shown => {
                    shown?;
                    outage = Outage::Over;
                }
            },
            Err(error) => outage = outage.go_on(error)?,
        }
        if !args.watch {
            return Ok(());
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
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
    fn go_on(self, error: AgentsError) -> Result<Self, AgentsError> {
        match self {
            Self::FromTheStart => return Err(error),
            Self::Over => writeln!(io::stderr(), "{error}; waiting for it")?,
            Self::Told => {}
        }
        Ok(Self::Told)
    }
}

async fn fetch(client: &mut HttpClient) -> Result<Vec<AgentView>, AgentsError> {
    let url = client.base().to_string();
    let answer = client.get("/api/agents").await;
    let answer = answer.map_err(|source| AgentsError::Unreachable {
        url: url.clone(),
        source,
    })?;
    let status = answer.status.as_u16();
    answer
        .json()
        .map_err(|_not_agents| AgentsError::NotACoordinator { url, status })
}

fn show(agents: &[AgentView], args: &AgentsArgs) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let now = Utc::now();
    let redraws = args.watch && out.is_terminal();
    let listing = Listing {
        schema: "ollama-coordinator.agents/1",
        generated_at: now,
        agents,
    };
    match args.output {
        Output::Table if !args.watch || redraws => {
            let clear = if redraws { CLEAR_SCREEN } else { "" };
            write!(out, "{clear}{}", table::render(agents, now))?;
        }
        Output::Json if !args.watch => {
            serde_json::to_writer_pretty(&mut out, &listing)?;
            writeln!(out)?;
        }
        Output::Table | Output::Json => {
            serde_json::to_writer(&mut out, &listing)?;
            writeln!(out)?;
        }
    }
    out.flush()
}
