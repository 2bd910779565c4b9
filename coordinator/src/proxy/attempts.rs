//! One agent after another, until one answers: acquire, forward, and judge what came back.

use std::time::Duration;

use axum::http::{HeaderValue, Response};
use ollama_coordinator_common::id::AgentId;
use tokio::time::{Instant, MissedTickBehavior};

use super::body::ProxyBody;
use super::error::{Dialect, LastWord, ProxyError};
use super::forward::{self, Answer, ForwardError};
use super::headers::strip_response;
use super::relay::{Account, RelayBody};
use super::route::Inference;
use super::story::Story;
use super::target::Target;
use super::upstream::Sending;
use super::{AGENT_HEADER, Proxy, refuse};
use crate::balancer::permit::{Failure, Outcome, Permit};
use crate::balancer::{AcquireError, Acquired, Waiter, Wanted};

/// The most agents that are tried for one request, those included that cannot be connected to.
const MAX_ATTEMPTS: usize = 16;
/// No further agent is tried when so much time has gone by without a connection.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long it is tried again when every agent has just gone: a runtime that restarts is back soon.
const OUTAGE: Duration = Duration::from_secs(3);
/// The pause before it is tried again then.
const PAUSE: Duration = Duration::from_millis(250);
/// How often a request that an agent has seen is sent to another one.
const MAX_RETRIES: usize = 2;
/// How often the place in the queue is noted.
const NOTE_PLACE: Duration = Duration::from_secs(1);

/// What a client asks of a model.
pub(super) struct Asked {
    /// The route.
    pub(super) inference: Inference,
    /// The request.
    pub(super) target: Target,
    /// Who asks, for fairness.
    pub(super) client: u64,
}

/// What has been tried for one request.
struct Tried {
    agents: Vec<AgentId>,
    attempts: usize,
    since: Instant,
    retries: usize,
    /// The next try has to be paid for.
    owes_retry: bool,
    /// What the last agent that answered said, in case nobody says better.
    refusal: Option<AgentAnswer>,
    /// Why the last agent did not answer.
    failure: Option<ForwardError>,
    /// Since when all agents are gone.
    gone_since: Option<Instant>,
}

/// What comes after an attempt.
#[expect(
    clippy::large_enum_variant,
    reason = "it lives for a moment, on the stack"
)]
enum Step {
    /// The answer, what it says of the agent, and the slot it takes.
    Answered(Answer, Option<Failure>, Permit),
    /// Another agent may do it.
    GoOn,
    /// Nobody is tried any more.
    GiveUp,
}

/// An answer, whose it is, and what it says of that agent if another one may do better.
struct AgentAnswer {
    answer: Answer,
    agent: AgentId,
    failure: Option<Failure>,
}

impl Proxy {
    /// Has one agent after another try, and relays the answer of the first that does it.
    pub(super) async fn attempts(&self, asked: Asked, mut story: Story) -> Response<ProxyBody> {
        self.0.budget.deposit();
        let Asked {
            inference,
            ref target,
            client,
        } = asked;
        let mut tried = Tried::nobody();
        loop {
            let wanted = Wanted {
                model: &target.peek.model,
                ollama_only: inference.ollama_only,
                only: &target.only,
                tried: &tried.agents,
                client,
                prefix: target.peek.prefix,
            };
            let permit = match self.acquire(wanted, &tried, &mut story).await {
                Ok(permit) if self.may_use(&mut tried) => permit,
                Ok(_permit) => {
                    let error = AcquireError::Exhausted;
                    return self.give_up(&asked, tried, error, story);
                }
                Err(error) if tried.may_wait(error) => {
                    tokio::time::sleep(PAUSE).await;
                    tried.agents.clear();
                    continue;
                }
                Err(error) => return self.give_up(&asked, tried, error, story),
            };
            let step = self.try_agent(&asked, permit, &mut tried, &mut story);
            match step.await {
                Step::Answered(answer, failure, permit) => {
                    let agent = permit.candidate().id;
                    let answered = AgentAnswer {
                        answer,
                        agent,
                        failure,
                    };
                    return self.relay(inference.dialect, answered, Some(permit), story);
                }
                Step::GoOn => {}
                Step::GiveUp => {
                    let error = AcquireError::Exhausted;
                    return self.give_up(&asked, tried, error, story);
                }
            }
        }
    }

