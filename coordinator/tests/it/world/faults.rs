//! Networks that change, swallow or lose packets between an agent and its coordinator.

use std::num::NonZeroU32;
use std::time::Duration;

use ollama_coordinator_common::protocol::view::{AgentStatus, AgentView};
use ollama_simulator::runtime::script::RuntimeScript;
use ollama_simulator::wait::{PATIENCE, wait_for};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::support::api::Api;
use crate::support::chat::MODEL;
use crate::support::nat::{Joined, Nat};
use crate::support::seen::{Seen, ask};
use crate::support::{say, skip};

/// A ping every 10 s, its answer within 5 s, and time for a busy machine.
const NOTICED_WITHIN: Duration = Duration::from_secs(17);
const STREAMS: usize = 50;

#[tokio::test]
async fn machine_that_wakes_up_at_another_address_is_back_by_itself() {
    let nat = match Nat::new() {
        Ok(nat) => nat,
        Err(reason) => return skip("a machine that moves", &reason),
    };
    let script = thinking(Duration::from_secs(2));
    let (_coordinator, joined) = nat.start(script.clone()).await;
    let other = nat.join(&nat.hub, "at-hub", script, &[]).await;
    let asked = asked_until_it_has_some(nat.api(), &joined).await;

    nat.home.ip("addr flush dev eth0").unwrap();
    let moved = Instant::now();
    let is_away = |agent: &AgentView| !is_routable(agent);
    nat.wait("at-home", "not routable", is_away).await;
    let noticed = moved.elapsed();
    nat.home.ip("addr add 192.168.7.99/24 dev eth0").unwrap();
    nat.home.ip("route add default via 192.168.7.1").unwrap();
    let plugged_in = Instant::now();
    nat.wait("at-home", "routable", is_routable).await;
    let back = plugged_in.elapsed();
    let seen = all(asked).await;
    let answered = moved.elapsed();

    say(&format!(
        "address taken away: not routable after {} ms, routable {} ms after another one was \
         given; what it had been asked was answered after {} ms: {seen:?}",
        noticed.as_millis(),
        back.as_millis(),
        answered.as_millis()
    ));
    assert_eq!(
        seen,
        Seen {
            whole: 8,
            ..Seen::default()
        }
    );
    let before = joined.runtime.requests();
    drop(other);
    let told = ask(nat.api(), "again", true).await;
    assert_eq!(told.seen.whole, 1);
    assert!(joined.runtime.requests() > before);
}

#[tokio::test]
async fn machine_whose_address_is_replaced_at_once_costs_no_request() {
    let nat = match Nat::new() {
        Ok(nat) => nat,
        Err(reason) => return skip("an address that is replaced", &reason),
    };
    let script = thinking(Duration::from_millis(200));
    let (_coordinator, _joined) = nat.start(script.clone()).await;
    let other = nat.join(&nat.hub, "at-hub", script, &[]).await;

    nat.home.ip("addr flush dev eth0").unwrap();
    nat.home.ip("addr add 192.168.7.99/24 dev eth0").unwrap();
    nat.home.ip("route add default via 192.168.7.1").unwrap();
    let moved = Instant::now();
    let seen = all(ask_eight_times(nat.api())).await;
    let answered = moved.elapsed();
    drop(other);
    nat.wait("at-home", "routable", is_routable).await;

    say(&format!(
        "address replaced at once: eight requests were answered after {} ms: {seen:?}",
        answered.as_millis()
    ));
    assert_eq!(
        seen,
        Seen {
            whole: 8,
            ..Seen::default()
        }
    );
    assert_eq!(ask(nat.api(), "again", true).await.seen.whole, 1);
}

#[tokio::test]
async fn streams_that_have_begun_say_so_when_the_router_swallows_everything() {
    let nat = match Nat::new() {
        Ok(nat) => nat,
        Err(reason) => return skip("streams over a link that is half open", &reason),
    };
    let script = RuntimeScript {
        answer_tokens: NonZeroU32::new(1000),
        tokens_per_second: NonZeroU32::new(20),
        ..RuntimeScript::default()
    };
    let (_coordinator, joined) = nat.start(script).await;
    let mut streams = JoinSet::new();
    for _ in 0..4 {
        let api = nat.api();
        streams.spawn(async move { ask(api, "hi", true).await.seen });
    }
    let in_flight = async || joined.runtime.in_flight();
    wait_for("four streams", PATIENCE, in_flight, |running| *running >= 4).await;
    tokio::time::sleep(Duration::from_millis(500)).await;

    nat.disturb("drop");
    let dropped = Instant::now();
    let seen = timeout(NOTICED_WITHIN, all(streams))
        .await
        .expect("nothing hangs");
    let told = dropped.elapsed();
    wait_for("nothing is generated", PATIENCE, in_flight, |running| {
        *running == 0
    })
    .await;

    say(&format!(
        "everything swallowed under four streams: told after {} ms, not generated any more after \
         {} ms; {seen:?}",
        told.as_millis(),
        dropped.elapsed().as_millis()
    ));
    assert_eq!(
        seen,
        Seen {
            told: 4,
            ..Seen::default()
        }
    );
}

