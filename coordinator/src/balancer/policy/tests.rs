//! What every policy keeps to, and what each is for.

use proptest::prelude::*;

use super::*;

const ALL: [Policy; 4] = [
    Policy::LeastLoaded,
    Policy::RoundRobin,
    Policy::Weighted,
    Policy::PrefixAffinity,
];

fn idle(identity: u64) -> PolicyInput {
    PolicyInput {
        in_flight: 0,
        capacity: 4,
        warm: true,
        fits: Fits::Unknown,
        slowness: 1.0,
        identity,
        why_not: None,
    }
}

fn idle_fleet(size: u64) -> Vec<PolicyInput> {
    (0..size).map(idle).collect()
}

fn input() -> impl Strategy<Value = PolicyInput> {
    let why_not = prop_oneof![
        4 => Just(None),
        1 => Just(Some(WhyNot::Tried)),
        1 => Just(Some(WhyNot::Ejected)),
        1 => Just(Some(WhyNot::Busy)),
    ];
    let fits = prop_oneof![Just(Fits::No), Just(Fits::Unknown), Just(Fits::Yes)];
    let load = (0_u32..6, 0_u32..6);
    (
        load,
        any::<bool>(),
        fits,
        0.1_f32..10.0,
        any::<u64>(),
        why_not,
    )
        .prop_map(
            |((in_flight, capacity), warm, fits, slowness, identity, why_not)| PolicyInput {
                in_flight,
                capacity,
                warm,
                fits,
                slowness,
                identity,
                why_not,
            },
        )
}

fn draw() -> impl Strategy<Value = Draw> {
    (any::<u64>(), any::<usize>(), any::<Option<u64>>()).prop_map(|(random, turn, prefix)| Draw {
        random,
        turn,
        prefix,
    })
}

proptest! {
    #[test]
    fn nobody_full_or_barred_is_picked_and_somebody_is_when_possible(
        candidates in proptest::collection::vec(input(), 0..12),
        draw in draw(),
    ) {
        for policy in ALL {
            let picked = pick(policy, &candidates, draw);

            prop_assert_eq!(picked.is_some(), candidates.iter().any(PolicyInput::is_usable));
            if let Some(picked) = picked {
                let taken = candidates[picked.index];
                prop_assert!(taken.in_flight < taken.capacity && taken.why_not.is_none());
            }
        }
    }

    #[test]
    fn warm_comes_before_cold_and_fitting_before_not(
        candidates in proptest::collection::vec(input(), 1..12),
        draw in draw(),
    ) {
        let usable = || candidates.iter().filter(|c| c.is_usable());
        for policy in [Policy::LeastLoaded, Policy::PrefixAffinity] {
            let Some(picked) = pick(policy, &candidates, draw) else { continue };
            let taken = candidates[picked.index];
            prop_assert!(taken.warm || usable().all(|c| !c.warm));
        }
        if let Some(picked) = pick(Policy::LeastLoaded, &candidates, draw) {
            let taken = candidates[picked.index];
            prop_assert!(usable().all(|c| c.compare(&taken) != Ordering::Greater));
            prop_assert!(taken.warm || usable().all(|c| c.fits <= taken.fits));
        }
    }

    #[test]
    fn turns_are_taken_one_after_the_other(count in 2_u64..20, rounds in 1_usize..5) {
        let candidates = idle_fleet(count);
        let mut picks = vec![0; candidates.len()];
        let mut turn = 0;

        for _ in 0..candidates.len() * rounds {
            let draw = Draw { turn, ..Draw::default() };
            let picked = pick(Policy::RoundRobin, &candidates, draw).unwrap();
            picks[picked.index] += 1;
            turn = picked.index + 1;
        }

        prop_assert_eq!(picks, vec![rounds; candidates.len()]);
    }

    #[test]
    fn conversation_stays_where_it_was_when_others_come_and_go(
        prefix: u64, count in 2_u64..30, other in 0_u64..30,
    ) {
        let draw = Draw { prefix: Some(prefix), ..Draw::default() };
        let fleet = idle_fleet(count);
        let home = fleet[pick(Policy::PrefixAffinity, &fleet, draw).unwrap().index].identity;
        let mut changed = idle_fleet(count + 1);
        changed.retain(|c| c.identity == home || c.identity != other);

        let now = pick(Policy::PrefixAffinity, &changed, draw).unwrap();

        let now = changed[now.index].identity;
        prop_assert!(now == home || now == count, "it went to {now}, neither home nor new");
    }

    #[test]
    fn conversation_leaves_an_agent_that_has_more_than_its_share(
        prefix: u64, loads in proptest::collection::vec(0_u32..16, 2..12),
    ) {
        let mut fleet = idle_fleet(loads.len() as u64);
        for (agent, in_flight) in fleet.iter_mut().zip(&loads) {
            agent.capacity = 16;
            agent.in_flight = *in_flight;
        }
        let draw = Draw { prefix: Some(prefix), ..Draw::default() };

        let picked = pick(Policy::PrefixAffinity, &fleet, draw).unwrap();

        let count = u32::try_from(loads.len()).unwrap();
        let average = f64::from(loads.iter().sum::<u32>() + 1) / f64::from(count);
        let taken = f64::from(fleet[picked.index].in_flight + 1);
        prop_assert!(taken <= (average * 1.25).ceil() + 0.001, "{taken} of {average}");
    }
}

