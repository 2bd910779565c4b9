//! Leases and heartbeats.

use super::*;

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
    table.take_routing_changes();

    let with_load = HeartbeatRequest {
        metrics: Some(Metrics::default()),
        ..beat(1)
    };
    table.renew(id, None, with_load, now).unwrap();

    assert_eq!(table.revision(), known);
    assert_eq!(
        table.take_routing_changes().len(),
        1,
        "free memory may matter"
    );
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
    table.restart_leases(resumed.mono, Duration::from_secs(2));
    table.sweep(resumed);
    assert_eq!(table.counts().online, 10);

    table.sweep(after(resumed, 14.9));
    assert_eq!(table.counts().online, 10);
    table.sweep(after(resumed, 15.0));
    table.sweep(after(resumed, 19.0));
    assert_eq!(table.counts().online, 0, "silence after the pause counts");
}

#[tokio::test(start_paused = true)]
async fn agents_have_longer_to_come_back_after_a_longer_pause() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let ids = fleet(&mut table, 10, now);
    let resumed = after(now, 90.0);

    table.restart_leases(resumed.mono, Duration::from_secs(90));
    // What was sent meanwhile is read only now, and may be all that comes for a while.
    let late = table.renew(ids[0], None, beat(1), after(resumed, 0.1));
    assert!(late.is_ok());

    table.sweep(after(resumed, 59.9));
    assert_eq!(table.counts().online, 10);
    table.sweep(after(resumed, 60.0));
    table.sweep(after(resumed, 64.1));
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
