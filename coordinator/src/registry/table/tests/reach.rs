//! What makes an agent routable.

use super::*;

#[tokio::test(start_paused = true)]
async fn agent_is_routable_only_after_a_runtime_answered_at_its_address() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = register(&mut table, &agent(1), now).id;
    let reason = |table: &AgentTable| table.get(id, now).unwrap().reason;
    assert_eq!(reason(&table), Some(UnroutableReason::Unverified));

    let check = table.take_reach_checks(now.mono, 10).pop().unwrap();
    table.record_reach(check, None, now);
    assert_eq!(reason(&table), Some(UnroutableReason::Unreachable));
    assert_eq!(table.take_reach_checks(after(now, 0.4).mono, 10), []);

    let check = table
        .take_reach_checks(after(now, 0.5).mono, 10)
        .pop()
        .unwrap();
    table.record_reach(check, Some(RuntimeReport::default()), after(now, 0.5));
    assert_eq!(reason(&table), None);
}

#[tokio::test(start_paused = true)]
async fn check_of_an_address_the_agent_has_left_does_not_count() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = register(&mut table, &agent(1), now).id;
    let check = table.take_reach_checks(now.mono, 10).pop().unwrap();
    register(
        &mut table,
        &NewAgent {
            port: 11435,
            ..agent(1)
        },
        now,
    );

    table.record_reach(check, Some(RuntimeReport::default()), now);

    assert_eq!(
        table.get(id, now).unwrap().reason,
        Some(UnroutableReason::Unverified)
    );
}

#[tokio::test(start_paused = true)]
async fn runtime_that_stops_makes_its_agent_unroutable_but_not_offline() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = register(&mut table, &agent(1), now).id;
    let stopped = RuntimeReport {
        status: RuntimeStatus::NotAnswering,
        ..Default::default()
    };

    let report = HeartbeatRequest {
        runtime: Some(stopped),
        ..beat(1)
    };
    let renewed = table.renew(id, None, report, now).unwrap();

    assert_eq!(renewed.reason, Some(UnroutableReason::RuntimeNotAnswering));
    assert_eq!(status(&table, id, now), AgentStatus::Online);
}

#[tokio::test(start_paused = true)]
async fn address_that_answered_once_is_tried_again_now_and_then() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = register(&mut table, &agent(1), now).id;
    let check = table.take_reach_checks(now.mono, 10).pop().unwrap();
    table.record_reach(check, Some(RuntimeReport::default()), now);
    assert_eq!(table.take_reach_checks(after(now, 3.0).mono, 10), []);

    table.doubt_reach(id, after(now, 3.0).mono);
    assert_eq!(
        table.take_reach_checks(after(now, 3.0).mono, 10).len(),
        1,
        "when in doubt"
    );
    table.record_reach(check, Some(RuntimeReport::default()), after(now, 3.0));
    table.renew(id, None, beat(1), after(now, 33.0)).unwrap();

    let check = table
        .take_reach_checks(after(now, 33.0).mono, 10)
        .pop()
        .unwrap();
    table.record_reach(check, None, after(now, 33.0));
    let agent = table.get(id, after(now, 33.0)).unwrap();
    assert_eq!(agent.reason, Some(UnroutableReason::Unreachable));
}

#[tokio::test(start_paused = true)]
async fn forgotten_and_registered_again_an_address_is_tried_once() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    for _ in 0..10 {
        let id = register(&mut table, &agent(1), now).id;
        let ticket = table.remove(id, now).unwrap();
        table.publish(ticket, now);
    }
    register(&mut table, &agent(1), now);

    assert_eq!(table.take_reach_checks(after(now, 60.0).mono, 100).len(), 1);
    assert_eq!(table.deadlines.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn restored_agents_are_a_change_of_routing() {
    let now = start();
    let mut before = AgentTable::new(POLICY);
    register(&mut before, &agent(1), now);
    let saved = before.take_unsaved(Unsaved::HeardOf, now);
    let mut table = AgentTable::new(POLICY);
    let empty = table.routing_revision();

    table.restore(vec![StoredAgent::clone(&saved[0])], Some(now.wall), now);

    assert_ne!(table.routing_revision(), empty);
}