#[test]
fn requests_spread_evenly_over_equals() {
    for policy in ALL {
        let mut fleet = idle_fleet(8);
        let mut draw = Draw::default();

        for number in 0..16_u64 {
            draw.random = mixed(number);
            let picked = pick(policy, &fleet, draw).unwrap();
            fleet[picked.index].in_flight += 1;
            draw.turn = picked.index + 1;
        }

        let most = fleet.iter().map(|c| c.in_flight).max();
        let expected = if policy == Policy::Weighted { 4 } else { 2 };
        assert!(most <= Some(expected), "{policy:?}: {most:?}");
    }
}

#[test]
fn equals_are_told_apart_by_chance() {
    let fleet = idle_fleet(4);
    let mut picks = [0; 4];

    for number in 0..400_u64 {
        let random = mixed(number);
        let picked = pick(
            Policy::LeastLoaded,
            &fleet,
            Draw {
                random,
                ..Draw::default()
            },
        );
        let picked = picked.unwrap();
        assert_eq!(picked.reason, Reason::Random);
        picks[picked.index] += 1;
    }

    assert!(
        picks.iter().all(|count| (60..140).contains(count)),
        "{picks:?}"
    );
}

#[test]
fn large_machines_get_more_by_weight() {
    let mut fleet = idle_fleet(2);
    fleet[1].capacity = 12;
    let picks = (0..1_000_u64).filter(|number| {
        let random = mixed(*number);
        let picked = pick(
            Policy::Weighted,
            &fleet,
            Draw {
                random,
                ..Draw::default()
            },
        );
        picked.unwrap().index == 1
    });

    assert!((700..800).contains(&picks.count()));
}

#[test]
fn choice_is_explained_by_what_decided() {
    let reason = |change: fn(&mut Vec<PolicyInput>)| {
        let mut fleet = idle_fleet(3);
        for candidate in &mut fleet {
            candidate.warm = false;
        }
        change(&mut fleet);
        pick(Policy::LeastLoaded, &fleet, Draw::default()).map(|picked| picked.reason)
    };

    assert_eq!(reason(|f| f.truncate(1)), Some(Reason::Only));
    assert_eq!(reason(|f| f[1].warm = true), Some(Reason::Warm));
    assert_eq!(reason(|f| f[1].fits = Fits::Yes), Some(Reason::Fits));
    assert_eq!(reason(|f| f[1].slowness = 0.2), Some(Reason::LeastLoaded));
    assert_eq!(reason(|_| {}), Some(Reason::Random));
    assert_eq!(reason(Vec::clear), None);
}

#[test]
fn fast_machine_gets_more_before_a_slow_one_gets_any() {
    let mut fleet = idle_fleet(2);
    fleet[0].slowness = 0.25;
    fleet[1].slowness = 2.0;

    fleet[0].in_flight = 3;
    let busy = pick(Policy::LeastLoaded, &fleet, Draw::default()).unwrap();
    fleet[0].in_flight = 4;
    let full = pick(Policy::LeastLoaded, &fleet, Draw::default()).unwrap();

    assert_eq!((busy.index, full.index), (0, 1));
}
