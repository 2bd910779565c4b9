//! The table under a clock that the test moves.

use std::time::Duration;

use ollama_coordinator_common::id::SessionId;
use ollama_coordinator_common::protocol::heartbeat::HeartbeatRequest;
use ollama_coordinator_common::protocol::runtime::{RuntimeReport, RuntimeStatus};
use ollama_coordinator_common::protocol::system::Metrics;
use ollama_coordinator_common::protocol::view::{AgentStatus, PatchAgentRequest, UnroutableReason};
use ollama_coordinator_common::secret::AgentSecret;
use proptest::prelude::*;

use super::*;
use crate::registry::registration::NewAgent;

const POLICY: LeasePolicy = LeasePolicy {
    interval: Duration::from_secs(1),
    fixed_ttl: None,
};

fn start() -> Moment {
    Moment::now()
}

fn after(now: Moment, seconds: f64) -> Moment {
    let by = Duration::from_secs_f64(seconds);
    Moment {
        mono: now.mono + by,
        wall: now.wall + by,
    }
}

fn agent(number: u128) -> NewAgent {
    NewAgent {
        id: Some(AgentId::from_u128(number)),
        secret: None,
        session: Some(SessionId::from_u128(number)),
        epoch: None,
        cloned_from: None,
        machine_name: format!("gpu-{number}"),
        ip_address: [127, 0, 0, 1].into(),
        port: 11434,
        ollama_version: None,
        runtime: None,
        system_info: None,
        agent_version: None,
    }
}

fn register(table: &mut AgentTable, new: &NewAgent, now: Moment) -> Granted {
    match table.register(new, now).unwrap() {
        Registration::Settled(granted) => granted,
        Registration::Staged(ticket) => table.publish(ticket, now).unwrap(),
    }
}

fn beat(session: u128) -> HeartbeatRequest {
    HeartbeatRequest {
        session: Some(SessionId::from_u128(session)),
        ..Default::default()
    }
}

fn status(table: &AgentTable, id: AgentId, now: Moment) -> AgentStatus {
    table.get(id, now).unwrap().status
}

fn fleet(table: &mut AgentTable, size: u128, now: Moment) -> Vec<AgentId> {
    (1..=size)
        .map(|number| register(table, &agent(number), now).id)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn silent_agent_is_offline_when_its_ttl_is_over() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = register(&mut table, &agent(1), now).id;

    table.sweep(after(now, 3.9));
    assert_eq!(status(&table, id, after(now, 3.9)), AgentStatus::Online);

    table.sweep(after(now, 4.0));
    assert_eq!(status(&table, id, after(now, 4.0)), AgentStatus::Offline);
    assert_eq!(
        table.counts(),
        Counts {
            known: 1,
            online: 0,
            presumed: 0
        }
    );
}

#[tokio::test(start_paused = true)]
async fn heartbeat_brings_an_offline_agent_back() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = register(&mut table, &agent(1), now).id;
    table.sweep(after(now, 10.0));

    table.renew(id, None, beat(1), after(now, 11.0)).unwrap();

    assert_eq!(status(&table, id, after(now, 11.0)), AgentStatus::Online);
    let transitions = table.take_transitions();
    assert!(
        matches!(transitions.last(), Some(Transition::Returned(_))),
        "{transitions:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn load_figures_are_told_but_make_nothing_anew() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = register(&mut table, &agent(1), now).id;
    table.take_transitions();
    let known = table.revision();

    let with_load = HeartbeatRequest {
        metrics: Some(Metrics::default()),
        ..beat(1)
    };
    table.renew(id, None, with_load, now).unwrap();

    assert_eq!(table.revision(), known);
    let told = table.take_transitions();
    assert!(matches!(told[..], [Transition::Changed(_)]), "{told:?}");
    let with_runtime = HeartbeatRequest {
        runtime: Some(RuntimeReport {
            status: RuntimeStatus::Running,
            version: Some("1".to_owned()),
            ..Default::default()
        }),
        ..beat(1)
    };
    table.renew(id, None, with_runtime, now).unwrap();
    assert_ne!(table.revision(), known);
}

