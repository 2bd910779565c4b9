//! Whose tunnel counts, and what its loss means.

use super::*;
use crate::registry::agent::TunnelId;

const FIRST: TunnelId = TunnelId(1);
const SECOND: TunnelId = TunnelId(2);

/// Registers an agent with a tunnel and a lease that is long enough to be shortened.
fn joined(now: Moment) -> (AgentTable, AgentId, SessionId) {
    let policy = LeasePolicy {
        fixed_ttl: Some(Duration::from_mins(5)),
        ..POLICY
    };
    let mut table = AgentTable::new(policy);
    let new = NewAgent {
        link: LinkKind::Tunnel,
        runtime: Some(RuntimeReport {
            status: RuntimeStatus::Running,
            models: vec![Model::named("a:latest")],
            ..RuntimeReport::default()
        }),
        ..agent(1)
    };
    let id = register(&mut table, &new, now).id;
    let session = new.session.unwrap();
    table.open_tunnel(id, (FIRST, session), now);
    (table, id, session)
}

fn reason(table: &AgentTable, id: AgentId, now: Moment) -> Option<UnroutableReason> {
    table.get(id, now).unwrap().reason
}

#[tokio::test(start_paused = true)]
async fn agent_that_has_lost_its_tunnel_is_offline_unless_it_is_heard_of_within_five_seconds() {
    let now = start();
    let (mut table, id, _) = joined(now);
    assert_eq!(reason(&table, id, now), None);

    table.close_tunnel(id, FIRST, now);

    assert_eq!(reason(&table, id, now), Some(UnroutableReason::NoTunnel));
    table.sweep(after(now, 4.9));
    assert_eq!(status(&table, id, now), AgentStatus::Online);
    table.sweep(after(now, 5.0));
    assert_eq!(status(&table, id, now), AgentStatus::Offline);
}

#[tokio::test(start_paused = true)]
async fn heartbeat_or_new_tunnel_after_the_loss_gives_the_whole_lease_again() {
    for returns in [false, true] {
        let now = start();
        let (mut table, id, session) = joined(now);
        table.close_tunnel(id, FIRST, now);

        if returns {
            table.open_tunnel(id, (SECOND, session), after(now, 1.0));
        } else {
            table.renew(id, None, beat(1), after(now, 1.0)).unwrap();
        }

        table.sweep(after(now, 60.0));
        assert_eq!(status(&table, id, now), AgentStatus::Online);
        assert_eq!(reason(&table, id, now).is_none(), returns);
    }
}

#[tokio::test(start_paused = true)]
async fn end_of_a_tunnel_that_was_replaced_changes_nothing() {
    let now = start();
    let (mut table, id, session) = joined(now);

    let replaced = table.open_tunnel(id, (SECOND, session), now);
    table.close_tunnel(id, FIRST, now);

    assert_eq!(replaced, Some(FIRST));
    assert_eq!(reason(&table, id, now), None);
}

#[tokio::test(start_paused = true)]
async fn tunnel_of_an_earlier_process_does_not_count() {
    let now = start();
    let (mut table, id, _) = joined(now);
    let restarted = NewAgent {
        session: Some(SessionId::from_u128(7)),
        link: LinkKind::Tunnel,
        ..agent(1)
    };

    register(&mut table, &restarted, now);

    assert_eq!(reason(&table, id, now), Some(UnroutableReason::NoTunnel));
}

#[tokio::test(start_paused = true)]
async fn agent_is_expected_back_only_for_a_while_and_only_for_what_its_agent_has() {
    let now = start();
    let (mut table, id, _) = joined(now);
    assert!(!table.awaits("a", now.mono));

    table.close_tunnel(id, FIRST, now);

    assert!(table.awaits("a", now.mono));
    assert!(!table.awaits("b", now.mono));
    assert!(!table.awaits("a", after(now, 5.0).mono));
}

#[tokio::test(start_paused = true)]
async fn agent_that_has_said_goodbye_may_be_restarting() {
    let now = start();
    let (mut table, id, session) = joined(now);

    let goodbye = table.leave(id, None, Some(session), now).unwrap().unwrap();
    table.publish(goodbye, now);

    assert!(table.awaits("a", now.mono));
    assert!(!table.awaits("a", after(now, 5.0).mono));
}

#[tokio::test(start_paused = true)]
async fn tunnel_that_comes_up_when_another_process_has_registered_is_not_used() {
    let now = start();
    let (mut table, id, session) = joined(now);
    let restarted = NewAgent {
        session: Some(SessionId::from_u128(7)),
        link: LinkKind::Tunnel,
        ..agent(1)
    };
    register(&mut table, &restarted, now);

    let replaced = table.open_tunnel(id, (SECOND, session), now);

    assert_eq!(replaced, Some(SECOND));
}

#[tokio::test(start_paused = true)]
async fn agent_that_registered_an_address_gets_no_tunnel() {
    let now = start();
    let mut table = AgentTable::new(POLICY);
    let id = register(&mut table, &agent(1), now).id;

    let refused = table.may_open_tunnel(id, None, SessionId::from_u128(1));

    assert_eq!(refused, Err(TunnelError::Direct));
}
