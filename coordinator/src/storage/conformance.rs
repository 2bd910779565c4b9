//! What every [`Store`] must do, as one suite for all of them.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use ollama_coordinator_common::id::AgentId;

use super::agent::StoredAgent;
use super::{Change, Store};

/// Runs the suite. `open` opens the same, at first empty, store each time, as a restart would; the
/// one before is dropped by then.
///
/// # Panics
/// A rule is broken; the message says which.
pub fn check(mut open: impl FnMut() -> Box<dyn Store>) {
    starts_empty(open());
    expect(open(), [], "loading alone must not store anything");

    let [first, second, third] = [1, 2, 3].map(agent);
    commit_to(open(), &[put(&third), put(&first), put(&second)]);
    expect(
        open(),
        [&first, &second, &third],
        "everything put must be loaded, sorted by id",
    );

    let mut renamed = first.clone();
    "renamed".clone_into(&mut renamed.machine_name);
    renamed.extra.insert("from_the_future".to_owned(), 7.into());
    commit_to(open(), &[put(&renamed)]);
    expect(
        open(),
        [&renamed, &second, &third],
        "a put must replace the whole record, unknown fields included",
    );

    let unknown = AgentId::from_u128(99);
    commit_to(
        open(),
        &[Change::Remove(second.id), Change::Remove(unknown)],
    );
    expect(
        open(),
        [&renamed, &third],
        "a removal must forget one agent, and none when the id is unknown",
    );

    let in_order = [
        put(&second),
        Change::Remove(second.id),
        Change::Remove(third.id),
        put(&third),
        put(&first),
    ];
    commit_to(open(), &in_order);
    expect(
        open(),
        [&first, &third],
        "changes of one batch must apply in order",
    );

    commit_to(open(), &[]);
    expect(
        open(),
        [&first, &third],
        "an empty batch must change nothing",
    );

    let mut store = open();
    store.load().expect("the store can be loaded");
    for change in [
        put(&second),
        Change::Remove(third.id),
        Change::Remove(second.id),
    ] {
        store.commit(&[change]).expect("the store can commit");
    }
    drop(store);
    expect(open(), [&first], "commits must build on each other");
}

/// Makes an agent whose fields all follow from `number`.
pub fn agent(number: u16) -> StoredAgent {
    let registered_at = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(i64::from(number));
    let address = IpAddr::from(Ipv4Addr::LOCALHOST);
    StoredAgent::new(
        AgentId::from_u128(u128::from(number)),
        format!("machine-{number}"),
        (address, number.max(1)),
        registered_at,
    )
}

fn starts_empty(mut store: Box<dyn Store>) {
    let loaded = store.load().expect("an empty store can be loaded");
    assert_eq!(loaded.agents, [], "a new store must be empty");
    assert_eq!(loaded.saved_at, None, "a new store was never saved");
}

fn commit_to(mut store: Box<dyn Store>, batch: &[Change]) {
    store.load().expect("the store can be loaded");
    store.commit(batch).expect("the store can commit");
}

fn expect<const N: usize>(mut store: Box<dyn Store>, expected: [&StoredAgent; N], rule: &str) {
    let agents = store.load().expect("the store can be loaded").agents;
    assert_eq!(agents.iter().collect::<Vec<_>>(), expected, "{rule}");
}

fn put(agent: &StoredAgent) -> Change {
    Change::Put(Arc::new(agent.clone()))
}