#[tokio::test(start_paused = true)]
async fn reordered_and_repeated_heartbeats_do_not_renew() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = register(&mut table, &agent(1), now).id;
    let numbered = |seq| HeartbeatRequest {
        seq: Some(seq),
        ..beat(1)
    };
    table.renew(id, None, numbered(2), after(now, 1.0)).unwrap();

    table.renew(id, None, numbered(1), after(now, 3.0)).unwrap();
    table.renew(id, None, numbered(2), after(now, 4.0)).unwrap();

    table.sweep(after(now, 5.0));
    assert_eq!(status(&table, id, after(now, 5.0)), AgentStatus::Offline);
}

#[tokio::test(start_paused = true)]
async fn agents_of_an_earlier_run_stay_online_through_the_grace_period() {
    let now = start();
    let mut before = AgentTable::new(POLICY);
    let ids = fleet(&mut before, 10, now);
    let saved: Vec<StoredAgent> = before
        .snapshot(now)
        .iter()
        .map(|agent| StoredAgent::clone(&agent.stored))
        .collect();

    let mut table = AgentTable::new(POLICY);
    table.restore(saved, Some(now.wall), now);
    table.renew(ids[0], None, beat(1), after(now, 1.0)).unwrap();
    assert_eq!(
        table.counts(),
        Counts {
            known: 10,
            online: 10,
            presumed: 9
        }
    );

    table.sweep(after(now, 59.9));
    let online = |table: &AgentTable| table.counts().online;
    assert_eq!(
        online(&table),
        9,
        "only the one that was heard of and fell silent"
    );

    table.sweep(after(now, 60.0));
    assert_eq!(online(&table), 0);
}

#[tokio::test(start_paused = true)]
async fn agent_that_said_goodbye_or_was_long_silent_is_not_presumed_alive() {
    let now = start();
    let mut before = AgentTable::new(POLICY);
    fleet(&mut before, 3, now);
    let mut saved: Vec<StoredAgent> = before
        .snapshot(now)
        .iter()
        .map(|agent| StoredAgent::clone(&agent.stored))
        .collect();
    saved[0].left_at = Some(now.wall);
    saved[1].last_seen = now.wall - Duration::from_secs(301);

    let mut table = AgentTable::new(POLICY);
    table.restore(saved, Some(now.wall), now);

    assert_eq!(
        table.counts(),
        Counts {
            known: 3,
            online: 1,
            presumed: 1
        }
    );
}

#[tokio::test(start_paused = true)]
async fn pause_of_the_coordinator_takes_nobody_offline() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    fleet(&mut table, 10, now);

    let resumed = after(now, 90.0);
    table.restart_leases(resumed.mono);
    table.sweep(resumed);
    assert_eq!(table.counts().online, 10);

    table.sweep(after(resumed, 14.9));
    assert_eq!(table.counts().online, 10);
    table.sweep(after(resumed, 15.0));
    table.sweep(after(resumed, 19.0));
    assert_eq!(table.counts().online, 0, "silence after the pause counts");
}

#[tokio::test(start_paused = true)]
async fn when_most_fall_silent_at_once_the_coordinator_doubts_itself_for_one_ttl() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    fleet(&mut table, 10, now);

    table.sweep(after(now, 4.0));
    assert_eq!(table.counts().online, 10);
    let transitions = table.take_transitions();
    let suspected =
        |t: &Transition| matches!(t, Transition::IsolationSuspected { overdue: 10, .. });
    assert!(transitions.iter().any(suspected), "{transitions:?}");

    table.sweep(after(now, 8.0));
    assert_eq!(table.counts().online, 0, "then statuses tell the truth");
}

