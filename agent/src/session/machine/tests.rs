//! Every delay and bound of the session's rules, on plain values.

use super::*;
use proptest::prelude::*;
use rand::SeedableRng as _;

const TERMS: LeaseTerms = LeaseTerms {
    heartbeat_interval_ms: 1_000,
    ttl_ms: 4_000,
};
const SECOND: Duration = Duration::from_secs(1);

/// Plays the rules: remembers the session and moves the clock to where they ask.
struct Play {
    session: Session,
    now: Instant,
    rules: Rules,
    rng: SmallRng,
}

impl Play {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        Self {
            session: Session::Unregistered(Joining::start(now, LeaseHeld::No)),
            now,
            rules: Rules {
                backoff: Backoff::new(SECOND / 2, 30 * SECOND).unwrap(),
                refused_retry: 30 * SECOND,
                max_attempts: None,
                longest_interval: None,
            },
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    fn registered(seed: u64, terms: LeaseTerms) -> Self {
        let mut play = Self::new(seed);
        play.feed(Event::Due);
        play.feed(Event::Granted(terms));
        play
    }

    fn feed(&mut self, event: Event) -> Action {
        let (session, action) = step(self.session, event, self.now, &self.rules, &mut self.rng);
        self.session = session;
        action
    }

    /// Feeds `event`, goes to the moment that is then waited for and returns the delay.
    fn delay_after(&mut self, event: Event) -> Duration {
        let action = self.feed(event);
        let Action::WaitUntil(at) = action else {
            panic!("{event:?} led to {action:?}");
        };
        let delay = at - self.now;
        self.now = at;
        delay
    }

    fn beat(&mut self) -> Connection {
        let action = self.feed(Event::Due);
        let Action::Heartbeat { connection, .. } = action else {
            panic!("no heartbeat but {action:?}");
        };
        connection
    }

