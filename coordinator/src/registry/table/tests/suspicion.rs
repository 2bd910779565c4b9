//! Heartbeats that are missing while a runtime may still be there.

use super::*;
use crate::registry::transition::Transition;

/// Registers an agent whose runtime has answered.
fn reached(table: &mut AgentTable, number: u128, now: Moment) -> AgentId {
    let id = register(table, &agent(number), now).id;
    answer(table, true, now);
    table.take_transitions();
    table.take_routing_changes();
    id
}

/// Answers, or not, at all addresses that have to be tried; returns how many those are.
fn answer(table: &mut AgentTable, has_answered: bool, now: Moment) -> usize {
    let checks = table.take_reach_checks(now.mono, usize::MAX);
    for check in &checks {
        let found = has_answered.then(RuntimeReport::default);
        table.record_reach(*check, found, now);
    }
    checks.len()
}

fn is_suspect(table: &mut AgentTable, id: AgentId) -> Option<bool> {
    let changes = table.take_routing_changes();
    let facts = changes.get(&id)?.as_ref()?;
    assert!(facts.is_routable);
    Some(facts.is_suspect)
}

fn shown(table: &AgentTable, id: AgentId, now: Moment) -> (AgentStatus, Option<AgentWarning>) {
    let agent = table.get(id, now).unwrap();
    (agent.status, agent.warning)
}

const KEPT: (AgentStatus, Option<AgentWarning>) =
    (AgentStatus::Online, Some(AgentWarning::HeartbeatsMissing));
const OFFLINE: (AgentStatus, Option<AgentWarning>) = (AgentStatus::Offline, None);

#[tokio::test(start_paused = true)]
async fn late_agent_is_suspect_and_tried_until_it_is_heard_of() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = reached(&mut table, 1, now);

    table.sweep(after(now, 1.9));
    assert_eq!(is_suspect(&mut table, id), None);
    assert!(!table.is_reach_due(after(now, 1.9).mono));
    table.sweep(after(now, 2.0));

    assert_eq!(is_suspect(&mut table, id), Some(true));
    assert!(table.is_reach_due(after(now, 2.0).mono));
    assert_eq!(
        shown(&table, id, after(now, 2.0)),
        (AgentStatus::Online, None)
    );
    table.renew(id, None, beat(1), after(now, 2.5)).unwrap();
    assert_eq!(is_suspect(&mut table, id), Some(false));
    assert!(table.take_transitions().is_empty(), "nothing to be seen");
}

#[tokio::test(start_paused = true)]
async fn silent_agent_is_offline_after_its_ttl_when_its_runtime_is_silent_too() {
    for tries in [false, true] {
        let now = start();
        let mut table = AgentTable::new(POLICY);
        let id = reached(&mut table, 1, now);
        table.sweep(after(now, 2.0));
        if tries {
            assert_eq!(answer(&mut table, false, after(now, 2.0)), 1);
            let agent = table.get(id, after(now, 2.0)).unwrap();
            assert_eq!(agent.reason, Some(UnroutableReason::Unreachable));
        }

        table.sweep(after(now, 4.0));

        assert_eq!(shown(&table, id, after(now, 4.0)), OFFLINE);
    }
}

#[tokio::test(start_paused = true)]
async fn runtime_that_answers_keeps_its_silent_agent_online_with_a_warning_for_five_ttls() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = reached(&mut table, 1, now);
    table.sweep(after(now, 2.0));
    assert_eq!(answer(&mut table, true, after(now, 2.1)), 1);

    for ttl in 1..=5 {
        let over = after(now, 4.0 * f64::from(ttl));
        table.sweep(over);
        assert_eq!(shown(&table, id, over), KEPT, "after {ttl} TTLs");
        assert_eq!(answer(&mut table, true, over), 1, "it is tried again");
    }
    let told = table.take_transitions();
    assert!(
        matches!(told[..], [Transition::HeartbeatsMissing { .. }]),
        "{told:?}"
    );
    assert_eq!(is_suspect(&mut table, id), Some(true));
    let end = after(now, 24.0);
    table.sweep(end);

    assert_eq!(shown(&table, id, end), OFFLINE);
}

#[tokio::test(start_paused = true)]
async fn answer_counts_for_one_ttl_and_only_when_no_failure_came_after_it() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = reached(&mut table, 1, now);
    table.sweep(after(now, 2.0));
    answer(&mut table, true, after(now, 2.0));
    table.sweep(after(now, 4.0));
    answer(&mut table, true, after(now, 4.0));
    table.doubt_reach(id, after(now, 5.0).mono);
    answer(&mut table, false, after(now, 5.0));

    table.sweep(after(now, 8.0));

    assert_eq!(shown(&table, id, after(now, 8.0)), OFFLINE);
}

#[tokio::test(start_paused = true)]
async fn kept_agent_is_back_with_its_next_word_and_gone_with_its_goodbye() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let ids = [1, 2, 3].map(|number| reached(&mut table, number, now));
    for at in [2.0, 4.0] {
        table.sweep(after(now, at));
        answer(&mut table, true, after(now, at));
    }
    // Three at once: the coordinator doubts itself for one TTL.
    table.sweep(after(now, 8.0));
    let later = after(now, 8.0);
    for id in ids {
        assert_eq!(shown(&table, id, later), KEPT);
    }
    table.take_transitions();

    table.renew(ids[0], None, beat(1), later).unwrap();
    register(&mut table, &agent(2), later);
    let goodbye = table.leave(ids[2], None, None, later).unwrap();
    table.publish(goodbye.expect("it is its session"), later);

    let told = table.take_transitions();
    assert!(
        matches!(
            told[..],
            [
                Transition::Returned(_),
                Transition::Returned(_),
                Transition::Left(_)
            ]
        ),
        "{told:?}"
    );
    let all = ids.map(|id| shown(&table, id, later));
    assert_eq!(
        all,
        [
            (AgentStatus::Online, None),
            (AgentStatus::Online, None),
            OFFLINE
        ]
    );
}
