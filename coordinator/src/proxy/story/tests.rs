//! Stories from beginning to end, on a clock that the test moves.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::request::{RequestOutcome, RequestState, RequestView};

use super::*;
use crate::balancer::permit::Failure;
use crate::registry::agent::{Candidate, Link};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const STEP: Duration = Duration::from_millis(100);

#[tokio::test(start_paused = true)]
async fn times_are_those_of_the_steps() {
    let book = Storybook::for_tests();
    let mut story = asking(&book);
    tokio::time::advance(STEP).await;
    story.queued(2);
    tokio::time::advance(STEP).await;
    story.queued(1);
    let waiting = only(&book);
    tokio::time::advance(STEP).await;
    story.attempt(&mut permit());
    tokio::time::advance(STEP).await;
    story.attempt_failed(Outcome::Failure(Failure::Busy));
    story.attempt(&mut permit());
    tokio::time::advance(STEP).await;
    story.answered(StatusCode::OK, None);
    let mut headers = HeaderMap::new();
    story.describe(&mut headers);
    tokio::time::advance(STEP).await;
    story.ended(Outcome::Success, 5, 2, [b"", b"{\"eval_count\":7}"]);

    let seen = only(&book);
    assert_eq!(
        (waiting.state, waiting.position),
        (RequestState::Queued, Some(1))
    );
    assert_eq!(headers[REQUEST_HEADER], seen.id);
    assert_eq!(headers[ATTEMPTS_HEADER], "2");
    assert_eq!(headers[TIMING_HEADER], "queue;dur=200.0, attempt;dur=100.0");
    assert_eq!(
        (seen.queue_ms, seen.first_byte_ms, seen.duration_ms),
        (200, Some(500), 600)
    );
    let attempts = seen.attempts.iter();
    let attempts: Vec<_> = attempts
        .map(|a| (a.started_after_ms, a.duration_ms))
        .collect();
    assert_eq!(attempts, [(300, 100), (400, 200)]);
    assert_eq!(seen.attempts[0].outcome.as_deref(), Some("busy"));
    assert_eq!(seen.completion_tokens, Some(7));
}

#[tokio::test]
async fn story_without_an_end_is_that_of_a_client_that_left() {
    let book = Storybook::for_tests();
    let mut story = asking(&book);
    story.attempt(&mut permit());

    drop(story);

    let seen = only(&book);
    assert_eq!(seen.outcome, Some(RequestOutcome::Cancelled));
    assert_eq!(seen.attempts[0].outcome.as_deref(), Some("cancelled"));
    assert_eq!((seen.status, seen.bytes), (None, None));
}

#[tokio::test]
async fn answer_of_an_agent_that_was_given_up_counts_as_one_attempt() {
    let book = Storybook::for_tests();
    let mut story = asking(&book);
    story.attempt(&mut permit());
    story.attempt_failed(Outcome::Failure(Failure::Status(500)));
    story.answered(StatusCode::INTERNAL_SERVER_ERROR, None);

    story.ended(Outcome::Failure(Failure::Status(500)), 5, 1, [b"", b""]);

    let counted = book.0.figures.agents();
    let made = counted.iter().flat_map(|(_, agent)| agent.attempts());
    assert_eq!(made.map(|(_, made, _)| made).sum::<u64>(), 1);
    assert_eq!(only(&book).attempts[0].failure_status, Some(500));
}

#[tokio::test]
async fn figures_of_more_models_and_agents_than_are_counted_apart_go_to_other() {
    let book = Storybook::for_tests();
    for number in 0..2_000 {
        let mut story = book.begin("POST", "/api/chat", &HeaderMap::new(), CLIENT);
        story.asks_for(Dialect::Ollama, &format!("m{number}:latest"), true);
        story.attempt(&mut permit());
        story.answered(StatusCode::OK, None);
        story.ended(Outcome::Success, 5, 1, [b"", b""]);
    }

    let models = book.0.figures.models();
    let agents = book.0.figures.agents();
    let pairs = models.iter().flat_map(|model| model.pairs());
    let requests = pairs.flat_map(|(_, pair)| pair.requests().collect::<Vec<_>>());
    assert_eq!(models.len(), 201);
    assert_eq!(agents.len(), 1_001);
    assert_eq!(requests.map(|(.., count)| count).sum::<u64>(), 2_000);
    let made = agents.iter().flat_map(|(_, agent)| agent.attempts());
    assert_eq!(made.map(|(_, made, _)| made).sum::<u64>(), 2_000);
}

fn asking(book: &Storybook) -> Story {
    let mut story = book.begin("POST", "/api/chat", &HeaderMap::new(), CLIENT);
    story.asks_for(Dialect::Ollama, "a:latest", true);
    story
}

fn only(book: &Storybook) -> RequestView {
    let mut seen = book.requests(&view::Filter::default(), 2);
    assert_eq!(seen.len(), 1);
    seen.remove(0)
}

fn permit() -> Permit {
    Permit::claim(Candidate {
        id: AgentId::new(),
        name: "gpu".into(),
        link: Link::Direct(([127, 0, 0, 1], 9).into()),
        speaks_ollama: true,
        in_flight: Arc::default(),
    })
}
