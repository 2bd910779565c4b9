//! Who is who.

use super::*;

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
    let first = staged(&mut table, &nameless, now);
    let second = staged(&mut table, &nameless, now);

    let first = table.publish(first, now).unwrap();
    let second = table.publish(second, now).unwrap();

    assert_eq!(first.id, second.id);
    assert_eq!(table.counts().known, 1);
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
    let proven = table.renew(id, None, beat(1), after(now, 3.0));

    assert_eq!(proven, Err(RenewError::UnknownAgent), "it registers again");
    assert_eq!(register(&mut table, &agent(1), after(now, 3.4)).epoch, 3);
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
async fn first_of_two_machines_gets_its_record_back_with_its_own_address() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = register(&mut table, &agent(1), now).id;
    let clone = NewAgent {
        session: Some(SessionId::from_u128(2)),
        ip_address: [127, 0, 0, 2].into(),
        ..agent(1)
    };
    register(&mut table, &clone, after(now, 1.0));
    let told = |epoch| HeartbeatRequest {
        epoch: Some(epoch),
        ..beat(1)
    };

    let answered = table.renew(id, None, told(1), after(now, 1.1)).unwrap();
    let proven = table.renew(id, None, told(answered.epoch), after(now, 2.1));
    assert_eq!(proven, Err(RenewError::UnknownAgent));
    register(&mut table, &agent(1), after(now, 2.2));

    let agent = table.get(id, after(now, 2.2)).unwrap();
    assert_eq!(
        agent.stored.ip_address,
        std::net::IpAddr::from([127, 0, 0, 1])
    );
    assert_eq!(agent.stored.session, Some(SessionId::from_u128(1)));
    let refused = table.renew(id, None, beat(2), after(now, 2.3));
    assert_eq!(refused, Err(RenewError::DuplicateIdentity));
}

#[tokio::test(start_paused = true)]
async fn heartbeats_that_a_dead_process_left_on_their_way_prove_nothing() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = register(&mut table, &agent(1), now).id;
    let restarted = NewAgent {
        session: Some(SessionId::from_u128(2)),
        ..agent(1)
    };
    register(&mut table, &restarted, after(now, 1.0));

    for seq in 1..9 {
        let late = HeartbeatRequest {
            epoch: Some(1),
            seq: Some(seq),
            ..beat(1)
        };
        table.renew(id, None, late, after(now, 1.1)).unwrap();
    }

    assert!(table.renew(id, None, beat(2), after(now, 1.2)).is_ok());
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
async fn two_agents_in_front_of_one_runtime_are_pointed_out() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    register(&mut table, &agent(1), now);
    table.take_transitions();

    register(&mut table, &agent(2), now);

    let transitions = table.take_transitions();
    let shared = |t: &Transition| matches!(t, Transition::EndpointShared { .. });
    assert!(transitions.iter().any(shared), "{transitions:?}");
}
