//! Asks a running coordinator over its own API.

use std::io;
use std::time::Duration;

use clap::Args;
use ollama_coordinator_common::base_url::{BaseUrl, InvalidBaseUrl};
use ollama_coordinator_common::http::{HttpClient, HttpError, HttpTimeouts};
use ollama_coordinator_common::service::installed::Installed;
use serde::de::DeserializeOwned;

use crate::config::listen::DEFAULT_PORT;

/// The binary's name, also that of its service.
pub const NAME: &str = "ollama-coordinator";
/// For each answer.
const TIMEOUTS: HttpTimeouts = HttpTimeouts {
    connect: Duration::from_secs(3),
    answer: Duration::from_secs(10),
};
/// A list of the largest fleet with many models on each machine.
const ANSWER_LIMIT: usize = 64 * 1024 * 1024;

/// Which coordinator to ask.
#[derive(Debug, Clone, Args)]
pub struct UrlArgs {
    /// URL of the coordinator
    #[arg(
        long,
        env = "OLLAMA_COORDINATOR_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:11400"
    )]
    pub url: String,
}

impl UrlArgs {
    /// Returns where the coordinator is.
    ///
    /// # Errors
    /// It is no usable URL.
    pub fn base(&self) -> Result<BaseUrl, InvalidBaseUrl> {
        BaseUrl::parse(&self.url, DEFAULT_PORT)
    }
}

/// Why a command could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The URL cannot be used.
    #[error(transparent)]
    Url(#[from] InvalidBaseUrl),
    /// No coordinator answers.
    #[error("no coordinator answers at {url}; start one with `{start}`, or name it with --url")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// What starts it.
        start: String,
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
    /// There is no such agent, or there are several.
    #[error("{0}")]
    NoSuchAgent(String),
    /// The output cannot be written.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

impl CommandError {
    /// Returns the exit code that the help text promises.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Url(_) => 2,
            Self::Unreachable { .. } | Self::NotACoordinator { .. } => 3,
            Self::NoSuchAgent(_) => 4,
            Self::Output(_) => 1,
        }
    }
}

/// Returns the service of this machine or user that is a coordinator.
pub(crate) fn service() -> Option<Installed> {
    Installed::find(NAME)
}

/// Returns what starts a coordinator here: the service, where one is installed.
fn start() -> String {
    let command = |service: Installed| service.command("service start");
    service().map_or_else(|| NAME.to_owned(), command)
}

/// Makes a client of the coordinator; nothing is dialled yet.
pub(crate) fn client(base: BaseUrl) -> HttpClient {
    HttpClient::new(base, TIMEOUTS).with_answer_limit(ANSWER_LIMIT)
}

/// Asks for a document.
pub(crate) async fn fetch<T: DeserializeOwned>(
    client: &mut HttpClient,
    path: &str,
) -> Result<T, CommandError> {
    let url = client.base().to_string();
    let answer = client.get(path).await;
    let answer = answer.map_err(|source| CommandError::Unreachable {
        url: url.clone(),
        start: start(),
        source,
    })?;
    let status = answer.status.as_u16();
    answer
        .json()
        .map_err(|_another_document| CommandError::NotACoordinator { url, status })
}
