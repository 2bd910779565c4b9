//! Which agent on this machine commands mean, and asking it, by its panel.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use ollama_coordinator_common::base_url::{BaseUrl, InvalidBaseUrl};
use ollama_coordinator_common::http::{HttpClient, HttpError, HttpResponse, HttpTimeouts};
use ollama_coordinator_common::service::installed::{Activity, Installed, Owner};
use serde::de::DeserializeOwned;

use crate::commands::Failure;
use crate::config::{ConfigError, Given, Origin, Resolved, Setting};
use crate::instance::{Instance, Use};
use crate::panel::{Opener, PanelFile, PanelLink};
use crate::service;
use crate::status::view::StatusView;

const TIMEOUTS: HttpTimeouts = HttpTimeouts {
    connect: Duration::from_secs(2),
    answer: Duration::from_secs(5),
};
/// `http://` without a port does not occur, so this is never dialled.
const NO_PORT: u16 = 80;

/// The agent that is meant: the one of the state directory that was named; else this user's own, if
/// it runs or nobody else's is there; else that of the machine's service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meant {
    /// Where it keeps its state.
    pub state_dir: PathBuf,
    /// The service that starts it.
    pub service: Option<Installed>,
}

impl Meant {
    /// Looks what is installed and what runs.
    pub fn by(resolved: &Resolved) -> Self {
        let own = resolved.config.state_dir.clone();
        if *resolved.origin(Setting::StateDir) != Origin::Default {
            return Self {
                state_dir: own,
                service: None,
            };
        }
        let usage = Instance::look(&own);
        Self::of(own, usage, service::installed())
    }

    fn of(own: PathBuf, usage: Use, service: Option<Installed>) -> Self {
        match (usage, service) {
            (Use::Free | Use::Unknown, Some(service)) => Self {
                state_dir: match &service.owner {
                    Owner::User => own,
                    Owner::Machine { dir, .. } => dir.clone(),
                },
                service: Some(service),
            },
            (Use::Running { .. }, Some(service)) if service.owner == Owner::User => Self {
                state_dir: own,
                service: Some(service),
            },
            (_, Some(_) | None) => Self {
                state_dir: own,
                service: None,
            },
        }
    }

    /// Returns whether it is the machine's, and not stopped: then this user's would be a second one.
    pub async fn is_the_machines(&self) -> bool {
        match &self.service {
            Some(service) if service.owner != Owner::User => {
                service.activity().await != Activity::Stopped
            }
            Some(_) | None => false,
        }
    }

    /// Returns the words that start it.
    pub fn start(&self) -> String {
        match &self.service {
            Some(service) => service.command("service start"),
            None => "ollama-agent".to_owned(),
        }
    }

    /// Returns the words that have its owner run a command.
    pub fn command(&self, words: &str) -> String {
        match &self.service {
            Some(service) => service.command(words),
            None => format!("ollama-agent {words}"),
        }
    }
}

/// An agent that has said where it can be asked.
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
        Self::of(&Meant::by(&given.resolve()?))
    }

    /// Finds the one that is meant; nothing is asked yet.
    ///
    /// # Errors
    /// It has left nothing.
    pub fn of(meant: &Meant) -> Result<Self, LocalError> {
        let file = match (PanelFile::read(&meant.state_dir), &meant.service) {
            (Ok(Some(file)), _) => file,
            (Ok(None), _) if matches!(Instance::look(&meant.state_dir), Use::Running { .. }) => {
                return Err(LocalError::NoPanel {
                    state_dir: meant.state_dir.clone(),
                });
            }
            (Ok(None), _) => {
                return Err(LocalError::NotRunning {
                    state_dir: meant.state_dir.clone(),
                    start: meant.start(),
                });
            }
            (Err(error), Some(service)) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(LocalError::Closed {
                    ask: service.command("status"),
                });
            }
            (Err(source), _) => {
                return Err(LocalError::Unreadable {
                    state_dir: meant.state_dir.clone(),
                    source,
                });
            }
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
    let detail = match said.lines().next().unwrap_or_default() {
        page if page.starts_with('<') => "it does not know the token in panel.json",
        words => words,
    };
    LocalError::Refused {
        status: answer.status.as_u16(),
        detail: detail.to_owned(),
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
        "no agent with a panel uses {}; start it with `{start}`, or name its --state-dir",
        .state_dir.display()
    )]
    NotRunning {
        /// Where it was looked for.
        state_dir: PathBuf,
        /// What starts it.
        start: String,
    },
    /// One runs, and has none.
    #[error(
        "the agent that uses {} cannot be asked: it has no panel (--panel off), or is just starting",
        .state_dir.display()
    )]
    NoPanel {
        /// Its state directory.
        state_dir: PathBuf,
    },
    /// It is a service of the machine.
    #[error(
        "the agent of this machine is a service, which only an administrator may ask, as in `{ask}`"
    )]
    Closed {
        /// How it is asked.
        ask: String,
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
            LocalError::Unreadable { .. }
            | LocalError::Closed { .. }
            | LocalError::NoPanel { .. }
            | LocalError::Url(_)
            | LocalError::Refused { .. } => 1,
        };
        Self::new(code, &error)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const RUNNING: Use = Use::Running { pid: Some(4711) };

    fn service(owner: Owner) -> Installed {
        Installed {
            name: "ollama-agent",
            owner,
            entry: "/unit".to_owned(),
        }
    }

    fn machines() -> Installed {
        service(Owner::Machine {
            account: "ollama-agent",
            dir: PathBuf::from("/var/lib/ollama-agent"),
        })
    }

    #[rstest]
    #[case::nobody_else(Use::Free, None, "/own", "ollama-agent")]
    #[case::own_service(
        Use::Free,
        Some(service(Owner::User)),
        "/own",
        "ollama-agent service start"
    )]
    #[case::own_service_runs(
        RUNNING,
        Some(service(Owner::User)),
        "/own",
        "ollama-agent service start"
    )]
    #[case::own_beside_the_machines(RUNNING, Some(machines()), "/own", "ollama-agent")]
    fn own_agent_is_meant(
        #[case] usage: Use,
        #[case] service: Option<Installed>,
        #[case] state_dir: &str,
        #[case] start: &str,
    ) {
        let meant = Meant::of(PathBuf::from("/own"), usage, service);

        assert_eq!(meant.state_dir, PathBuf::from(state_dir));
        assert_eq!(meant.start(), start);
    }

    #[rstest]
    fn machines_service_is_meant_where_no_agent_of_the_user_runs(
        #[values(Use::Free, Use::Unknown)] usage: Use,
    ) {
        let meant = Meant::of(PathBuf::from("/own"), usage, Some(machines()));

        assert_eq!(meant.state_dir, PathBuf::from("/var/lib/ollama-agent"));
        assert!(meant.start().ends_with("service start"), "{meant:?}");
    }
}
