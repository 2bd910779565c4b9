//! Whatever is committed, however often it is restarted, folded or killed: the store has what a
//! map would have.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ollama_coordinator::storage::agent::StoredAgent;
use ollama_coordinator::storage::conformance::agent;
use ollama_coordinator::storage::json::{JsonStore, Limits};
use ollama_coordinator::storage::recovery::Recovery;
use ollama_coordinator::storage::{Change, Store as _};
use ollama_coordinator_common::id::AgentId;
use proptest::prelude::*;

use crate::support::memory_disk::MemoryDisk;
use crate::support::{ALWAYS_A_JOURNAL, FOLDED_BY_EACH_COMMIT, put};

type Agents = BTreeMap<AgentId, StoredAgent>;

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Change>),
    /// A restart after a clean end.
    Close,
    /// A restart after `kill -9` while nothing is done.
    Kill,
    /// A commit that is killed after so many changes to the disk.
    KillDuring(u32, Vec<Change>),
    /// A commit on a disk that refuses after so many changes to it, and works again then.
    FailDuring(u32, Vec<Change>),
}

proptest! {
    #[test]
    fn store_has_what_a_map_would_have(
        limits in any_limits(),
        steps in prop::collection::vec(any_step(), 1..40),
    ) {
        let disk = MemoryDisk::default();
        let (mut store, _) = restarted(&disk, limits);
        let mut model = Agents::new();

        for step in steps {
            match step {
                Step::Commit(batch) => {
                    store.commit(&batch).unwrap();
                    apply(&mut model, &batch);
                    continue;
                }
                Step::FailDuring(changes, batch) => {
                    disk.kill_after(changes);
                    let committed = store.commit(&batch);
                    disk.revive();
                    if committed.is_ok() {
                        apply(&mut model, &batch);
                    } else {
                        store.commit(&[]).unwrap();
                    }
                }
                Step::KillDuring(changes, batch) => {
                    disk.kill_after(changes);
                    let committed = store.commit(&batch);
                    disk.revive();
                    let mut after = model.clone();
                    apply(&mut after, &batch);
                    let (again, found) = restarted(&disk, limits);
                    store = again;
                    prop_assert!(found == after || (committed.is_err() && found == model));
                    model = found;
                    continue;
                }
                Step::Close => store.close(),
                Step::Kill => {}
            }
            let (again, found) = restarted(&disk, limits);
            store = again;
            prop_assert_eq!(&found, &model);
        }
    }
}

fn restarted(disk: &MemoryDisk, limits: Limits) -> (JsonStore, Agents) {
    let store = JsonStore::on(Arc::new(disk.clone()), Path::new("/data"), None);
    let mut store = store.with_limits(limits);
    let loaded = store.load().unwrap();
    assert!(
        matches!(loaded.recovery, Recovery::Clean | Recovery::New),
        "{:?}",
        loaded.recovery
    );
    let agents = loaded.agents.into_iter().map(|agent| (agent.id, agent));
    (store, agents.collect())
}

fn apply(model: &mut Agents, batch: &[Change]) {
    for change in batch {
        match change {
            Change::Put(agent) => model.insert(agent.id, StoredAgent::clone(agent)),
            Change::Remove(id) => model.remove(id),
        };
    }
}

fn any_limits() -> impl Strategy<Value = Limits> {
    let small_file = prop_oneof![Just(0), 300_u64..4_000];
    let between = (small_file, 10_u64..300).prop_map(|(small_file, journal_percent)| Limits {
        small_file,
        journal_percent,
    });
    prop_oneof![
        Just(Limits::default()),
        Just(ALWAYS_A_JOURNAL),
        Just(FOLDED_BY_EACH_COMMIT),
        between,
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any_batch().prop_map(Step::Commit),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        2 => (0_u32..30, any_batch()).prop_map(|(changes, batch)| Step::KillDuring(changes, batch)),
        2 => (0_u32..30, any_batch()).prop_map(|(changes, batch)| Step::FailDuring(changes, batch)),
    ]
}

fn any_batch() -> impl Strategy<Value = Vec<Change>> {
    let change = (1_u16..9, prop::option::weighted(0.8, any::<u32>())).prop_map(
        |(number, epoch)| match epoch {
            Some(epoch) => {
                let mut agent = agent(number);
                agent.epoch = epoch.into();
                put(&agent)
            }
            None => Change::Remove(agent(number).id),
        },
    );
    prop::collection::vec(change, 0..4)
}
