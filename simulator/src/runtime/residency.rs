//! Which models are in a scripted runtime's memory. Pure: every method takes `now`.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// How long a model stays in memory after its last request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeepAlive {
    For(Duration),
    Forever,
}

/// The models in memory and the ones on their way there.
#[derive(Debug, Default)]
pub(super) struct Residency {
    residents: BTreeMap<String, Resident>,
}

#[derive(Debug)]
struct Resident {
    ready_at: Instant,
    last_used: Instant,
    leaves_at: Option<Instant>,
    users: u32,
}

/// What a request that needs a model is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// The model is there.
    Warm,
    /// This request started the load, which ends then.
    Loading(Instant),
    /// Another request started the load, which ends then.
    Joined(Instant),
    /// Memory is full of models in use: ask again when one is released.
    Full,
}

/// Room for models and the time it takes to load one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub(super) max_loaded: usize,
    pub(super) cold_load: Duration,
}

impl Residency {
    /// Counts one user of `model`, unless memory is full.
    pub(super) fn claim(&mut self, model: &str, memory: Memory, now: Instant) -> Claim {
        self.expire(now);
        if let Some(resident) = self.residents.get_mut(model) {
            resident.users += 1;
            return if resident.ready_at > now {
                Claim::Joined(resident.ready_at)
            } else {
                Claim::Warm
            };
        }
        if self.residents.len() >= memory.max_loaded && !self.evict_one() {
            return Claim::Full;
        }
        let ready_at = now + memory.cold_load;
        let resident = Resident {
            ready_at,
            last_used: now,
            leaves_at: None,
            users: 1,
        };
        self.residents.insert(model.to_owned(), resident);
        Claim::Loading(ready_at)
    }

    /// Ends one use of `model`; with the last one its time to leave is set.
    pub(super) fn release(&mut self, model: &str, keep_alive: KeepAlive, now: Instant) {
        let Some(resident) = self.residents.get_mut(model) else {
            return;
        };
        resident.users = resident.users.saturating_sub(1);
        resident.last_used = now;
        resident.leaves_at = match keep_alive {
            KeepAlive::For(duration) => Some(now + duration),
            KeepAlive::Forever => None,
        };
        self.expire(now);
    }

    /// Returns the models in memory and when each will leave.
    pub(super) fn loaded(&mut self, now: Instant) -> Vec<(String, Option<Instant>)> {
        self.expire(now);
        let ready = self.residents.iter().filter(|(_, r)| r.ready_at <= now);
        ready
            .map(|(name, resident)| (name.clone(), resident.leaves_at))
            .collect()
    }

    fn expire(&mut self, now: Instant) {
        self.residents.retain(|_, resident| {
            resident.users > 0 || resident.leaves_at.is_none_or(|leaves_at| leaves_at > now)
        });
    }

    fn evict_one(&mut self) -> bool {
        let idle = self.residents.iter().filter(|(_, r)| r.users == 0);
        let oldest = idle.min_by_key(|(_, r)| r.last_used);
        let Some(victim) = oldest.map(|(name, _)| name.clone()) else {
            return false;
        };
        self.residents.remove(&victim).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_MINUTE: KeepAlive = KeepAlive::For(Duration::from_mins(1));
    const LOAD: Duration = Duration::from_secs(2);

    fn memory(max_loaded: usize) -> Memory {
        Memory {
            max_loaded,
            cold_load: LOAD,
        }
    }

    #[test]
    fn model_is_loaded_once_for_all_who_wait() {
        let mut residency = Residency::default();
        let start = Instant::now();

        assert_eq!(
            residency.claim("a", memory(1), start),
            Claim::Loading(start + LOAD)
        );
        assert_eq!(
            residency.claim("a", memory(1), start),
            Claim::Joined(start + LOAD)
        );
        assert!(residency.loaded(start).is_empty());
        assert_eq!(residency.claim("a", memory(1), start + LOAD), Claim::Warm);
        assert_eq!(residency.loaded(start + LOAD).len(), 1);
    }

    #[test]
    fn least_recently_used_idle_model_makes_room() {
        let mut residency = Residency::default();
        let start = Instant::now();
        let later = start + LOAD;
        residency.claim("old", memory(2), start);
        residency.claim("new", memory(2), start);
        residency.release("old", ONE_MINUTE, start);
        residency.release("new", ONE_MINUTE, later);

        let claim = residency.claim("third", memory(2), later);

        assert_eq!(claim, Claim::Loading(later + LOAD));
        let names: Vec<_> = residency
            .loaded(later + LOAD)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["new", "third"]);
    }

    #[test]
    fn model_in_use_is_never_evicted() {
        let mut residency = Residency::default();
        let start = Instant::now();
        residency.claim("busy", memory(1), start);

        assert_eq!(residency.claim("other", memory(1), start), Claim::Full);

        residency.release("busy", KeepAlive::Forever, start);
        assert_eq!(
            residency.claim("other", memory(1), start),
            Claim::Loading(start + LOAD)
        );
    }

    #[test]
    fn idle_model_leaves_when_its_time_is_up() {
        let mut residency = Residency::default();
        let start = Instant::now();
        residency.claim("a", memory(2), start);
        residency.claim("b", memory(2), start);
        residency.release("a", ONE_MINUTE, start);
        residency.release("b", KeepAlive::For(Duration::ZERO), start);
        let almost = start + Duration::from_secs(59);

        assert_eq!(residency.loaded(almost).len(), 1);
        assert!(residency.loaded(almost + Duration::from_secs(1)).is_empty());
    }
}