#[tokio::test(start_paused = true)]
async fn one_silent_agent_among_many_is_offline_at_once() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let ids = fleet(&mut table, 10, now);
    for (number, id) in (1..).zip(&ids).skip(1) {
        table
            .renew(*id, None, beat(number), after(now, 3.0))
            .unwrap();
    }

    table.sweep(after(now, 4.0));

    assert_eq!(table.counts().online, 9);
    assert_eq!(
        status(&table, ids[0], after(now, 4.0)),
        AgentStatus::Offline
    );
}

#[tokio::test(start_paused = true)]
async fn known_id_without_its_secret_is_refused_and_changes_nothing() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let secret = AgentSecret::generate().hash();
    let owner = NewAgent {
        secret: Some(secret),
        ..agent(1)
    };
    let id = register(&mut table, &owner, now).id;
    let thief = NewAgent {
        machine_name: "thief".to_owned(),
        ..agent(1)
    };
    let other = NewAgent {
        secret: Some(AgentSecret::generate().hash()),
        ..thief.clone()
    };
    let nameless = NewAgent {
        id: None,
        session: None,
        ..thief.clone()
    };

    for intruder in [thief, other, nameless] {
        let refused = table.register(&intruder, now);
        assert!(
            matches!(refused, Err(RegisterError::WrongSecret)),
            "{refused:?}"
        );
    }
    assert_eq!(
        table.renew(id, None, beat(1), now),
        Err(RenewError::WrongSecret)
    );
    assert_eq!(table.get(id, now).unwrap().stored.machine_name, "gpu-1");
}

#[tokio::test(start_paused = true)]
async fn registration_without_an_id_is_matched_by_its_endpoint() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let nameless = NewAgent {
        id: None,
        session: None,
        ..agent(1)
    };
    let elsewhere = NewAgent {
        port: 11435,
        ..nameless.clone()
    };

    let first = register(&mut table, &nameless, now);
    let again = register(&mut table, &nameless, now);
    let other = register(&mut table, &elsewhere, now);

    assert!(first.is_new && !again.is_new && other.is_new);
    assert_eq!(first.id, again.id);
    assert_ne!(first.id, other.id);
}

#[tokio::test(start_paused = true)]
async fn two_registrations_of_one_endpoint_before_either_is_durable_share_an_id() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let nameless = NewAgent {
        id: None,
        session: None,
        ..agent(1)
    };
    let Registration::Staged(first) = table.register(&nameless, now).unwrap() else {
        panic!("a new agent has to be committed");
    };
    let Registration::Staged(second) = table.register(&nameless, now).unwrap() else {
        panic!("an agent that is not durable yet has to be committed");
    };

    let first = table.publish(first, now).unwrap();
    let second = table.publish(second, now).unwrap();

    assert_eq!(first.id, second.id);
    assert_eq!(table.counts().known, 1);
}

#[tokio::test(start_paused = true)]
async fn refused_commit_leaves_no_trace() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let nameless = NewAgent {
        id: None,
        session: None,
        ..agent(1)
    };
    let Registration::Staged(ticket) = table.register(&nameless, now).unwrap() else {
        panic!("a new agent has to be committed");
    };

    table.abandon(&ticket, now);

    assert_eq!(table.counts().known, 0);
    assert!(register(&mut table, &nameless, now).is_new);
}

