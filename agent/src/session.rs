//! Performs what the session's rules decide, and tells people what became of it.

mod clock;
mod conversation;
pub mod ledger;
pub mod machine;
mod narrator;
pub mod state;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ollama_coordinator_common::backoff::Backoff;
use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::protocol::pause::Paused;
use ollama_coordinator_common::protocol::runtime::RuntimeReport;
use ollama_coordinator_common::protocol::system::Metrics;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::clock::Clocks;
use self::conversation::{Beat, Conversation, News};
use self::machine::{Rules, step};
use self::narrator::Narrator;
use self::state::{Action, Connection, Ending, Event, Failure, Joining, LeaseHeld, Session};
use crate::app::AgentError;
use crate::config::Config;
use crate::coordinator::CoordinatorError;
use crate::identity::Identity;
use crate::pause::Pause;
use crate::status::Phase;
use crate::status::writer::StatusWriter;
use crate::tunnel::Standing;

/// How often the clocks are compared while there is nothing else to do.
const CLOCK_PERIOD: Duration = Duration::from_secs(5);

/// No setting makes the agent retry without a pause.
const SHORTEST_RETRY: Duration = Duration::from_millis(1);

/// What the rest of the agent knows and the session passes on.
#[derive(Debug)]
pub(crate) struct Sources {
    /// The runtime as last seen; `None` before the first look.
    pub(crate) runtime: watch::Receiver<Option<RuntimeReport>>,
    /// The machine's load; `None` before the first sample.
    pub(crate) load: watch::Receiver<Option<Metrics>>,
    /// Whether this machine takes requests.
    pub(crate) pauses: watch::Receiver<Option<Pause>>,
    /// The tunnel wants the lease to be renewed at once.
    pub(crate) renewal: Arc<Notify>,
    /// Where the session says to the tunnel how it stands.
    pub(crate) standing: watch::Sender<Option<Standing>>,
    /// Where the session says how it is.
    pub(crate) status: StatusWriter,
    /// When to say goodbye.
    pub(crate) leave: CancellationToken,
}

/// Registers and stays registered until asked to stop.
#[derive(Debug)]
pub(crate) struct SessionLoop {
    rules: Rules,
    goodbye: Duration,
    first_report: Duration,
    conversation: Conversation,
    narrator: Narrator,
    /// Grows when connections of before may lead nowhere.
    generation: u64,
    sources: Sources,
}

impl SessionLoop {
    pub(crate) fn new(
        config: &Config,
        coordinator: &BaseUrl,
        identity: Identity,
        sources: Sources,
    ) -> Self {
        let longest = config.register_retry_interval.max(SHORTEST_RETRY);
        let first = config.timing.first_retry.clamp(SHORTEST_RETRY, longest);
        let backoff = Backoff::new(first, longest).expect("the bounds are in order");
        Self {
            rules: Rules {
                backoff,
                refused_retry: config.timing.refused_retry,
                max_attempts: NonZeroU32::new(config.register_max_attempts),
                longest_interval: config.heartbeat_interval,
            },
            goodbye: config.timing.goodbye,
            first_report: config.timing.first_report,
            conversation: Conversation::new(config, coordinator, identity),
            narrator: Narrator::new(config, coordinator),
            generation: 0,
            sources,
        }
    }

    /// Runs until it is to leave or the attempts are used up.
    pub(crate) async fn run(mut self) -> Result<(), AgentError> {
        let leave = self.sources.leave.clone();
        tokio::select! {
            biased;
            () = leave.cancelled() => {}
            () = self.look_around() => {}
        }
        let mut rng = SmallRng::from_os_rng();
        let mut session = Session::Unregistered(Joining::start(Instant::now(), LeaseHeld::No));
        let mut event = if leave.is_cancelled() {
            Event::StopRequested
        } else {
            Event::Due
        };
        loop {
            let now = Instant::now();
            let (next, action) = step(session, event, now, &self.rules, &mut rng);
            self.narrator.follow(&next, &action, now);
            self.publish(&next);
            session = next;
            event = match action {
                Action::Exit(Ending::Stopped) => return Ok(()),
                Action::Exit(Ending::AttemptsUsed(attempts)) => {
                    let last_error = self.narrator.last_error().unwrap_or_default().to_owned();
                    return Err(AgentError::AttemptsUsed {
                        attempts,
                        last_error,
                    });
                }
                Action::Deregister => self.say_goodbye().await,
                Action::WaitUntil(at) => self.wait(at, &session).await,
                Action::Register(_) | Action::Heartbeat { .. } | Action::ReplaceIdentity => {
                    tokio::select! {
                        biased;
                        () = leave.cancelled() => {
                            // The answer to the abandoned message must not be taken for another's.
                            self.conversation.disconnect();
                            Event::StopRequested
                        }
                        event = self.perform(action) => event,
                    }
                }
            };
            if matches!(event, Event::Granted(_) | Event::Woke) {
                self.generation += 1;
            }
        }
    }

    /// Waits for what the first registration should say: a look at the runtime and the machine.
    async fn look_around(&mut self) {
        let Self {
            sources,
            conversation,
            first_report,
            ..
        } = self;
        let runtime = &mut sources.runtime;
        let first_look = async { runtime.wait_for(Option::is_some).await.is_ok() };
        let (looked, ()) = tokio::join!(
            tokio::time::timeout(*first_report, first_look),
            conversation.describe_machine(),
        );
        if looked.is_err() {
            tracing::debug!("Runtime has not answered yet");
        }
    }