    fn lease_end(&self) -> Instant {
        let Session::Registered(registered) = self.session else {
            panic!("not registered but {:?}", self.session);
        };
        registered.renewed_at + registered.lease.ttl
    }
}

fn renewed(coordinator: Coordinator) -> Event {
    Event::Renewed {
        terms: TERMS,
        coordinator,
    }
}

const UNREACHABLE: Event = Event::Failed(Failure::Unreachable);

proptest! {
    #[test]
    fn registration_is_retried_for_ever_within_half_a_second_and_thirty(seed: u64) {
        let mut play = Play::new(seed);

        for _ in 0..40 {
            prop_assert_eq!(play.feed(Event::Due), Action::Register(Connection::Kept));
            let delay = play.delay_after(UNREACHABLE);
            prop_assert!(SECOND / 2 <= delay && delay <= 30 * SECOND, "{delay:?}");
        }
    }

    #[test]
    fn heartbeats_keep_the_interval_within_a_tenth(seed: u64) {
        let mut play = Play::registered(seed, TERMS);

        let delay = play.delay_after(renewed(Coordinator::Same));

        prop_assert!(SECOND * 9 / 10 <= delay && delay <= SECOND * 11 / 10, "{delay:?}");
    }

    #[test]
    fn first_failures_are_retried_within_the_lease(
        seed: u64, interval_ms in 100_u64..60_000, beats in 2_u64..4,
    ) {
        let ttl_ms = interval_ms * beats + 1_000;
        let terms = LeaseTerms { heartbeat_interval_ms: interval_ms, ttl_ms };
        let mut play = Play::registered(seed, terms);
        play.now += Duration::from_millis(interval_ms);

        for _ in 0..3 {
            let end = play.lease_end();
            if end - play.now <= LAST_INNER_RETRY {
                break;
            }
            let delay = play.delay_after(UNREACHABLE);
            prop_assert!(play.now < end, "{delay:?} leads behind the lease's end");
            prop_assert!(delay <= 4 * SECOND, "{delay:?}");
        }
    }

    #[test]
    fn whatever_happens_the_next_step_is_in_bounded_time(seed: u64, events in events(60)) {
        let mut play = Play::new(seed);

        for event in events {
            let longest = LONGEST_RETRY_AFTER.mul_f64(1.1).max(Duration::from_mins(11));
            let action = play.feed(event);
            if let Action::WaitUntil(at) = action {
                prop_assert!(at.saturating_duration_since(play.now) <= longest, "{action:?}");
            }
            prop_assert_eq!(
                matches!(action, Action::Exit(_)),
                matches!(play.session, Session::Stopped)
            );
        }
    }

    #[test]
    fn terms_of_any_size_give_a_lease_that_can_be_kept(
        heartbeat_interval_ms: u64, ttl_ms: u64, longest_ms in prop::option::of(100_u64..3_600_000),
    ) {
        let terms = LeaseTerms { heartbeat_interval_ms, ttl_ms };
        let longest = longest_ms.map(Duration::from_millis);

        let lease = Lease::new(terms, longest);

        prop_assert!(lease.interval >= Duration::from_millis(10));
        prop_assert!(lease.interval * 2 <= lease.ttl);
        prop_assert!(longest.is_none_or(|longest| lease.interval <= longest));
        let timeout = lease.heartbeat_timeout();
        prop_assert!(SECOND <= timeout && timeout <= 5 * SECOND);
    }
}

fn events(count: usize) -> impl Strategy<Value = Vec<Event>> {
    let failure = prop_oneof![
        Just(Failure::Unreachable),
        prop::option::of(0_u64..100_000).prop_map(|s| Failure::Busy {
            retry_after: s.map(Duration::from_secs)
        }),
        Just(Failure::UnknownAgent),
        Just(Failure::DuplicateIdentity),
        Just(Failure::Refused),
    ];
    let terms =
        (any::<u64>(), any::<u64>()).prop_map(|(heartbeat_interval_ms, ttl_ms)| LeaseTerms {
            heartbeat_interval_ms,
            ttl_ms,
        });
    let event = prop_oneof![
        4 => Just(Event::Due),
        4 => failure.prop_map(Event::Failed),
        4 => terms.prop_map(Event::Granted),
        2 => Just(renewed(Coordinator::Same)),
        2 => Just(renewed(Coordinator::Restarted)),
        1 => Just(Event::AddressChanged),
        2 => Just(Event::News),
        1 => Just(Event::Woke),
        1 => Just(Event::IdentityReplaced),
        1 => Just(Event::StopRequested),
        1 => Just(Event::Left),
    ];
    prop::collection::vec(event, 1..count)
}

#[tokio::test(start_paused = true)]
async fn heartbeats_go_on_after_the_lease_ran_out() {
    let mut play = Play::registered(1, TERMS);

    for _ in 0..100 {
        play.beat();
        let delay = play.delay_after(UNREACHABLE);
        assert!(delay <= 30 * SECOND, "{delay:?}");
    }

    assert!(play.now > play.lease_end());
    play.beat();
    let delay = play.delay_after(renewed(Coordinator::Same));
    assert!(delay <= SECOND * 11 / 10, "{delay:?}");
}

#[test]
fn third_heartbeat_in_a_row_goes_over_a_fresh_connection() {
    let mut play = Play::registered(1, TERMS);

    assert_eq!(play.beat(), Connection::Kept);
    play.delay_after(UNREACHABLE);
    assert_eq!(play.beat(), Connection::Kept);
    play.delay_after(UNREACHABLE);
    assert_eq!(play.beat(), Connection::Fresh);
}

#[test]
fn retry_after_wins_and_is_bounded() {
    let mut play = Play::new(1);
    let busy = |seconds| {
        Event::Failed(Failure::Busy {
            retry_after: Some(Duration::from_secs(seconds)),
        })
    };

    play.feed(Event::Due);
    let asked = play.delay_after(busy(42));
    play.feed(Event::Due);
    let too_long = play.delay_after(busy(86_400));

    assert!(42 * SECOND <= asked && asked <= 47 * SECOND, "{asked:?}");
    assert!(
        300 * SECOND <= too_long && too_long <= 330 * SECOND,
        "{too_long:?}"
    );
}

#[test]
fn unknown_agent_registers_again_soon() {
    let terms = LeaseTerms {
        heartbeat_interval_ms: 60_000,
        ttl_ms: 130_000,
    };
    for seed in 0..50 {
        let mut play = Play::registered(seed, terms);

        let delay = play.delay_after(Event::Failed(Failure::UnknownAgent));

        assert!(delay <= 10 * SECOND, "{delay:?}");
        assert_eq!(play.feed(Event::Due), Action::Register(Connection::Kept));
    }
}

#[test]
fn refusals_are_retried_slowly() {
    let mut play = Play::registered(1, TERMS);

    assert_eq!(
        play.delay_after(Event::Failed(Failure::Refused)),
        30 * SECOND
    );
    play.feed(Event::Due);
    assert_eq!(
        play.delay_after(Event::Failed(Failure::Refused)),
        30 * SECOND
    );
}

#[test]
fn new_identities_are_not_made_faster_than_the_backoff() {
    let mut play = Play::registered(1, TERMS);

    for _ in 0..5 {
        let refused = play.feed(Event::Failed(Failure::DuplicateIdentity));
        assert_eq!(refused, Action::ReplaceIdentity);
        let delay = play.delay_after(Event::IdentityReplaced);
        assert!(delay >= SECOND / 2, "{delay:?}");
        assert_eq!(play.feed(Event::Due), Action::Register(Connection::Kept));
    }
}

#[test]
fn attempts_end_when_they_are_limited() {
    let mut play = Play::new(1);
    play.rules.max_attempts = NonZeroU32::new(3);

    for _ in 0..2 {
        play.feed(Event::Due);
        play.delay_after(UNREACHABLE);
    }
    play.feed(Event::Due);

    assert_eq!(
        play.feed(UNREACHABLE),
        Action::Exit(Ending::AttemptsUsed(3))
    );
}

#[test]
fn operator_caps_the_interval_and_the_coordinator_may_ask_for_less() {
    let mut play = Play::new(1);
    play.rules.longest_interval = Some(2 * SECOND);
    let terms = |heartbeat_interval_ms| LeaseTerms {
        heartbeat_interval_ms,
        ttl_ms: 130_000,
    };

    play.feed(Event::Due);
    let capped = play.delay_after(Event::Granted(terms(60_000)));
    let asked = play.delay_after(Event::Renewed {
        terms: terms(500),
        coordinator: Coordinator::Same,
    });

    assert!(capped <= SECOND * 22 / 10, "{capped:?}");
    assert!(asked <= SECOND * 55 / 100, "{asked:?}");
}

#[test]
fn report_after_a_restart_is_spread_over_the_interval() {
    let delays: Vec<Duration> = (0..50)
        .map(|seed| Play::registered(seed, TERMS).delay_after(renewed(Coordinator::Restarted)))
        .collect();

    assert!(delays.iter().all(|delay| *delay <= SECOND), "{delays:?}");
    assert!(delays.iter().any(|delay| *delay < SECOND / 4), "{delays:?}");
    assert!(
        delays.iter().any(|delay| *delay > SECOND * 3 / 4),
        "{delays:?}"
    );
}

#[test]
fn waking_renews_at_once_over_a_fresh_connection() {
    let mut play = Play::registered(1, TERMS);

    let action = play.feed(Event::Woke);

    assert!(
        matches!(
            action,
            Action::Heartbeat {
                connection: Connection::Fresh,
                ..
            }
        ),
        "{action:?}"
    );
}

#[test]
fn news_does_not_disturb_a_planned_retry() {
    let mut play = Play::registered(1, TERMS);
    assert!(matches!(play.feed(Event::News), Action::Heartbeat { .. }));

    let planned = play.feed(UNREACHABLE);

    assert_eq!(play.feed(Event::News), planned);
}

#[test]
fn new_address_is_registered_at_once() {
    let mut play = Play::registered(1, TERMS);

    assert_eq!(
        play.feed(Event::AddressChanged),
        Action::Register(Connection::Kept)
    );
}

#[test]
fn goodbye_is_said_only_where_a_lease_may_be_held() {
    let mut never_asked = Play::new(1);
    assert_eq!(
        never_asked.feed(Event::StopRequested),
        Action::Exit(Ending::Stopped)
    );

    let mut asking = Play::new(1);
    asking.feed(Event::Due);
    assert_eq!(asking.feed(Event::StopRequested), Action::Deregister);

    let mut registered = Play::registered(1, TERMS);
    assert_eq!(registered.feed(Event::StopRequested), Action::Deregister);
    assert_eq!(registered.feed(Event::Left), Action::Exit(Ending::Stopped));
}