    /// Sends the request to one agent and judges what comes of it.
    async fn try_agent(
        &self,
        asked: &Asked,
        mut permit: Permit,
        tried: &mut Tried,
        story: &mut Story,
    ) -> Step {
        let Asked {
            inference, target, ..
        } = asked;
        let inference = *inference;
        story.attempt(&mut permit);
        tried.attempts += 1;
        let agent = permit.candidate().id;
        let link = permit.candidate().link;
        let told = &*story;
        let make = || {
            let mut request = target.request();
            told.mark(request.headers_mut());
            request
        };
        let sending = if inference.is_repeatable {
            Sending::Repeatable(&make)
        } else {
            Sending::Once(Box::new(make()))
        };
        let patience = self.0.settings.first_byte_timeout;
        let sent = forward::attempt(&self.0.upstream, link, sending, patience).await;
        if sent.is_ok() {
            permit.answered();
        }
        match sent {
            Ok(answer) => match forward::failure_in(&answer) {
                Some(failure) if tried.may_retry(inference) => {
                    permit.settle(Outcome::Failure(failure), None);
                    story.attempt_failed(Outcome::Failure(failure));
                    tried.agents.push(agent);
                    tried.refusal = Some(AgentAnswer {
                        answer,
                        agent,
                        failure: Some(failure),
                    });
                    Step::GoOn
                }
                failure => Step::Answered(answer, failure, permit),
            },
            Err(error) => {
                self.note_failure(permit, &error, story);
                tried.agents.push(agent);
                let goes_on = tried.may_go_on(inference, &error);
                tried.failure = Some(error);
                if goes_on { Step::GoOn } else { Step::GiveUp }
            }
        }
    }

    async fn acquire(
        &self,
        wanted: Wanted<'_>,
        tried: &Tried,
        story: &mut Story,
    ) -> Result<Permit, AcquireError> {
        let model = wanted.model;
        match self.0.balancer.acquire(wanted)? {
            Acquired::Ready(permit) => Ok(permit),
            Acquired::Queued(_) if tried.has_an_answer() => Err(AcquireError::Exhausted),
            Acquired::Queued(waiter) => {
                let permit = wait_for_turn(waiter, story).await;
                permit.map_err(|error| self.0.balancer.in_full(error, model))
            }
        }
    }

    /// Relays an answer to the client.
    fn relay(
        &self,
        dialect: Dialect,
        answered: AgentAnswer,
        permit: Option<Permit>,
        mut story: Story,
    ) -> Response<ProxyBody> {
        let AgentAnswer {
            mut answer,
            agent,
            failure,
        } = answered;
        let status = answer.head.status;
        story.answered(status, Some(agent));
        let mut response = Response::new(ProxyBody::Whole(None));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let last_word = LastWord::of_stream(&answer.head.headers, dialect);
        *headers = std::mem::take(&mut answer.head.headers);
        strip_response(headers);
        let agent = HeaderValue::from_str(agent.encode(&mut [0; 36]));
        headers.insert(AGENT_HEADER, agent.expect("a UUID is a header value"));
        story.describe(headers);
        let account = Account {
            permit,
            failure,
            story,
        };
        let body = RelayBody::new(answer, last_word, self.0.settings.idle_timeout, account);
        *response.body_mut() = ProxyBody::Relay(Box::new(body));
        response
    }

    /// Tells the client what the agents said that were tried, or why none can be.
    fn give_up(
        &self,
        asked: &Asked,
        tried: Tried,
        error: AcquireError,
        story: Story,
    ) -> Response<ProxyBody> {
        let dialect = asked.inference.dialect;
        if let Some(refusal) = tried.refusal {
            return self.relay(dialect, refusal, None, story);
        }
        let error = match (error, tried.failure) {
            (AcquireError::Exhausted, Some(ForwardError::NotConnected(_))) => {
                ProxyError::Unreachable
            }
            (AcquireError::Exhausted, Some(failure)) => ProxyError::Failed(failure),
            (error, _) => ProxyError::NoAgent {
                model: asked.target.peek.model.clone(),
                error,
            },
        };
        refuse(dialect, &error, story)
    }

