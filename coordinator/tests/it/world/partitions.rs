//! Networks that cut off an agent, wholly or in one direction, that lose packets or are slow, between
//! two machines under steady load. All of them at once, each in a world of its own.
//!
//! `OLLAMA_COORDINATOR_BAD_NETWORK` says for how many seconds packets are lost or slow.

use std::num::NonZeroU32;
use std::thread;
use std::time::Duration;

use ollama_coordinator_common::protocol::view::AgentStatus;
use ollama_simulator::history::Bounds;
use ollama_simulator::runtime::script::RuntimeScript;
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep};

use crate::support::nat::Nat;
use crate::support::watch::{Habit, Watch};
use crate::support::{say, setting, skip};

const PERIOD: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(20);
/// Less than a lease, so that nobody notices.
const BRIEF: Duration = Duration::from_millis(1500);
/// Longer than a lease, so that everybody does.
const LONG: Duration = Duration::from_secs(11);
const SETTLE: Duration = Duration::from_secs(2);
/// A lease is 4 s; a coordinator that gets no processor time for a second grants all of them anew.
const BOUNDS: Bounds = Bounds {
    recovery: Duration::ZERO,
    notice: Duration::from_secs(10),
    grace: Duration::ZERO,
};

#[derive(Debug, Clone, Copy)]
enum Trial {
    /// The router does this to what it passes on: for a moment, then for longer than a lease.
    Partition(&'static str),
    /// The router does this for long, and the agent must not be given up for it.
    Lossy(&'static str),
    /// The router passes on 1 Mbit/s each way.
    Slow,
}

const TRIALS: [(&str, Trial); 5] = [
    ("cut off", Trial::Partition("drop")),
    (
        "nothing reaches the agent",
        Trial::Partition("iifname wan drop"),
    ),
    (
        "nothing comes from the agent",
        Trial::Partition("iifname lan drop"),
    ),
    (
        "every fifth packet lost",
        Trial::Lossy("numgen random mod 5 == 0 drop"),
    ),
    ("1 Mbit/s", Trial::Slow),
];

#[test]
fn partitioned_lossy_and_slow_networks_make_nobody_wrongly_offline_or_online() {
    thread::scope(|scope| {
        for (name, trial) in TRIALS {
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("there is room for a runtime");
            scope.spawn(move || runtime.block_on(in_a_world_of_its_own(name, trial)));
        }
    });
}

async fn in_a_world_of_its_own(name: &str, trial: Trial) {
    let nat = match Nat::new() {
        Ok(nat) => nat,
        Err(reason) => return skip(name, &reason),
    };
    let (_coordinator, _home) = nat.start(script()).await;
    let _hub = nat.join(&nat.hub, "at-hub", script(), &[]).await;
    let mut watch = Watch::new(nat.api(), PERIOD);
    watch.recorder.works("at-hub");
    watch.recorder.works("at-home");
    watch.ask(2, Habit::Stream, PAUSE);
    watch.ask(2, Habit::Small, PAUSE);
    sleep(Duration::from_secs(1)).await;

    let said = match trial {
        Trial::Partition(rule) => partition(&nat, &watch, rule).await,
        Trial::Lossy(rule) => {
            nat.disturb(rule);
            bear(&watch).await
        }
        Trial::Slow => match nat.slow_down() {
            Ok(()) => bear(&watch).await,
            Err(reason) => return skip(name, &reason),
        },
    };

    let verdict = watch.end(&BOUNDS).await;
    say(&format!("{name}: {said}; {}", verdict.said));
    verdict.assert_clean(name);
}

/// Cuts the agent off for less than a lease, then for more; says when that was seen and mended.
async fn partition(nat: &Nat, watch: &Watch, rule: &str) -> String {
    nat.disturb(rule);
    sleep(BRIEF).await;
    nat.calm();
    sleep(SETTLE).await;

    watch.recorder.silent("at-home");
    nat.disturb(rule);
    let cut = Instant::now();
    nat.wait("at-home", "offline", |agent| {
        agent.status == AgentStatus::Offline
    })
    .await;
    let noticed = cut.elapsed();
    sleep(LONG.saturating_sub(noticed)).await;
    watch.recorder.disturbed("at-home");
    nat.calm();
    let mended = Instant::now();
    nat.wait("at-home", "routable", |agent| agent.routable)
        .await;
    let back = mended.elapsed();
    // A ping that was lost is given up after 5 s, and a new tunnel opened.
    sleep(SETTLE * 3).await;
    watch.recorder.works("at-home");
    sleep(SETTLE).await;
    format!(
        "not seen for {} ms; offline after {} ms, with requests again {} ms after the end",
        BRIEF.as_millis(),
        noticed.as_millis(),
        back.as_millis()
    )
}

/// Waits for as long as a network is bad. A tunnel may break, but the agent is not given up.
async fn bear(watch: &Watch) -> String {
    watch.recorder.disturbed("at-home");
    let lasts = Duration::from_secs(setting("OLLAMA_COORDINATOR_BAD_NETWORK", 12));
    sleep(lasts).await;
    let offline = watch.recorder.shown_offline();
    assert!(offline.is_empty(), "{offline:?}");
    format!("for {} s, nobody offline", lasts.as_secs())
}

fn script() -> RuntimeScript {
    RuntimeScript {
        slots: NonZeroU32::MIN.saturating_add(7),
        answer_tokens: NonZeroU32::new(20),
        tokens_per_second: NonZeroU32::new(100),
        ..RuntimeScript::default()
    }
}
