//! Asks the agent that runs on this machine, by its panel, for commands.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use ollama_coordinator_common::base_url::{BaseUrl, InvalidBaseUrl};
use ollama_coordinator_common::http::{HttpClient, HttpError, HttpResponse, HttpTimeouts};
use serde::de::DeserializeOwned;

use crate::commands::Failure;
use crate::config::{ConfigError, Given};
use crate::panel::{Opener, PanelFile, PanelLink};
use crate::status::view::StatusView;

const TIMEOUTS: HttpTimeouts = HttpTimeouts {
    connect: Duration::from_secs(2),
    answer: Duration::from_secs(5),
};
/// `http://` without a port does not occur, so this is never dialled.
const NO_PORT: u16 = 80;

/// The agent that uses the state directory of this user, or of the one that was given.
#[derive(Debug)]
pub struct RunningAgent {
    client: HttpClient,
    file: PanelFile,
}

impl RunningAgent {
    /// Finds it by what it left in the state directory; nothing is asked yet.
    ///
    /// # Errors
    /// There is none, or the settings are unusable.
    pub fn find(given: &Given) -> Result<Self, LocalError> {
        let state_dir = given.resolve()?.config.state_dir;
        let file = match PanelFile::read(&state_dir) {
            Ok(Some(file)) => file,
            Ok(None) => return Err(LocalError::NotRunning { state_dir }),
            Err(source) => return Err(LocalError::Unreadable { state_dir, source }),
        };
        let base = BaseUrl::parse(&file.url, NO_PORT)?;
        let client = HttpClient::new(base, TIMEOUTS);
        Ok(Self { client, file })
    }

    /// Returns a link that opens the settings panel, once and soon.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub(crate) async fn panel_link(&mut self, opener: Opener) -> Result<String, LocalError> {
        let path = match opener {
            Opener::Own => "/ticket?for=own",
            Opener::Anybody => "/ticket?for=anybody",
        };
        let link: PanelLink = self.ask(Method::POST, path).await?;
        Ok(link.url)
    }

    /// Returns how it is.
    ///
    /// # Errors
    /// It does not answer, or refuses.
    pub async fn status(&mut self) -> Result<StatusView, LocalError> {
        self.ask(Method::GET, "/status").await
    }

    /// Has it take no requests, for a time or until [`Self::resume`]; returns how it is then.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn pause(&mut self, length: Option<Duration>) -> Result<StatusView, LocalError> {
        let path = match length {
            Some(length) => format!("/pause?for={}ms", length.as_millis()),
            None => "/pause".to_owned(),
        };
        self.ask(Method::POST, &path).await
    }

    /// Has it take requests again; returns how it is then.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn resume(&mut self) -> Result<StatusView, LocalError> {
        self.ask(Method::POST, "/resume").await
    }

    async fn ask<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
    ) -> Result<T, LocalError> {
        let bearer = Some(self.file.token.as_str());
        let answer = self.client.send(method, path, bearer, Bytes::new()).await;
        let answer = answer.map_err(|source| LocalError::Silent {
            url: self.file.url.clone(),
            source,
        })?;
        if answer.status.is_success() {
            return answer.json().map_err(|source| LocalError::Silent {
                url: self.file.url.clone(),
                source,
            });
        }
        Err(refused(&answer))
    }
}

fn refused(answer: &HttpResponse) -> LocalError {
    let said = String::from_utf8_lossy(&answer.body);
    LocalError::Refused {
        status: answer.status.as_u16(),
        detail: said.lines().next().unwrap_or_default().to_owned(),
    }
}

/// Why the agent on this machine cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The settings are unusable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No agent has left its address.
    #[error(
        "no agent with a panel uses {}; start one with `ollama-agent`, or name its --state-dir",
        .state_dir.display()
    )]
    NotRunning {
        /// Where it was looked for.
        state_dir: PathBuf,
    },
    /// The address that an agent left cannot be read.
    #[error("what the agent left in {} cannot be read", .state_dir.display())]
    Unreadable {
        /// Where it is.
        state_dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The address that an agent left is none.
    #[error(transparent)]
    Url(#[from] InvalidBaseUrl),
    /// The agent has gone, or does not answer as one.
    #[error("no agent answers at {url}")]
    Silent {
        /// Where it was asked.
        url: String,
        /// What came of it.
        source: HttpError,
    },
    /// The agent does not do it.
    #[error("the agent refuses (status {status}): {detail}")]
    Refused {
        /// The status it answered.
        status: u16,
        /// Its words.
        detail: String,
    },
}

impl From<LocalError> for Failure {
    fn from(error: LocalError) -> Self {
        let code = match error {
            LocalError::Config(_) => 2,
            LocalError::NotRunning { .. } | LocalError::Silent { .. } => 3,
            LocalError::Unreadable { .. } | LocalError::Url(_) | LocalError::Refused { .. } => 1,
        };
        Self::new(code, &error)
    }
}