#[tokio::test(start_paused = true)]
async fn cloned_machine_is_told_to_make_a_new_identity_and_the_first_keeps_its_own() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = register(&mut table, &agent(1), now).id;
    table.renew(id, None, beat(1), now).unwrap();
    let clone = NewAgent {
        session: Some(SessionId::from_u128(2)),
        ..agent(1)
    };
    assert_eq!(register(&mut table, &clone, after(now, 1.0)).epoch, 2);

    table.renew(id, None, beat(2), after(now, 1.5)).unwrap();
    table.renew(id, None, beat(1), after(now, 2.0)).unwrap();
    table.renew(id, None, beat(1), after(now, 3.0)).unwrap();

    let refused = table.renew(id, None, beat(2), after(now, 3.5));
    assert_eq!(refused, Err(RenewError::DuplicateIdentity));
    let refused = table.register(&clone, after(now, 3.6));
    assert!(
        matches!(refused, Err(RegisterError::DuplicateIdentity)),
        "{refused:?}"
    );
    assert!(table.renew(id, None, beat(1), after(now, 4.0)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn agent_restarted_after_a_crash_takes_over_at_once() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = register(&mut table, &agent(1), now).id;
    let restarted = NewAgent {
        session: Some(SessionId::from_u128(2)),
        ..agent(1)
    };
    register(&mut table, &restarted, after(now, 1.0));

    let late = table.renew(id, None, beat(1), after(now, 1.1));

    assert!(
        late.is_ok(),
        "one heartbeat may still have been on its way: {late:?}"
    );
    for second in 2..20 {
        assert!(
            table
                .renew(id, None, beat(2), after(now, f64::from(second)))
                .is_ok()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn registry_older_than_the_agent_asks_it_to_register_again() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = register(&mut table, &agent(1), now).id;

    let newer = HeartbeatRequest {
        epoch: Some(7),
        ..beat(1)
    };
    assert_eq!(
        table.renew(id, None, newer, now),
        Err(RenewError::UnknownAgent)
    );
    let again = NewAgent {
        epoch: Some(7),
        ..agent(1)
    };
    assert_eq!(register(&mut table, &again, now).epoch, 8);
}

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
    assert_eq!(table.take_reach_checks(after(now, 1.9).mono, 10), []);

    let check = table
        .take_reach_checks(after(now, 2.0).mono, 10)
        .pop()
        .unwrap();
    table.record_reach(check, Some(RuntimeReport::default()), after(now, 2.0));
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
async fn change_on_its_way_to_storage_is_not_overwritten_by_a_save() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    register(&mut table, &agent(1), now);
    register(&mut table, &agent(2), now);
    let patch = PatchAgentRequest {
        draining: Some(true),
        ..Default::default()
    };
    let ticket = table.patch(AgentId::from_u128(1), patch, now);

    let saved = table.take_unsaved(Unsaved::HeardOf, now);

    assert_eq!(saved.len(), 1, "{saved:?}");
    table.publish(ticket.unwrap(), now);
    assert_eq!(table.take_unsaved(Unsaved::HeardOf, now).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn last_seen_is_never_in_the_future_when_the_wall_clock_is_set_back() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = register(&mut table, &agent(1), now).id;
    let set_back = Moment {
        wall: now.wall - Duration::from_hours(2),
        ..after(now, 3.0)
    };

    let agent = table.get(id, set_back).unwrap();

    assert_eq!(agent.last_seen, set_back.wall - Duration::from_secs(3));
}

fn staged(table: &mut AgentTable, new: &NewAgent, now: Moment) -> Ticket {
    match table.register(new, now).unwrap() {
        Registration::Staged(ticket) => ticket,
        Registration::Settled(granted) => panic!("it had to be committed, not {granted:?}"),
    }
}

fn committed(ticket: &Ticket) -> StoredAgent {
    match ticket.to_commit() {
        crate::storage::Change::Put(stored) => StoredAgent::clone(&stored),
        crate::storage::Change::Remove(id) => panic!("{id} is removed"),
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_is_committed_carries_the_time_the_agent_was_last_seen() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = register(&mut table, &agent(1), now).id;
    let tomorrow = after(now, 86_400.0);
    let restarted = NewAgent {
        session: Some(SessionId::from_u128(2)),
        ..agent(1)
    };

    let registration = staged(&mut table, &restarted, tomorrow);
    assert_eq!(committed(&registration).last_seen, tomorrow.wall);
    table.publish(registration, tomorrow);

    let patched = table
        .patch(id, PatchAgentRequest::default(), after(tomorrow, 2.0))
        .unwrap();
    assert_eq!(committed(&patched).last_seen, tomorrow.wall);
}

#[tokio::test(start_paused = true)]
async fn agent_that_returns_is_saved_soon() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = register(&mut table, &agent(1), now).id;
    table.take_unsaved(Unsaved::HeardOf, now);
    table.sweep(after(now, 10.0));
    assert_eq!(
        table.take_unsaved(Unsaved::Changed, after(now, 10.0)).len(),
        0
    );

    table.renew(id, None, beat(1), after(now, 11.0)).unwrap();

    let saved = table.take_unsaved(Unsaved::Changed, after(now, 11.0));
    assert_eq!(saved[0].last_seen, after(now, 11.0).wall);
}

#[tokio::test(start_paused = true)]
async fn save_that_storage_refused_is_tried_again() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    register(&mut table, &agent(1), now);
    table.sweep(after(now, 10.0));
    let refused = table.take_unsaved(Unsaved::Changed, after(now, 10.0));
    assert_eq!(refused.len(), 1);

    table.put_back_unsaved(&refused);

    assert_eq!(
        table.take_unsaved(Unsaved::Changed, after(now, 11.0)).len(),
        1
    );
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
async fn heartbeat_is_told_the_terms_that_were_granted() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    fleet(&mut table, 20_000, now);
    let id = AgentId::from_u128(1);

    let told = table.renew(id, None, beat(1), now).unwrap().terms;

    let granted = table.records[&id].lease.unwrap().terms();
    assert_eq!(told, granted);
}

#[tokio::test(start_paused = true)]
async fn heartbeat_number_without_a_session_means_nothing() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let nameless = NewAgent {
        session: None,
        ..agent(1)
    };
    let id = register(&mut table, &nameless, now).id;
    let numbered = |seq| HeartbeatRequest {
        seq: Some(seq),
        ..Default::default()
    };
    table.renew(id, None, numbered(u64::MAX), now).unwrap();

    table.renew(id, None, numbered(1), after(now, 3.0)).unwrap();

    table.sweep(after(now, 5.0));
    assert_eq!(status(&table, id, after(now, 5.0)), AgentStatus::Online);
}

#[tokio::test(start_paused = true)]
async fn heartbeat_that_is_answered_online_is_online() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = register(&mut table, &agent(1), now).id;
    let numbered = HeartbeatRequest {
        seq: Some(7),
        ..beat(1)
    };
    table.renew(id, None, numbered.clone(), now).unwrap();
    table.sweep(after(now, 10.0));

    table.renew(id, None, numbered, after(now, 10.0)).unwrap();

    assert_eq!(status(&table, id, after(now, 10.0)), AgentStatus::Online);
}

