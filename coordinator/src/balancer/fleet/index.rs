//! Keeps both indexes in step: which pools an agent is in, and where, and which members are warm.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use ollama_coordinator_common::id::AgentId;
use tokio::time::Instant;

use super::{Fleet, Member, Pool, untagged};
use crate::balancer::facts::AgentFacts;
use crate::balancer::speed::Speed;
use crate::registry::snapshot::model_key;

impl Fleet {
    pub(super) fn set_models(&mut self, slot: usize, facts: &AgentFacts<'_>, now: Instant) {
        let mut has: Vec<(usize, usize)> = Vec::with_capacity(facts.models.len());
        for (index, model) in facts.models.iter().enumerate() {
            has.push((self.pool_for(&model.name), index));
        }
        has.sort_unstable();
        has.dedup_by_key(|(pool, _)| *pool);
        let mut is_news = has.len() != self.slots[slot].places.len();
        let gone: Vec<usize> = self.slots[slot]
            .pools()
            .filter(|pool| has.binary_search_by_key(pool, |(pool, _)| *pool).is_err())
            .collect();
        for pool in gone {
            self.leave(slot, pool);
        }
        for (pool, index) in &has {
            let model = &facts.models[*index];
            let is_loaded = facts.has_loaded(&model.name);
            let is_new = self.slots[slot].place_in(*pool).is_none();
            if is_new {
                self.join(slot, *pool);
            }
            let exact = (!facts.speaks_ollama).then(|| model.name.as_str().into());
            let Some(member) = self.member_mut(slot, *pool) else {
                continue;
            };
            is_news |= is_new || member.is_loaded != is_loaded;
            member.size = model.size;
            member.exact = exact;
            member.is_loaded = is_loaded;
        }
        for (pool, _) in has {
            if let Some(member) = self.member_mut(slot, pool) {
                // A report says what is in memory, but for what is just being loaded.
                if is_news && member.in_flight == 0 {
                    member.assumed_until = None;
                }
                if is_news {
                    member.no_model_until = None;
                }
            }
            self.sort_by_warmth(slot, pool, now);
        }
    }

    fn pool_for(&mut self, model: &str) -> usize {
        let name = model_key(model);
        if let Some(pool) = self.by_name.get(&*name) {
            return *pool;
        }
        let name: Box<str> = name.into();
        let new = Pool {
            name: name.clone(),
            ..Pool::default()
        };
        let pool = if let Some(pool) = self.vacant_pools.pop() {
            self.pools[pool] = new;
            pool
        } else {
            self.pools.push(new);
            self.pools.len() - 1
        };
        if let Some(untagged) = untagged(&name) {
            self.by_name.insert(untagged.into(), pool);
        }
        self.by_name.insert(name, pool);
        pool
    }

    fn join(&mut self, slot: usize, pool: usize) {
        let joining = &mut self.slots[slot];
        let members = &mut self.pools[pool].members;
        let index = joining.places.partition_point(|place| place.0 < pool);
        joining.places.insert(index, (pool, members.len()));
        members.push(Member {
            slot,
            identity: identity(joining.agent.id),
            size: None,
            exact: None,
            is_loaded: false,
            assumed_until: None,
            warm_at: None,
            in_flight: 0,
            no_model_until: None,
            is_watched: false,
            speed: Speed::default(),
        });
    }

    pub(super) fn leave(&mut self, slot: usize, pool: usize) {
        self.set_warm(slot, pool, false);
        let places = &mut self.slots[slot].places;
        let Ok(index) = places.binary_search_by_key(&pool, |place| place.0) else {
            return;
        };
        let (_, place) = places.remove(index);
        let members = &mut self.pools[pool].members;
        members.swap_remove(place);
        if let Some(moved) = members.get(place).map(|member| member.slot) {
            let places = &mut self.slots[moved].places;
            if let Ok(index) = places.binary_search_by_key(&pool, |place| place.0) {
                places[index].1 = place;
            }
        }
        self.drop_pool_if_done(pool);
    }

    /// Puts a member among the warm ones, or takes it out, as it is.
    pub(in crate::balancer) fn sort_by_warmth(&mut self, slot: usize, pool: usize, now: Instant) {
        let is_warm = self
            .member_mut(slot, pool)
            .is_some_and(|member| member.is_warm(now));
        self.set_warm(slot, pool, is_warm);
    }

    fn set_warm(&mut self, slot: usize, pool: usize, is_warm: bool) {
        let last = self.pools[pool].warm.len();
        let Some(member) = self.member_mut(slot, pool) else {
            return;
        };
        match (member.warm_at, is_warm) {
            (None, true) => {
                member.warm_at = Some(last);
                self.pools[pool].warm.push(slot);
            }
            (Some(at), false) => {
                member.warm_at = None;
                let warm = &mut self.pools[pool].warm;
                warm.swap_remove(at);
                if let Some(moved) = warm.get(at).copied()
                    && let Some(member) = self.member_mut(moved, pool)
                {
                    member.warm_at = Some(at);
                }
            }
            (None, false) | (Some(_), true) => {}
        }
    }
}

/// Returns a number that is always the same for an agent.
fn identity(id: AgentId) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}