    async fn perform(&mut self, action: Action) -> Event {
        match action {
            Action::Register(connection) => {
                self.prepare(connection);
                let report = self.sources.runtime.borrow_and_update().clone();
                let paused = self.paused();
                match self.conversation.register(report, paused).await {
                    Ok(terms) => {
                        self.narrator.clock(self.conversation.clock_ahead());
                        Event::Granted(terms)
                    }
                    Err(error) => self.failed(&error),
                }
            }
            Action::Heartbeat {
                connection,
                timeout,
            } => {
                self.prepare(connection);
                let report = self.sources.runtime.borrow_and_update().clone();
                let is_fresh = self.sources.load.has_changed().unwrap_or(false);
                let metrics = self.sources.load.borrow().clone().filter(|_| is_fresh);
                let news = News {
                    report,
                    metrics,
                    paused: self.paused(),
                };
                match self.conversation.heartbeat(news, timeout).await {
                    Ok(Beat::Renewed {
                        terms,
                        coordinator,
                        unroutable,
                    }) => {
                        self.sources.load.mark_unchanged();
                        self.narrator.routable(unroutable);
                        Event::Renewed { terms, coordinator }
                    }
                    Ok(Beat::AddressChanged) => Event::AddressChanged,
                    Err(error) => self.failed(&error),
                }
            }
            Action::ReplaceIdentity => {
                self.conversation.replace_identity().await;
                Event::IdentityReplaced
            }
            Action::WaitUntil(_) | Action::Deregister | Action::Exit(_) => Event::Due,
        }
    }

    fn paused(&mut self) -> Option<Paused> {
        let pause = *self.sources.pauses.borrow_and_update();
        pause.map(|pause| pause.notice(SystemTime::now()))
    }

    fn prepare(&mut self, connection: Connection) {
        if connection == Connection::Fresh {
            self.conversation.disconnect();
        }
    }

    fn failed(&mut self, error: &CoordinatorError) -> Event {
        self.narrator.failed(error);
        Event::Failed(match error {
            CoordinatorError::Unreachable(_) | CoordinatorError::NotACoordinator(_) => {
                Failure::Unreachable
            }
            CoordinatorError::Busy { retry_after, .. } => Failure::Busy {
                retry_after: *retry_after,
            },
            CoordinatorError::UnknownAgent => Failure::UnknownAgent,
            CoordinatorError::DuplicateIdentity => Failure::DuplicateIdentity,
            CoordinatorError::WrongSecret
            | CoordinatorError::Invalid { .. }
            | CoordinatorError::TooOld { .. }
            | CoordinatorError::NotUpgraded => Failure::Refused,
        })
    }

    /// Waits until `at`, or until something happens that cannot wait.
    async fn wait(&mut self, at: Instant, session: &Session) -> Event {
        let leave = self.sources.leave.clone();
        let tells_news = matches!(session, Session::Registered(r) if r.failures == 0);
        let mut clocks = Clocks::now();
        loop {
            let wake = at.min(Instant::now() + CLOCK_PERIOD);
            tokio::select! {
                biased;
                () = leave.cancelled() => return Event::StopRequested,
                () = self.conversation.news(&mut self.sources.runtime), if tells_news => {
                    return Event::News;
                }
                () = self.sources.renewal.notified(), if tells_news => return Event::News,
                Ok(()) = self.sources.pauses.changed(), if tells_news => return Event::News,
                () = tokio::time::sleep_until(wake) => {}
            }
            if clocks.have_diverged() {
                tracing::info!("The machine slept or its clock was set, renewing at once");
                return Event::Woke;
            }
            if Instant::now() >= at {
                return Event::Due;
            }
        }
    }

    async fn say_goodbye(&mut self) -> Event {
        match tokio::time::timeout(self.goodbye, self.conversation.say_goodbye(self.goodbye)).await
        {
            Ok(Ok(())) => tracing::info!("Said goodbye to the coordinator"),
            Ok(Err(error)) => {
                let error = crate::error_chain(&error);
                tracing::debug!(error, "Could not say goodbye");
            }
            Err(_elapsed) => tracing::debug!("There was no time to say goodbye"),
        }
        Event::Left
    }

    fn publish(&self, session: &Session) {
        self.publish_standing(session);
        let phase = match session {
            Session::Unregistered(joining) | Session::Registering(joining) => Phase::Joining {
                attempts: joining.attempts,
            },
            Session::Registered(registered) if registered.failures > 0 => Phase::Disconnected {
                failures: registered.failures,
            },
            Session::Registered(_) => Phase::Connected {
                unroutable: self.narrator.unroutable(),
            },
            Session::Leaving => Phase::Leaving,
            Session::Stopped => Phase::Stopped,
        };
        let agent_id = Some(self.conversation.agent_id());
        let last_error = self.narrator.last_error();
        self.sources.status.write(|status| {
            let is_same = status.phase == phase
                && status.agent_id == agent_id
                && status.last_error.as_deref() == last_error;
            status.phase = phase;
            status.agent_id = agent_id;
            status.last_error = last_error.map(str::to_owned);
            !is_same
        });
    }

    fn publish_standing(&self, session: &Session) {
        let standing = match session {
            Session::Registered(registered) => {
                let (agent_id, secret, session) = self.conversation.speaker();
                Some(Standing {
                    agent_id,
                    secret: secret.clone(),
                    session,
                    generation: self.generation,
                    renewed_at: registered.renewed_at,
                    lease_ends: registered.renewed_at + registered.lease.ttl,
                })
            }
            Session::Unregistered(_) => None,
            // What runs goes on until it is known what comes of it.
            Session::Registering(_) | Session::Leaving | Session::Stopped => return,
        };
        self.sources.standing.send_replace(standing);
    }
}