#[tokio::test(start_paused = true)]
async fn goodbye_of_a_process_that_was_followed_by_another_changes_nothing() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = register(&mut table, &agent(1), now).id;
    let next = NewAgent {
        session: Some(SessionId::from_u128(2)),
        ..agent(1)
    };
    let ticket = staged(&mut table, &next, now);

    let goodbye = table.leave(id, None, Some(SessionId::from_u128(1)), now);

    assert!(matches!(goodbye, Ok(None)), "{goodbye:?}");
    table.publish(ticket, now);
    assert_eq!(status(&table, id, now), AgentStatus::Online);
}

#[tokio::test(start_paused = true)]
async fn patch_on_its_way_undoes_nothing_that_happened_meanwhile() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = register(&mut table, &agent(1), now).id;
    let clone = NewAgent {
        session: Some(SessionId::from_u128(2)),
        ..agent(1)
    };
    register(&mut table, &clone, now);
    let patch = PatchAgentRequest {
        notes: Some("rack 4".to_owned()),
        ..Default::default()
    };
    let ticket = table.patch(id, patch, now).unwrap();
    table.renew(id, None, beat(1), after(now, 1.0)).unwrap();
    table.renew(id, None, beat(1), after(now, 2.0)).unwrap();

    table.publish(ticket, after(now, 2.5));

    let record = table.get(id, after(now, 2.5)).unwrap().stored;
    assert_eq!(
        record.session,
        Some(SessionId::from_u128(1)),
        "the first keeps the id"
    );
    assert_eq!(record.notes.as_deref(), Some("rack 4"));
}

