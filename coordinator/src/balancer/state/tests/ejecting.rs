//! Agents that fail, and how they come back.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn three() -> [Machine; 3] {
    [1, 2, 3].map(|number| Machine::new(number, 4).with_loaded(&["m:latest"]))
}

/// Has one agent fail a request of its own.
fn fail_at(bench: &mut Bench, machine: &Machine, failure: Failure) {
    let only = [machine.id()];
    let grant = bench.grant(&Wanted {
        only: &only,
        ..wanted("m")
    });
    bench.fail(grant, failure);
}

fn taken(bench: &mut Bench, times: usize) -> Vec<u32> {
    let mut counts = vec![0; 4];
    let grants: Vec<Grant> = (0..times).map(|_| bench.grant(&wanted("m"))).collect();
    for grant in grants {
        let number = (1..4).find(|number| grant.agent.id == AgentId::from_u128(*number));
        counts[usize::try_from(number.unwrap()).unwrap()] += 1;
        bench.settle(grant, Outcome::Cancelled);
    }
    counts
}

#[test]
fn failed_agent_gets_nothing_and_then_one_request_at_a_time() {
    let machines = three();
    let mut bench = Bench::new(&machines.each_ref());
    fail_at(&mut bench, &machines[0], Failure::Broken);

    assert_eq!(bench.state.take_news(), [News::Ejected(machines[0].id())]);
    assert_eq!(taken(&mut bench, 8), [0, 0, 4, 4]);
    bench.pass(SECOND);
    assert_eq!(bench.state.take_news(), [News::Returned(machines[0].id())]);
    assert_eq!(taken(&mut bench, 9), [0, 1, 4, 4]);

    let only = [machines[0].id()];
    let to_first = Wanted {
        only: &only,
        ..wanted("m")
    };
    let probe = bench.grant(&to_first);
    assert_eq!(probe.choice.reason, Reason::Probation);
    let waits = bench.queued(&to_first);
    bench.settle(probe, Outcome::Success);
    assert!(bench.served(waits).is_some());
    assert_eq!(taken(&mut bench, 11), [0, 3, 4, 4], "all of it is back");
}

#[test]
fn failed_probation_ejects_for_longer() {
    let machines = three();
    let mut bench = Bench::new(&machines.each_ref());
    fail_at(&mut bench, &machines[0], Failure::Silent);
    bench.pass(SECOND);
    fail_at(&mut bench, &machines[0], Failure::Silent);
    bench.state.take_news();

    bench.pass(SECOND);
    assert_eq!(bench.state.take_news(), []);
    bench.pass(SECOND);

    assert_eq!(bench.state.take_news(), [News::Returned(machines[0].id())]);
}

#[test]
fn agent_that_registers_anew_starts_anew() {
    let mut machines = three();
    let mut bench = Bench::new(&machines.each_ref());
    fail_at(&mut bench, &machines[0], Failure::NotConnected);

    machines[0].registrations += 1;
    bench.upsert(&machines[0]);

    let id = machines[0].id();
    assert_eq!(
        bench.state.take_news(),
        [News::Ejected(id), News::Returned(id)]
    );
    assert_eq!(taken(&mut bench, 12), [0, 4, 4, 4]);
}

#[test]
fn ejections_are_ignored_when_half_of_the_fleet_is_ejected() {
    let machines = three();
    let mut bench = Bench::new(&machines.each_ref());
    fail_at(&mut bench, &machines[0], Failure::Broken);
    let full: Vec<Grant> = (0..8).map(|_| bench.grant(&wanted("m"))).collect();
    let waits = bench.queued(&wanted("m"));

    let mut full = full.into_iter();
    let second = full
        .find(|grant| grant.agent.id == machines[1].id())
        .unwrap();
    bench.fail(second, Failure::Broken);

    let served = bench.served(waits).expect("two of three are ejected");
    assert_eq!(served.choice.reason, Reason::Panic);
    assert_ne!(served.agent.id, machines[2].id());
    let other = bench.grant(&wanted("m"));
    assert_eq!(other.choice.reason, Reason::Panic);
}

#[test]
fn lone_agent_that_failed_is_asked_all_the_same() {
    let machine = Machine::new(1, 4);
    let mut bench = Bench::new(&[&machine]);
    fail_at(&mut bench, &machine, Failure::Broken);

    assert_eq!(bench.grant(&wanted("m")).choice.reason, Reason::Panic);
}

#[test]
fn retry_goes_elsewhere_even_if_all_have_failed() {
    let machines = three();
    let mut bench = Bench::new(&machines[..2].iter().collect::<Vec<_>>());
    fail_at(&mut bench, &machines[0], Failure::Broken);
    fail_at(&mut bench, &machines[1], Failure::Broken);
    let tried = [machines[1].id()];

    let grant = bench.grant(&Wanted {
        tried: &tried,
        ..wanted("m")
    });

    assert_eq!(grant.agent.id, machines[0].id());
}

#[test]
fn busy_agent_counts_as_full_for_a_second() {
    let machines = three();
    let mut bench = Bench::new(&machines.each_ref());
    fail_at(&mut bench, &machines[0], Failure::Busy);

    assert_eq!(taken(&mut bench, 8), [0, 0, 4, 4]);
    assert_eq!(bench.state.take_news(), [], "it is no failure");
    bench.pass(SECOND);
    assert_eq!(taken(&mut bench, 12), [0, 4, 4, 4]);
}

#[test]
fn agent_without_the_model_is_not_asked_until_it_reports_or_half_a_minute_is_over() {
    let machines = [1, 2].map(|number| Machine::new(number, 4));
    let mut bench = Bench::new(&machines.each_ref());
    fail_at(&mut bench, &machines[0], Failure::NoModel);
    assert_eq!(taken(&mut bench, 4), [0, 0, 4, 0]);
    fail_at(&mut bench, &machines[1], Failure::NoModel);
    assert_eq!(
        bench.acquire(&wanted("m")).err(),
        Some(AcquireError::NoSuchModel)
    );

    bench.upsert(&machines[0].clone().with_loaded(&["m:latest"]));
    assert_eq!(taken(&mut bench, 4), [0, 4, 0, 0]);
    bench.pass(SECOND * 30);

    assert_eq!(taken(&mut bench, 8), [0, 4, 4, 0]);
}

#[test]
fn server_errors_eject_after_five_in_a_row() {
    let machines = three();
    let mut bench = Bench::new(&machines.each_ref());
    for _ in 0..4 {
        fail_at(&mut bench, &machines[0], Failure::Status(500));
    }
    assert_eq!(bench.state.take_news(), []);

    fail_at(&mut bench, &machines[0], Failure::Status(500));

    assert_eq!(bench.state.take_news(), [News::Ejected(machines[0].id())]);
}
