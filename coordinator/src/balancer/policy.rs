//! How to choose among agents. Pure: figures and a drawn number in, a position out.
//!
//! Every policy takes only an agent that nothing speaks against and that has a free slot.

use std::cmp::Ordering;
use std::fmt;

use serde::Serialize;

use super::choice::{Fits, Reason, WhyNot};

/// An agent that a conversation belongs to takes it up to so many times the average load.
const AFFINITY_CAP: f32 = 1.25;

/// How to choose among the agents that can take a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// The model in memory, then enough free memory, then the least to do for capacity and speed.
    #[default]
    LeastLoaded,
    /// In turn.
    RoundRobin,
    /// By chance, in proportion to capacity.
    Weighted,
    /// Where the conversation was before, unless that agent has too much to do.
    PrefixAffinity,
}

impl fmt::Display for Policy {
    /// Writes the name, as in the setting.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// What a policy knows of an agent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PolicyInput {
    /// The requests it is serving.
    pub in_flight: u32,
    /// How many it serves at once.
    pub capacity: u32,
    /// Whether it has the model in memory.
    pub warm: bool,
    /// Whether the model fits its free memory.
    pub fits: Fits,
    /// How long it takes, as a multiple of the average.
    pub slowness: f32,
    /// A number of its own that never changes.
    pub identity: u64,
    /// What speaks against it.
    pub why_not: Option<WhyNot>,
}

/// What differs from one request to the next.
#[derive(Debug, Clone, Copy, Default)]
pub struct Draw {
    /// Any number, other each time.
    pub random: u64,
    /// The position after the one that was picked last.
    pub turn: usize,
    /// The beginning of the conversation.
    pub prefix: Option<u64>,
}

/// The position that was picked and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picked {
    /// Where it stands among the candidates.
    pub index: usize,
    /// What decided.
    pub reason: Reason,
}

impl PolicyInput {
    /// Returns whether it can take a request.
    pub fn is_usable(&self) -> bool {
        self.why_not.is_none() && self.in_flight < self.capacity
    }

    /// Returns the work that is expected before one more request is answered.
    #[expect(clippy::cast_precision_loss, reason = "counts of requests are small")]
    pub fn score(&self) -> f32 {
        (self.in_flight + 1) as f32 / self.capacity.max(1) as f32 * in_steps(self.slowness)
    }

    /// Compares two; the greater is the better.
    pub fn compare(&self, other: &Self) -> Ordering {
        let by_memory = self.warm.cmp(&other.warm).then_with(|| {
            if self.warm {
                Ordering::Equal
            } else {
                self.fits.cmp(&other.fits)
            }
        });
        by_memory.then_with(|| other.score().total_cmp(&self.score()))
    }
}

/// Rounds to 1, 1.5, 2, 3, 4, 6 and so on, up and down, because learned speeds are never equal: of
/// the fraction's bits only the first is kept.
fn in_steps(slowness: f32) -> f32 {
    const KEPT: u32 = 22;
    if slowness.is_normal() && slowness > 0.0 {
        let rounded = slowness.to_bits() + (1 << (KEPT - 1));
        f32::from_bits(rounded & !((1 << KEPT) - 1))
    } else {
        1.0
    }
}

/// Picks one of the candidates; `None` when none of them can take a request.
pub fn pick(policy: Policy, candidates: &[PolicyInput], draw: Draw) -> Option<Picked> {
    let mut usable = candidates.iter().enumerate().filter(|(_, c)| c.is_usable());
    let first = usable.next()?;
    if usable.next().is_none() {
        return Some(Picked {
            index: first.0,
            reason: Reason::Only,
        });
    }
    match (policy, draw.prefix) {
        (Policy::LeastLoaded, _) | (Policy::PrefixAffinity, None) => {
            least_loaded(candidates, draw.random)
        }
        (Policy::RoundRobin, _) => in_turn(candidates, draw.turn),
        (Policy::Weighted, _) => by_weight(candidates, draw.random),
        (Policy::PrefixAffinity, Some(prefix)) => {
            by_prefix(candidates, prefix).or_else(|| least_loaded(candidates, draw.random))
        }
    }
}