#[tokio::test(start_paused = true)]
async fn endpoint_stays_known_through_a_removal_in_flight() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let nameless = NewAgent {
        id: None,
        session: None,
        ..agent(1)
    };
    let first = register(&mut table, &nameless, now).id;
    let removal = table.remove(first, now).unwrap();
    let again = NewAgent {
        id: Some(first),
        ..nameless.clone()
    };
    let registration = staged(&mut table, &again, now);

    table.publish(removal, now);
    table.publish(registration, now);

    assert_eq!(register(&mut table, &nameless, now).id, first);
}

#[tokio::test(start_paused = true)]
async fn load_figures_leave_routing_as_it_is() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = register(&mut table, &agent(1), now).id;
    let (revision, routing) = (table.revision(), table.routing_revision());
    let load = HeartbeatRequest {
        metrics: Some(Metrics::default()),
        ..beat(1)
    };

    table.renew(id, None, load, now).unwrap();

    assert_eq!(
        (table.revision(), table.routing_revision()),
        (revision, routing)
    );
    let transitions = table.take_transitions();
    assert!(
        matches!(transitions.last(), Some(Transition::Changed(_))),
        "{transitions:?}"
    );
}

#[derive(Debug, Clone)]
enum Step {
    Register(u128),
    Beat(u128),
    Leave(u128),
    Remove(u128),
    Sweep,
}

fn steps() -> impl Strategy<Value = Vec<(f64, Step)>> {
    let step = (0_u8..5, 1_u128..5).prop_map(|(kind, number)| match kind {
        0 => Step::Register(number),
        1 => Step::Beat(number),
        2 => Step::Leave(number),
        3 => Step::Remove(number),
        _ => Step::Sweep,
    });
    proptest::collection::vec((0.0..3.0, step), 1..60)
}

proptest! {
    #[test]
    fn counts_deadlines_and_records_always_agree(steps in steps()) {
        let mut table = AgentTable::new(POLICY);
        let mut now = start();
        for (pause, step) in steps {
            now = after(now, pause);
            match step {
                Step::Register(number) => {
                    register(&mut table, &agent(number), now);
                }
                Step::Beat(number) => {
                    let known = table.get(AgentId::from_u128(number), now).is_some();
                    let renewed = table.renew(AgentId::from_u128(number), None, beat(number), now);
                    prop_assert_eq!(renewed.is_ok(), known);
                }
                Step::Leave(number) => {
                    let left = table.leave(AgentId::from_u128(number), None, None, now);
                    if let Ok(Some(ticket)) = left {
                        table.publish(ticket, now);
                    }
                }
                Step::Remove(number) => {
                    if let Some(ticket) = table.remove(AgentId::from_u128(number), now) {
                        table.publish(ticket, now);
                    }
                }
                Step::Sweep => table.sweep(now),
            }
            let online = table.records.values().filter(|r| r.lease.is_some()).count();
            prop_assert_eq!(table.counts().online, online);
            prop_assert!(table.staged.is_empty());
            for (id, record) in &table.records {
                let scheduled = record.scheduled.map(|at| table.deadlines.contains(&(at, *id)));
                prop_assert_eq!(scheduled.unwrap_or(true), true, "a scheduled deadline is in the set");
                if let Some(lease) = record.lease {
                    let by = record.scheduled.expect("an online agent has a deadline");
                    prop_assert!(by <= lease.deadline());
                }
            }
        }
        table.sweep(after(now, 10_000.0));
        table.sweep(after(now, 20_000.0));
        prop_assert_eq!(table.counts().online, 0, "silence takes everybody offline");
    }
}
