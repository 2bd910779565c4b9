//! Agents that may not be there any more: asked only when nobody else can take the request.

use super::*;
use crate::balancer::policy::Policy;

const ALL: [Policy; 4] = [
    Policy::LeastLoaded,
    Policy::RoundRobin,
    Policy::Weighted,
    Policy::PrefixAffinity,
];

fn suspect(number: u128, capacity: u32) -> Machine {
    Machine {
        is_suspect: true,
        ..Machine::new(number, capacity).with_loaded(&["m:latest"])
    }
}

#[test]
fn suspect_agent_is_asked_only_when_no_other_is_free() {
    for policy in ALL {
        for size in [3, 200] {
            let suspects: Vec<Machine> = (1..size).map(|number| suspect(number, 1)).collect();
            let (one, other) = (Machine::new(1_000, 1), Machine::new(1_001, 1));
            let machines = suspects.iter().chain([&one, &other]).collect::<Vec<_>>();
            let settings = Settings {
                policy,
                ..Settings::default()
            };
            let mut bench = Bench::with(settings, &machines);
            let of_conversation = |prefix| Wanted {
                prefix: Some(prefix),
                ..wanted("m")
            };

            let first = [(); 2].map(|()| bench.grant(&of_conversation(1)));
            let _rest: Vec<Grant> = (1..size)
                .map(|prefix| bench.grant(&of_conversation(u64::try_from(prefix).unwrap())))
                .collect();

            let mut taken = first.each_ref().map(|grant| grant.agent.id);
            taken.sort_unstable();
            assert_eq!(taken, [one.id(), other.id()], "{policy}, {size}");
            let others = &first[0].choice.considered[1..];
            let is_doubtful =
                |c: &super::super::super::choice::Considered| c.why_not == Some(WhyNot::Doubtful);
            assert!(size > 3 || others.iter().any(is_doubtful), "{others:?}");
            assert!(suspects.iter().all(|machine| machine.in_flight() == 1));
            bench.queued(&wanted("m"));
        }
    }
}

#[test]
fn suspect_agent_that_becomes_free_serves_who_waits_and_is_trusted_when_heard_of() {
    let mut doubted = suspect(1, 1);
    let mut bench = Bench::new(&[&doubted]);
    let first = bench.grant(&wanted("m"));
    let waits = bench.queued(&wanted("m"));

    bench.settle(first, Outcome::Success);

    let second = bench.served(waits).expect("it is served");
    bench.settle(second, Outcome::Success);
    let cold = Machine::new(2, 1);
    bench.upsert(&cold);
    doubted.is_suspect = false;
    bench.upsert(&doubted);
    assert_eq!(bench.grant(&wanted("m")).agent.id, doubted.id());
}

#[test]
fn agent_that_is_silent_though_it_has_the_model_in_memory_is_asked_last() {
    let warm = |number| Machine::new(number, 8).with_loaded(&["m:latest"]);
    let (hung, cold) = (warm(1), Machine::new(2, 1));
    let mut bench = Bench::new(&[&hung, &cold]);
    let mut first = bench.grant(&wanted("m"));
    assert_eq!(first.agent.id, hung.id());

    bench.pass(Duration::from_secs(30));

    let second = bench.grant(&wanted("m"));
    assert_eq!(second.agent.id, cold.id());
    assert_eq!(second.choice.considered[1].why_not, Some(WhyNot::Doubtful));
    let third = bench.grant(&wanted("m"));
    assert_eq!(third.agent.id, hung.id(), "nobody else is free");
    bench.settle(second, Outcome::Success);
    bench.state.answered(&mut first.claim, bench.now);
    assert_eq!(bench.grant(&wanted("m")).agent.id, hung.id(), "it works");
}

#[test]
fn agent_that_loads_a_model_or_writes_a_long_answer_is_not_silent() {
    let (loads, other) = (Machine::new(1, 8), Machine::new(2, 8));
    let writes = Machine::new(3, 8).with_models(&["n:latest"]);
    let spare = Machine::new(4, 8).with_models(&["n:latest"]);
    let mut bench = Bench::new(&[&loads, &other, &writes.clone().with_loaded(&["n:latest"])]);
    let loading = bench.grant(&wanted("m")).agent.id;
    let mut writing = bench.grant(&wanted("n"));
    bench.state.answered(&mut writing.claim, bench.now);
    bench.upsert(&spare);

    bench.pass(Duration::from_mins(2));

    assert_eq!(bench.grant(&wanted("m")).agent.id, loading);
    assert_eq!(bench.grant(&wanted("n")).agent.id, writes.id());
}
