//! The promises, one function each.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ollama_coordinator_common::id::AgentId;

use super::{Bounds, End, Fact, Moment, Shown, Violation};

/// A machine's facts, each kind in the order of its moments.
#[derive(Debug, Default)]
struct Machine {
    registered: Vec<(Moment, AgentId, u64)>,
    /// When each renewal was told, and until when some lease runs for certain.
    leases: Vec<(Moment, Moment)>,
    states: Vec<(Moment, State)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Works,
    Disturbed,
    Silent,
}

#[derive(Debug, Default)]
struct Run<'a> {
    machines: BTreeMap<&'a str, Machine>,
    away: Vec<(Moment, Moment)>,
}

pub(super) fn violations(history: &[Fact], bounds: &Bounds) -> Vec<Violation> {
    let run = Run::of(history);
    let mut found = Vec::new();
    for fact in history {
        match fact {
            Fact::Listed { asked, at, agents } => {
                found.extend(twice(*at, agents));
                for (name, machine) in &run.machines {
                    let shown = agents.iter().find(|shown| shown.machine == *name);
                    let list = List {
                        name,
                        asked: *asked,
                        at: *at,
                        shown,
                    };
                    found.extend(lost(machine, &list));
                    found.extend(run.status(machine, &list, bounds));
                }
            }
            Fact::Asked { began, ended, end } => {
                found.extend(run.bad_end(*began, *ended, *end));
            }
            Fact::Counted { in_flight, queued } if in_flight + queued > 0 => {
                let (in_flight, queued) = (*in_flight, *queued);
                found.push(Violation::NotIdle { in_flight, queued });
            }
            Fact::Counted { .. }
            | Fact::Registered { .. }
            | Fact::Renewed { .. }
            | Fact::Works { .. }
            | Fact::Disturbed { .. }
            | Fact::Silent { .. }
            | Fact::Away { .. } => {}
        }
    }
    found
}

/// What one list says of one machine.
struct List<'a> {
    name: &'a str,
    asked: Moment,
    at: Moment,
    shown: Option<&'a Shown>,
}

impl<'a> Run<'a> {
    fn of(history: &'a [Fact]) -> Self {
        let mut run = Self::default();
        for fact in history {
            match fact {
                Fact::Registered {
                    machine,
                    agent,
                    epoch,
                    at,
                } => run.machine(machine).registered.push((*at, *agent, *epoch)),
                Fact::Renewed {
                    machine,
                    sent,
                    answered,
                    ttl,
                } => run.machine(machine).leases.push((*answered, *sent + *ttl)),
                Fact::Works { machine, at } => run.machine(machine).enter(*at, State::Works),
                Fact::Disturbed { machine, at } => {
                    run.machine(machine).enter(*at, State::Disturbed);
                }
                Fact::Silent { machine, at } => run.machine(machine).enter(*at, State::Silent),
                Fact::Away { from, until } => run.away.push((*from, *until)),
                Fact::Listed { .. } | Fact::Asked { .. } | Fact::Counted { .. } => {}
            }
        }
        for machine in run.machines.values_mut() {
            machine.registered.sort_by_key(|(at, ..)| *at);
            machine.leases.sort_unstable();
        }
        run
    }

    fn machine(&mut self, name: &'a str) -> &mut Machine {
        self.machines.entry(name).or_default()
    }

    /// Whoever works or whose lease runs is online; who works gets requests; who is silent is not.
    fn status(&self, machine: &Machine, list: &List<'_>, bounds: &Bounds) -> Option<Violation> {
        let shown = list.shown?;
        let (name, at) = (list.name.to_owned(), list.at);
        let since = machine.since(list);
        let has_lasted = |from: Moment, bound: Duration| list.asked >= from + bound;
        let back = self.last_return(list.at);
        let works = |bound: Duration| matches!(since, Some((State::Works, from)) if has_lasted(from, bound));
        if !shown.is_online && (machine.has_lease(list) || works(bounds.recovery)) {
            return Some(Violation::WronglyOffline { machine: name, at });
        }
        if !shown.is_routable && works(bounds.recovery) && has_lasted(back, bounds.recovery) {
            return Some(Violation::LeftOut { machine: name, at });
        }
        if let Some((State::Silent, from)) = since
            && shown.is_online
            && has_lasted(from, bounds.notice)
            && (back == Moment::ZERO || has_lasted(back, bounds.grace))
        {
            return Some(Violation::WronglyOnline { machine: name, at });
        }
        None
    }

    /// Nothing ends as if it were whole; while the coordinator is there, nothing fails that has not
    /// begun and no connection breaks.
    fn bad_end(&self, began: Moment, ended: Moment, end: End) -> Option<Violation> {
        let overlaps = |(from, until): &(Moment, Moment)| began <= *until && ended >= *from;
        let is_bad = match end {
            End::Whole | End::Told | End::Left => false,
            End::Cut | End::Hung => true,
            End::Failed | End::Broken => !self.away.iter().any(overlaps),
        };
        is_bad.then_some(Violation::BadEnd { end, began })
    }

    /// When the coordinator last came back before `at`; the beginning, if it never did.
    fn last_return(&self, at: Moment) -> Moment {
        let begun = self.away.iter().filter(|(from, _)| *from <= at);
        begun.map(|(_, until)| *until).max().unwrap_or_default()
    }
}

impl Machine {
    fn enter(&mut self, at: Moment, state: State) {
        self.states.push((at, state));
    }

    /// The state that held from before the list was asked for until it was there, and since when.
    fn since(&self, list: &List<'_>) -> Option<(State, Moment)> {
        let before = self.states.partition_point(|(at, _)| *at <= list.asked);
        let holds_until = self.states.get(before).map(|(at, _)| *at);
        let (from, state) = *self.states.get(before.checked_sub(1)?)?;
        holds_until
            .is_none_or(|until| until > list.at)
            .then_some((state, from))
    }

    /// Whether a lease ran for certain from before the list was asked for until it was there.
    fn has_lease(&self, list: &List<'_>) -> bool {
        let told = self.leases.partition_point(|(told, _)| *told <= list.asked);
        // A later renewal never ends earlier, and terms change seldom: the last few decide.
        let last = self.leases[..told].iter().rev().take(8);
        last.map(|(_, until)| *until).max() > Some(list.at)
    }
}

/// What was acknowledged before the list was asked for is in it: same id, no older epoch.
fn lost(machine: &Machine, list: &List<'_>) -> Option<Violation> {
    let told = machine
        .registered
        .partition_point(|(at, ..)| *at <= list.asked);
    let (_, agent, epoch) = *machine.registered.get(told.checked_sub(1)?)?;
    let is_there = |shown: &Shown| shown.agent == agent && shown.epoch >= epoch;
    let is_lost = !list.shown.is_some_and(is_there);
    is_lost.then(|| Violation::Lost {
        machine: list.name.to_owned(),
        at: list.at,
    })
}

/// No id and no machine is in a list twice.
fn twice(at: Moment, agents: &[Shown]) -> Vec<Violation> {
    let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
    let mut again = Vec::new();
    for shown in agents {
        if !(ids.insert(shown.agent) & names.insert(&shown.machine)) {
            again.push(Violation::Twice {
                machine: shown.machine.clone(),
                at,
            });
        }
    }
    again
}