fn least_loaded(candidates: &[PolicyInput], random: u64) -> Option<Picked> {
    let usable = || candidates.iter().enumerate().filter(|(_, c)| c.is_usable());
    let (_, best) = usable().max_by(|(_, a), (_, b)| a.compare(b))?;
    let is_equal = |c: &PolicyInput| c.compare(best) == Ordering::Equal;
    let equals = usable().filter(|(_, c)| is_equal(c)).count();
    let (index, _) = usable()
        .filter(|(_, c)| is_equal(c))
        .nth(below(random, equals))?;
    let any_other = |like: fn(&PolicyInput, &PolicyInput) -> bool| {
        usable().any(|(_, c)| !is_equal(c) && like(c, best))
    };
    let reason = if equals > 1 {
        Reason::Random
    } else if any_other(|c, best| c.warm == best.warm && (c.warm || c.fits == best.fits)) {
        Reason::LeastLoaded
    } else if any_other(|c, best| c.warm == best.warm) {
        Reason::Fits
    } else {
        Reason::Warm
    };
    Some(Picked { index, reason })
}

fn in_turn(candidates: &[PolicyInput], turn: usize) -> Option<Picked> {
    let start = turn % candidates.len();
    let order = (start..candidates.len()).chain(0..start);
    let index = order
        .into_iter()
        .find(|index| candidates.get(*index).is_some_and(PolicyInput::is_usable))?;
    Some(Picked {
        index,
        reason: Reason::Turn,
    })
}

fn by_weight(candidates: &[PolicyInput], random: u64) -> Option<Picked> {
    let usable = || candidates.iter().enumerate().filter(|(_, c)| c.is_usable());
    let total: usize = usable().map(|(_, c)| c.capacity as usize).sum();
    let mut drawn = below(random, total);
    for (index, candidate) in usable() {
        let weight = candidate.capacity as usize;
        if drawn < weight {
            return Some(Picked {
                index,
                reason: Reason::Weight,
            });
        }
        drawn -= weight;
    }
    None
}

/// Rendezvous hashing: each conversation ranks all agents in an order of its own, which does not
/// change for the others when one comes or goes.
#[expect(clippy::cast_precision_loss, reason = "counts of requests are small")]
fn by_prefix(candidates: &[PolicyInput], prefix: u64) -> Option<Picked> {
    let has_warm = candidates.iter().any(|c| c.is_usable() && c.warm);
    let could =
        |c: &&PolicyInput| c.why_not.is_none_or(|why| why == WhyNot::Full) && (c.warm || !has_warm);
    let (mut load, mut capacity) = (1.0, 0.0);
    for candidate in candidates.iter().filter(could) {
        load += candidate.in_flight as f32;
        capacity += candidate.capacity as f32;
    }
    let cap = |c: &PolicyInput| (AFFINITY_CAP * load / capacity * c.capacity as f32).ceil();
    let fitting = candidates
        .iter()
        .enumerate()
        .filter(|(_, c)| could(c) && c.is_usable() && (c.in_flight + 1) as f32 <= cap(c));
    let (index, _) = fitting.max_by_key(|(_, c)| rank(prefix, c.identity))?;
    Some(Picked {
        index,
        reason: Reason::Affinity,
    })
}

/// Returns how close an agent is to a conversation; the highest is the closest.
pub fn rank(prefix: u64, identity: u64) -> u64 {
    mixed(prefix ^ mixed(identity))
}

/// Spreads the bits of a number over all of it.
pub fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Maps a drawn number to `0..count`.
pub fn below(random: u64, count: usize) -> usize {
    let scaled = (u128::from(random) * count as u128) >> 64;
    usize::try_from(scaled).unwrap_or(0)
}

#[cfg(test)]
mod tests;