    fn note_failure(&self, permit: Permit, error: &ForwardError, story: &mut Story) {
        let failure = error.failure();
        tracing::warn!(
            agent.name = &*permit.candidate().name,
            error = error as &dyn std::error::Error,
            "Agent did not answer"
        );
        if failure == Failure::NotConnected {
            self.0.registry.doubt_reach(permit.candidate().id);
        }
        permit.settle(Outcome::Failure(failure), None);
        story.attempt_failed(Outcome::Failure(failure));
    }

    /// Takes what another try of a request costs that an agent has seen, now that there is an agent
    /// for it; returns whether there is enough.
    fn may_use(&self, tried: &mut Tried) -> bool {
        !std::mem::take(&mut tried.owes_retry) || self.0.budget.withdraw()
    }
}

impl Tried {
    fn nobody() -> Self {
        Self {
            agents: Vec::new(),
            attempts: 0,
            since: Instant::now(),
            retries: 0,
            owes_retry: false,
            refusal: None,
            failure: None,
            gone_since: None,
        }
    }

    /// Decides whether another agent is tried after one did not answer.
    fn may_go_on(&mut self, inference: Inference, error: &ForwardError) -> bool {
        match error {
            ForwardError::NotConnected(_) => {
                self.attempts < MAX_ATTEMPTS && self.since.elapsed() < CONNECT_TIME
            }
            ForwardError::Broken(_) | ForwardError::Silent(_) => self.may_retry(inference),
        }
    }

    /// Decides whether a request that an agent has seen may be sent to another one.
    fn may_retry(&mut self, inference: Inference) -> bool {
        let may =
            inference.is_repeatable && self.retries < MAX_RETRIES && self.attempts < MAX_ATTEMPTS;
        self.retries += usize::from(may);
        self.owes_retry |= may;
        may
    }

    /// Returns whether an agent may be back soon: all are gone, one of them just now.
    fn may_wait(&mut self, error: AcquireError) -> bool {
        let all_are_gone = matches!(
            error,
            AcquireError::Exhausted | AcquireError::NotRoutable | AcquireError::Paused
        );
        let just_now = match self.failure {
            Some(ForwardError::NotConnected(_) | ForwardError::Broken(_)) => self.refusal.is_none(),
            Some(ForwardError::Silent(_)) | None => false,
        };
        let is_expected = error == AcquireError::Reconnecting || all_are_gone && just_now;
        is_expected && self.gone_since.get_or_insert_with(Instant::now).elapsed() < OUTAGE
    }

    /// Returns whether some agent's answer is better than waiting for another agent: one that does
    /// not have the model says nothing.
    fn has_an_answer(&self) -> bool {
        let says_nothing = [Some(Failure::NoModel), Some(Failure::NoRoute)];
        let refusal = self.refusal.as_ref();
        refusal.is_some_and(|refusal| !says_nothing.contains(&refusal.failure))
    }
}

async fn wait_for_turn(mut waiter: Waiter, story: &mut Story) -> Result<Permit, AcquireError> {
    let mut notes = tokio::time::interval(NOTE_PLACE);
    notes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    story.queued(waiter.position());
    loop {
        tokio::select! {
            biased;
            permit = &mut waiter => return permit,
            _ = notes.tick() => story.queued(waiter.position()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn agent_that_is_gone_is_waited_for_however_long_the_request_has_waited_before() {
        let mut tried = Tried::nobody();
        tokio::time::advance(2 * OUTAGE).await;

        assert!(!tried.may_wait(AcquireError::NotRoutable));
        assert!(tried.may_wait(AcquireError::Reconnecting));

        tokio::time::advance(OUTAGE).await;
        assert!(!tried.may_wait(AcquireError::Reconnecting));
    }
}
