//! Any sequence of steps keeps the table consistent.

use super::*;
use crate::registry::agent::TunnelId;

#[derive(Debug, Clone)]
enum Step {
    Register(u128),
    Beat(u128),
    Leave(u128),
    Remove(u128),
    Open(u128, u64),
    Close(u128, u64),
    Sweep,
}

fn steps() -> impl Strategy<Value = Vec<(f64, Step)>> {
    let step = (0_u8..7, 1_u128..5, 0_u64..4).prop_map(|(kind, number, tunnel)| match kind {
        0 => Step::Register(number),
        1 => Step::Beat(number),
        2 => Step::Leave(number),
        3 => Step::Remove(number),
        4 => Step::Open(number, tunnel),
        5 => Step::Close(number, tunnel),
        _ => Step::Sweep,
    });
    proptest::collection::vec((0.0..3.0, step), 1..60)
}

/// Every other agent carries its traffic itself.
fn linked(number: u128) -> NewAgent {
    let link = if number.is_multiple_of(2) {
        LinkKind::Tunnel
    } else {
        LinkKind::Direct
    };
    NewAgent {
        link,
        ..agent(number)
    }
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
                    register(&mut table, &linked(number), now);
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
                Step::Open(number, tunnel) => {
                    let id = AgentId::from_u128(number);
                    let session = SessionId::from_u128(number);
                    if table.may_open_tunnel(id, None, session).is_ok() {
                        table.open_tunnel(id, (TunnelId(tunnel), session), now);
                    }
                }
                Step::Close(number, tunnel) => {
                    table.close_tunnel(AgentId::from_u128(number), TunnelId(tunnel), now);
                }
                Step::Sweep => table.sweep(now),
            }
            let online = table.records.values().filter(|r| r.lease.is_some()).count();
            prop_assert_eq!(table.counts().online, online);
            prop_assert!(table.staged.is_empty());
            for (id, record) in &table.records {
                let is_dialled = table.by_endpoint.iter().any(|(_, other)| other == id);
                prop_assert_eq!(is_dialled, record.stored.link == LinkKind::Direct);
                prop_assert!(is_dialled || record.next_reach_check.is_none());
                let scheduled = record.scheduled.map(|at| table.deadlines.contains(&(at, *id)));
                prop_assert_eq!(scheduled.unwrap_or(true), true, "a scheduled deadline is in the set");
                if let Some(lease) = record.lease {
                    let by = record.scheduled.expect("an online agent has a deadline");
                    prop_assert!(by <= lease.next_decision());
                }
            }
        }
        table.sweep(after(now, 10_000.0));
        table.sweep(after(now, 20_000.0));
        prop_assert_eq!(table.counts().online, 0, "silence takes everybody offline");
    }
}
