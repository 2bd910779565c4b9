//! Fleets of which only some agents are looked at.

use super::*;
use crate::balancer::policy::Policy;

const ALL: [Policy; 4] = [
    Policy::LeastLoaded,
    Policy::RoundRobin,
    Policy::Weighted,
    Policy::PrefixAffinity,
];

fn fleet(size: u128, capacity: u32) -> Vec<Machine> {
    (0..size)
        .map(|number| Machine::new(number, capacity))
        .collect()
}

fn bench(policy: Policy, machines: &[Machine]) -> Bench {
    let settings = Settings {
        policy,
        ..Settings::default()
    };
    Bench::with(settings, &machines.iter().collect::<Vec<_>>())
}

#[test]
fn last_free_slot_of_a_large_fleet_is_found() {
    for policy in ALL {
        let machines = fleet(500, 1);
        let mut bench = bench(policy, &machines);
        let of_conversation = |prefix| Wanted {
            prefix: Some(prefix),
            ..wanted("m")
        };

        let grants: Vec<Grant> = (0..500).map(|n| bench.grant(&of_conversation(n))).collect();

        assert!(
            machines.iter().all(|machine| machine.in_flight() == 1),
            "{policy}"
        );
        bench.queued(&wanted("m"));
        assert!(
            grants
                .iter()
                .all(|grant| grant.choice.considered.len() <= 8)
        );
        assert!(grants.iter().all(|grant| grant.choice.candidates == 500));
    }
}

#[test]
fn few_warm_agents_of_a_large_fleet_are_never_overlooked() {
    for warm in [1, 70, 200] {
        let mut machines = fleet(500, 2);
        for machine in machines.iter_mut().rev().take(warm) {
            *machine = machine.clone().with_loaded(&["m:latest"]);
        }
        let mut bench = bench(Policy::LeastLoaded, &machines);

        for _ in 0..warm * 2 {
            assert!(bench.grant(&wanted("m")).choice.considered[0].warm);
        }
        assert!(!bench.grant(&wanted("m")).choice.considered[0].warm);
    }
}

#[test]
fn load_of_a_large_fleet_is_spread_evenly() {
    let machines: Vec<Machine> = fleet(500, 8)
        .into_iter()
        .map(|machine| machine.with_loaded(&["m:latest"]))
        .collect();
    for (policy, most) in [
        (Policy::LeastLoaded, 3),
        (Policy::RoundRobin, 2),
        (Policy::Weighted, 8),
    ] {
        let mut bench = bench(policy, &machines);

        let grants: Vec<Grant> = (0..1_000).map(|_| bench.grant(&wanted("m"))).collect();

        let highest = machines.iter().map(Machine::in_flight).max();
        assert!(highest <= Some(most), "{policy}: {highest:?}");
        for grant in grants {
            bench.settle(grant, Outcome::Success);
        }
        assert!(machines.iter().all(|machine| machine.in_flight() == 0));
    }
}

#[test]
fn conversation_stays_at_one_agent_of_a_large_fleet() {
    let machines: Vec<Machine> = fleet(500, 8)
        .into_iter()
        .map(|machine| machine.with_loaded(&["m:latest"]))
        .collect();
    let mut bench = bench(Policy::PrefixAffinity, &machines);
    let mut home = |prefix| {
        let grant = bench.grant(&Wanted {
            prefix: Some(prefix),
            ..wanted("m")
        });
        let id = grant.agent.id;
        assert_eq!(grant.choice.reason, Reason::Affinity);
        bench.settle(grant, Outcome::Success);
        id
    };

    let homes: Vec<AgentId> = (0..50).map(&mut home).collect();

    assert_eq!((0..50).map(&mut home).collect::<Vec<_>>(), homes);
    let distinct: std::collections::HashSet<&AgentId> = homes.iter().collect();
    assert!(distinct.len() > 40, "{}", distinct.len());
}

#[test]
fn ejections_of_a_large_fleet_are_ignored_when_half_of_it_failed() {
    let machines = fleet(200, 1);
    let mut bench = bench(Policy::LeastLoaded, &machines);
    let grants: Vec<Grant> = (0..200).map(|_| bench.grant(&wanted("m"))).collect();
    let waits = bench.queued(&wanted("m"));

    for (number, grant) in grants.into_iter().enumerate() {
        assert_eq!(bench.state.queued(), usize::from(number < 100), "{number}");
        if number < 100 {
            bench.fail(grant, Failure::Broken);
        }
    }

    assert_eq!(bench.served(waits).unwrap().choice.reason, Reason::Panic);
}