#[tokio::test]
async fn machine_behind_a_router_that_swallows_everything_is_noticed_and_comes_back() {
    let nat = match Nat::new() {
        Ok(nat) => nat,
        Err(reason) => return skip("a link that is half open", &reason),
    };
    let script = thinking(Duration::from_secs(2));
    let (_coordinator, joined) = nat.start(script.clone()).await;
    let _other = nat.join(&nat.hub, "at-hub", script, &[]).await;
    let asked = asked_until_it_has_some(nat.api(), &joined).await;

    nat.disturb("drop");
    let dropped = Instant::now();
    nat.wait("at-home", "not routable", |agent| !is_routable(agent))
        .await;
    let noticed = dropped.elapsed();
    let is_offline = |agent: &AgentView| agent.status == AgentStatus::Offline;
    nat.wait("at-home", "offline", is_offline).await;
    let offline = dropped.elapsed();
    let seen = timeout(NOTICED_WITHIN * 2, all(asked)).await;
    let seen = seen.expect("nothing hangs");
    let answered = dropped.elapsed();
    nat.calm();
    let calm = Instant::now();
    nat.wait("at-home", "routable", is_routable).await;

    say(&format!(
        "everything swallowed: not routable after {} ms, offline after {} ms, what it had been \
         asked was answered after {} ms; routable {} ms after the end; {seen:?}",
        noticed.as_millis(),
        offline.as_millis(),
        answered.as_millis(),
        calm.elapsed().as_millis()
    ));
    assert_eq!(
        seen,
        Seen {
            whole: 8,
            ..Seen::default()
        }
    );
    assert!(noticed < NOTICED_WITHIN, "{noticed:?}");
    assert!(answered < NOTICED_WITHIN, "{answered:?}");
}

#[tokio::test]
async fn streams_through_a_network_that_loses_every_fifth_packet_are_whole_or_say_so() {
    let nat = match Nat::new() {
        Ok(nat) => nat,
        Err(reason) => return skip("20 % of packets lost", &reason),
    };
    let script = RuntimeScript {
        slots: NonZeroU32::MIN.saturating_add(63),
        answer_tokens: NonZeroU32::new(20),
        tokens_per_second: NonZeroU32::new(20),
        ..RuntimeScript::default()
    };
    let _coordinator = nat.machine.start().await;
    let capacity = [("OLLAMA_AGENT_CAPACITY", "64")];
    let joined = nat.join(&nat.home, "at-home", script.clone(), &capacity);
    let joined = joined.await;
    nat.disturb("numgen random mod 5 == 0 drop");
    let began = Instant::now();

    let mut streams = JoinSet::new();
    for stream in 0..STREAMS {
        let api = nat.api();
        streams.spawn(async move {
            let prompt = format!("stream {stream}");
            let told = ask(api, &prompt, true).await;
            (prompt, told)
        });
    }
    let mut seen = Seen::default();
    let read = async {
        while let Some(told) = streams.join_next().await {
            let (prompt, told) = told.unwrap();
            let whole = script.answer(MODEL, &prompt, None);
            if told.seen.whole == 1 {
                assert_eq!(told.said, whole);
            } else {
                assert!(whole.starts_with(&told.said), "{prompt}: {}", told.said);
            }
            seen.add(told.seen);
        }
    };
    timeout(Duration::from_secs(90), read)
        .await
        .expect("nothing hangs");

    say(&format!(
        "{STREAMS} streams of 1 s through a network that loses 20 % of packets both ways: {seen:?} \
         within {} ms",
        began.elapsed().as_millis()
    ));
    assert_eq!(seen.silent, 0, "{seen:?}");
    assert_eq!(joined.runtime.in_flight(), 0);
}

fn thinking(first_token_delay: Duration) -> RuntimeScript {
    RuntimeScript {
        slots: NonZeroU32::MIN.saturating_add(7),
        first_token_delay,
        answer_tokens: NonZeroU32::new(5),
        ..RuntimeScript::default()
    }
}

/// Asks eight times.
fn ask_eight_times(api: Api) -> JoinSet<Seen> {
    let mut asked = JoinSet::new();
    for _ in 0..8 {
        asked.spawn(async move { ask(api, "hi", true).await.seen });
    }
    asked
}

/// Asks eight times, and waits until the runtime has some of it.
async fn asked_until_it_has_some(api: Api, joined: &Joined) -> JoinSet<Seen> {
    let asked = ask_eight_times(api);
    let in_flight = async || joined.runtime.in_flight();
    wait_for("some of it", PATIENCE, in_flight, |in_flight| {
        *in_flight > 2
    })
    .await;
    asked
}

async fn all(mut asked: JoinSet<Seen>) -> Seen {
    let mut seen = Seen::default();
    while let Some(one) = asked.join_next().await {
        seen.add(one.expect("it does not panic"));
    }
    seen
}

fn is_routable(agent: &AgentView) -> bool {
    agent.routable
}
