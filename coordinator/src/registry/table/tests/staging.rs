//! What is on its way to storage, and what is saved.

use super::*;

#[tokio::test(start_paused = true)]
async fn refused_commit_leaves_no_trace() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let nameless = NewAgent {
        id: None,
        session: None,
        ..agent(1)
    };
    let ticket = staged(&mut table, &nameless, now);

    table.abandon(&ticket, now);

    assert_eq!(table.counts().known, 0);
    assert!(register(&mut table, &nameless, now).is_new);
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
async fn patch_on_its_way_undoes_nothing_that_happened_meanwhile() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = register(&mut table, &agent(1), now).id;
    let patch = PatchAgentRequest {
        notes: Some("rack 4".to_owned()),
        ..Default::default()
    };
    let ticket = table.patch(id, patch, now).unwrap();
    let models = vec![Model::named("a:1b")];
    let report = RuntimeReport {
        models: models.clone(),
        ..RuntimeReport::default()
    };
    let news = HeartbeatRequest {
        runtime: Some(report),
        ..beat(1)
    };
    table.renew(id, None, news, after(now, 1.0)).unwrap();

    table.publish(ticket, after(now, 2.5));

    let record = table.get(id, after(now, 2.5)).unwrap().stored;
    assert_eq!(record.runtime.models, models);
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
async fn other_models_are_saved_soon() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = register(&mut table, &agent(1), now).id;
    table.take_save_soon();
    table.take_unsaved(Unsaved::HeardOf, now);
    let report = RuntimeReport {
        models: vec![Model::named("a:latest")],
        status: RuntimeStatus::Running,
        ..Default::default()
    };
    let appears = HeartbeatRequest {
        runtime: Some(report),
        ..beat(1)
    };

    table.renew(id, None, beat(1), now).unwrap();
    assert!(
        !table.take_save_soon(),
        "a plain heartbeat never touches the disk"
    );
    table.renew(id, None, appears, now).unwrap();

    assert!(table.take_save_soon());
    let saved = table.take_unsaved(Unsaved::Changed, now);
    assert_eq!(saved[0].runtime.models[0].name, "a:latest");
}
