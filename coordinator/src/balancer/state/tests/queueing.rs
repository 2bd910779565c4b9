//! Requests that wait.

use super::*;

fn of_client(client: u64) -> Wanted<'static> {
    Wanted {
        client,
        ..wanted("m")
    }
}

#[test]
fn free_slot_goes_to_the_next_client_in_turn() {
    let machine = Machine::new(1, 1);
    let mut bench = Bench::new(&[&machine]);
    let mut held = bench.grant(&wanted("m"));
    let tickets = [1, 1, 1, 2, 3].map(|client| bench.queued(&of_client(client)));
    let positions = tickets.map(|ticket| bench.state.position(ticket));
    assert_eq!(positions, [1, 4, 5, 2, 3].map(Some));

    let mut order = Vec::new();
    while order.len() < tickets.len() {
        bench.settle(held, Outcome::Success);
        let next = tickets
            .into_iter()
            .find_map(|ticket| Some((ticket, bench.served(ticket)?)));
        let (ticket, grant) = next.expect("somebody is next");
        assert_eq!(grant.choice.reason, Reason::Freed);
        order.push(ticket);
        held = grant;
    }

    let expected = [0, 3, 4, 1, 2].map(|index: usize| tickets[index]);
    assert_eq!(order, expected);
    assert_eq!(bench.state.queued(), 0);
}

#[test]
fn queue_is_bounded_in_length_and_time() {
    let machine = Machine::new(1, 1);
    let settings = Settings {
        queue_length: 2,
        ..Settings::default()
    };
    let mut bench = Bench::with(settings, &[&machine]);
    let _held = bench.grant(&wanted("m"));
    let first = bench.queued(&wanted("m"));
    bench.pass(Duration::from_secs(30));
    let second = bench.queued(&wanted("m"));

    assert_eq!(
        bench.acquire(&wanted("m")).err(),
        Some(AcquireError::QueueFull)
    );
    assert_eq!(bench.state.queues(), [("m:latest".to_owned(), 2)]);
    bench.pass(Duration::from_secs(30));

    assert_eq!(bench.state.take_woken(), [first]);
    assert_eq!(
        bench.state.collect(first).unwrap().err(),
        Some(AcquireError::QueueTimeout)
    );
    assert!(
        bench.state.collect(second).is_none(),
        "it has waited for half of its time"
    );
    assert_eq!(bench.state.queued(), 1);
}

#[test]
fn waiter_that_leaves_frees_its_place_and_what_it_was_given() {
    let machine = Machine::new(1, 1);
    let mut bench = Bench::new(&[&machine]);
    let held = bench.grant(&wanted("m"));
    let [gone, late, next] = [1, 2, 3].map(|client| bench.queued(&of_client(client)));

    bench.state.cancel(gone, bench.now);
    assert_eq!(bench.state.position(next), Some(2));
    bench.settle(held, Outcome::Success);
    bench.state.cancel(late, bench.now);

    assert!(bench.served(next).is_some());
    assert_eq!((bench.state.queued(), bench.state.in_flight()), (0, 1));
}

#[test]
fn nobody_overtakes_those_who_wait() {
    let machine = Machine::new(1, 1);
    let mut bench = Bench::new(&[&machine]);
    let held = bench.grant(&wanted("m"));
    let waits = bench.queued(&of_client(1));

    bench.settle(held, Outcome::Success);
    let late = bench.queued(&of_client(2));

    assert!(bench.served(waits).is_some());
    assert!(bench.served(late).is_none());
}

#[test]
fn whoever_may_use_a_slot_gets_it_past_those_who_may_not() {
    let (one, other) = (Machine::new(1, 1), Machine::new(2, 1));
    let mut bench = Bench::new(&[&one, &other]);
    let held = [(); 2].map(|()| bench.grant(&wanted("m")));
    let (tried, only) = ([one.id()], [one.id()]);
    let not_one = bench.queued(&Wanted {
        tried: &tried,
        ..of_client(1)
    });
    let only_one = bench.queued(&Wanted {
        only: &only,
        ..of_client(2)
    });

    let [first, second] = held;
    let (of_one, of_other) = if first.agent.id == one.id() {
        (first, second)
    } else {
        (second, first)
    };
    bench.settle(of_one, Outcome::Success);
    assert!(bench.served(not_one).is_none());
    assert_eq!(bench.served(only_one).unwrap().agent.id, one.id());
    bench.settle(of_other, Outcome::Success);

    assert_eq!(bench.served(not_one).unwrap().agent.id, other.id());
}

#[test]
fn slot_goes_to_the_model_that_was_waited_for_first() {
    let both = ["m:latest", "n:latest"];
    let machine = Machine::new(1, 1).with_models(&both).with_loaded(&both);
    let mut bench = Bench::new(&[&machine]);
    let held = bench.grant(&wanted("m"));
    let [first, second] = ["n", "m"].map(|model| bench.queued(&wanted(model)));

    bench.settle(held, Outcome::Success);

    assert!(bench.served(first).is_some());
    assert!(bench.served(second).is_none());
}

#[test]
fn model_in_memory_goes_first_until_the_other_has_little_time_left() {
    let machine = Machine::new(1, 1)
        .with_models(&["a:latest", "b:latest"])
        .with_loaded(&["a:latest"]);
    let mut bench = Bench::new(&[&machine]);
    let held = bench.grant(&wanted("a"));
    let cold = bench.queued(&wanted("b"));
    let [first, second] = [1, 2].map(|client| {
        bench.queued(&Wanted {
            client,
            ..wanted("a")
        })
    });

    bench.settle(held, Outcome::Success);
    let held = bench.served(first).expect("its model is in memory");
    bench.pass(Settings::default().queue_timeout * 3 / 4);
    bench.settle(held, Outcome::Success);

    assert!(bench.served(cold).is_some(), "it has waited for long");
    assert!(bench.served(second).is_none());
}

#[test]
fn agents_that_join_or_grow_serve_those_who_wait() {
    let (mut one, other) = (Machine::new(1, 1), Machine::new(2, 1));
    let mut bench = Bench::new(&[&one]);
    let _held = bench.grant(&wanted("m"));
    let tickets = [1, 2, 3].map(|client| bench.queued(&of_client(client)));

    bench.upsert(&other);
    one.capacity = 2;
    bench.upsert(&one);

    let served = tickets.map(|ticket| bench.served(ticket).map(|grant| grant.agent.id));
    assert_eq!(served, [Some(other.id()), Some(one.id()), None]);
}

#[test]
fn ended_hold_down_serves_those_who_wait_without_being_asked() {
    let machines = [1, 2, 3].map(|number| Machine::new(number, 1));
    let mut bench = Bench::new(&machines.each_ref());
    let held = [(); 3].map(|()| bench.grant(&wanted("m")));
    let [first, _second, _third] = held;
    bench.fail(first, Failure::Broken);
    let waits = bench.queued(&wanted("m"));

    let due = bench.state.next_deadline().expect("the hold-down ends");
    bench.now = due;
    bench.state.advance(due);

    assert_eq!(
        bench.served(waits).unwrap().choice.reason,
        Reason::Probation
    );
}
