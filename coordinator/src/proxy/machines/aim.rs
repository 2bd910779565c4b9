//! Which machines a request goes to: pure, from what is asked, who was named and who has the model.
//!
//! A change that was not asked for is never made: where it is not clear which machine is meant, none
//! is asked.

use axum::http::StatusCode;
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::runtime::RuntimeKind;
use ollama_coordinator_common::protocol::view::UnroutableReason;

use crate::proxy::route::{Inference, Machine};
use crate::proxy::selector::{Selection, listed};
use crate::registry::agent::Link;
use crate::registry::snapshot::AgentSnapshot;

/// A machine that is to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Its agent.
    pub id: AgentId,
    /// What it is called.
    pub name: String,
    /// How its runtime is reached.
    pub link: Link,
}

impl From<&AgentSnapshot> for Contact {
    fn from(agent: &AgentSnapshot) -> Self {
        Self {
            id: agent.id(),
            name: agent.name().to_owned(),
            link: agent.link,
        }
    }
}

/// Who is asked.
#[derive(Debug, PartialEq, Eq)]
pub enum Aim {
    /// The first of these that can be connected to.
    FirstOf(Vec<Contact>),
    /// Each of these, at the same time.
    Each(Vec<Contact>),
}

/// Why no machine is asked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AimError {
    /// No machine is there.
    #[error("no machine that runs Ollama gets requests now")]
    Nobody,
    /// It would change a machine, and there are several.
    #[error(
        "say which machine, with the header x-coordinator-agent or ?agent= in the path: {0} \
         (several with commas, or all)"
    )]
    WhichOne(String),
    /// No machine that was named can be asked.
    #[error("the machine '{0}' is offline or cannot be reached")]
    Away(String),
    /// The owner of a machine that was named has paused it.
    #[error("the machine '{0}' is paused by its owner")]
    Paused(String),
    /// A machine that was named does not speak Ollama's API.
    #[error("the machine '{0}' does not run Ollama")]
    OtherApi(String),
    /// Only one machine can be asked such a thing at a time.
    #[error("name one machine only: this can be asked of one at a time")]
    OneAtATime,
    /// No machine has the model.
    #[error("{}", not_found(.0, *.1))]
    NoSuchModel(String, Machine),
    /// Only machines that are not there have the model.
    #[error("every machine that has model '{0}' is offline or gets no requests")]
    ModelAway(String),
}

impl AimError {
    /// Returns the status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::WhichOne(_) | Self::OtherApi(_) | Self::OneAtATime => StatusCode::BAD_REQUEST,
            Self::NoSuchModel(..) => StatusCode::NOT_FOUND,
            Self::Nobody | Self::Away(_) | Self::Paused(_) | Self::ModelAway(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }
}

/// How the machines are found when none is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Any that has the model.
    HasModel,
    /// All that have the model.
    AllThatHaveModel,
    /// The only one.
    Sole,
    /// Any.
    Any,
}

impl Machine {
    fn rule(self) -> Rule {
        match self {
            Self::Show | Self::Push => Rule::HasModel,
            Self::Copy | Self::Delete => Rule::AllThatHaveModel,
            Self::Pull | Self::Create | Self::Blob | Self::Setting => Rule::Sole,
            Self::Account | Self::Status => Rule::Any,
        }
    }

    /// Returns whether the request changes the machine that it is sent to, or something elsewhere.
    pub fn is_change(self) -> bool {
        match self {
            Self::Show | Self::Account | Self::Status => false,
            Self::Pull
            | Self::Push
            | Self::Create
            | Self::Copy
            | Self::Delete
            | Self::Blob
            | Self::Setting => true,
        }
    }

    /// Returns whether other models may be there afterwards.
    pub fn changes_models(self) -> bool {
        match self {
            Self::Pull | Self::Create | Self::Copy | Self::Delete => true,
            Self::Show | Self::Push | Self::Blob | Self::Setting | Self::Account | Self::Status => {
                false
            }
        }
    }

    /// Returns whether the body says which machines are meant when none is named.
    pub fn needs_model(self) -> bool {
        match self.rule() {
            Rule::HasModel | Rule::AllThatHaveModel => true,
            Rule::Sole | Rule::Any => false,
        }
    }

    /// Returns whether the answer tells how far it is, unless the request says otherwise.
    pub fn tells_progress(self) -> bool {
        match self {
            Self::Pull | Self::Push | Self::Create => true,
            Self::Show
            | Self::Copy
            | Self::Delete
            | Self::Blob
            | Self::Setting
            | Self::Account
            | Self::Status => false,
        }
    }
}

/// Decides who is asked. `model` is the one that the request is about, if it names one.
pub fn aim(
    machine: Machine,
    selection: &Selection,
    model: Option<&str>,
    agents: &[AgentSnapshot],
) -> Result<Aim, AimError> {
    let contacts = match selection {
        Selection::These(ids) => named(ids, agents)?,
        Selection::All => routable(agents).map(Contact::from).collect(),
        Selection::Any => return unnamed(machine, model, agents),
    };
    if contacts.is_empty() {
        return Err(AimError::Nobody);
    }
    Ok(if machine.is_change() {
        Aim::Each(contacts)
    } else {
        Aim::FirstOf(contacts)
    })
}

/// Finds the machines that were named, all of which must be there.
fn named(ids: &[AgentId], agents: &[AgentSnapshot]) -> Result<Vec<Contact>, AimError> {
    let found = ids
        .iter()
        .filter_map(|id| agents.iter().find(|agent| agent.id() == *id));
    let contact = |agent: &AgentSnapshot| {
        if !speaks_ollama(agent) {
            return Err(AimError::OtherApi(agent.name().to_owned()));
        }
        reached(agent)
    };
    found.map(contact).collect()
}

/// Returns how a machine that was named is asked, if it is there; one that is being emptied is, one
/// that its owner has paused is not.
pub fn reached(agent: &AgentSnapshot) -> Result<Contact, AimError> {
    match agent.reason {
        None | Some(UnroutableReason::Draining) => Ok(Contact::from(agent)),
        Some(UnroutableReason::Paused) => Err(AimError::Paused(agent.name().to_owned())),
        Some(_) => Err(AimError::Away(agent.name().to_owned())),
    }
}

fn unnamed(
    machine: Machine,
    model: Option<&str>,
    agents: &[AgentSnapshot],
) -> Result<Aim, AimError> {
    let all: Vec<Contact> = routable(agents).map(Contact::from).collect();
    if all.is_empty() {
        return Err(AimError::Nobody);
    }
    match (machine.rule(), model) {
        (Rule::Any, _) => Ok(Aim::FirstOf(all)),
        (Rule::HasModel, None) if !machine.is_change() => Ok(Aim::FirstOf(all)),
        (Rule::Sole, _) | (Rule::HasModel | Rule::AllThatHaveModel, None) => sole(all),
        (rule @ (Rule::HasModel | Rule::AllThatHaveModel), Some(model)) => {
            let has = |agent: &&AgentSnapshot| agent.has_model(model);
            let have: Vec<Contact> = routable(agents).filter(has).map(Contact::from).collect();
            match rule {
                _ if have.is_empty() && agents.iter().any(|agent| agent.has_model(model)) => {
                    Err(AimError::ModelAway(model.to_owned()))
                }
                // What it has may have changed a moment ago: it knows best.
                _ if have.is_empty() => {
                    sole(all).map_err(|_several| AimError::NoSuchModel(model.to_owned(), machine))
                }
                Rule::AllThatHaveModel => Ok(Aim::Each(have)),
                Rule::HasModel | Rule::Sole | Rule::Any => Ok(Aim::FirstOf(have)),
            }
        }
    }
}

fn sole(contacts: Vec<Contact>) -> Result<Aim, AimError> {
    if contacts.len() == 1 {
        return Ok(Aim::Each(contacts));
    }
    let names = contacts.into_iter().map(|contact| contact.name);
    Err(AimError::WhichOne(listed(names)))
}

fn routable(agents: &[AgentSnapshot]) -> impl Iterator<Item = &AgentSnapshot> {
    agents
        .iter()
        .filter(|agent| agent.reason.is_none() && speaks_ollama(agent))
}

fn speaks_ollama(agent: &AgentSnapshot) -> bool {
    match agent.stored.runtime.kind {
        RuntimeKind::Ollama => true,
        RuntimeKind::Openai => false,
    }
}

/// Says it as Ollama does, whose routes differ.
fn not_found(model: &str, machine: Machine) -> String {
    if machine == Machine::Copy {
        format!("model {model:?} not found")
    } else {
        format!("model '{model}' not found")
    }
}

/// Returns the agents that can say what they think of a request without a model, those first whose
/// word counts as the protocol's.
pub fn any(agents: &[AgentSnapshot], inference: Inference, only: &[AgentId]) -> Vec<Contact> {
    let fits = |agent: &&AgentSnapshot| {
        agent.reason.is_none()
            && (speaks_ollama(agent) || !inference.ollama_only)
            && (only.is_empty() || only.contains(&agent.id()))
    };
    let mut fitting: Vec<&AgentSnapshot> = agents.iter().filter(fits).collect();
    fitting.sort_by_key(|agent| !speaks_ollama(agent));
    fitting.into_iter().map(Contact::from).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::Utc;
    use ollama_coordinator_common::protocol::runtime::Model;
    use ollama_coordinator_common::protocol::view::AgentStatus;
    use proptest::prelude::*;
    use rstest::rstest;

    use super::{
        AgentId, AgentSnapshot, Aim, AimError, Link, Machine, RuntimeKind, Selection, StatusCode,
        UnroutableReason, aim,
    };
    use crate::storage::agent::StoredAgent;

    const MACHINES: [Machine; 10] = [
        Machine::Show,
        Machine::Pull,
        Machine::Push,
        Machine::Create,
        Machine::Copy,
        Machine::Delete,
        Machine::Blob,
        Machine::Setting,
        Machine::Account,
        Machine::Status,
    ];

    #[rstest]
    #[case::show_any_that_has_it(Machine::Show, Some("a"), Ok("first of 1 2"))]
    #[case::show_whatever_it_is(Machine::Show, None, Ok("first of 1 2 3"))]
    #[case::push_one_that_has_it(Machine::Push, Some("B:7b"), Ok("first of 2"))]
    #[case::push_what(Machine::Push, None, Err(StatusCode::BAD_REQUEST))]
    #[case::delete_where_it_is(Machine::Delete, Some("A"), Ok("each of 1 2"))]
    #[case::copy_where_it_is(Machine::Copy, Some("b:7b"), Ok("each of 2"))]
    #[case::delete_what(Machine::Delete, None, Err(StatusCode::BAD_REQUEST))]
    #[case::delete_what_nobody_has(Machine::Delete, Some("x"), Err(StatusCode::NOT_FOUND))]
    #[case::delete_from_who_is_away(
        Machine::Delete,
        Some("c"),
        Err(StatusCode::SERVICE_UNAVAILABLE)
    )]
    #[case::pull_where(Machine::Pull, Some("a"), Err(StatusCode::BAD_REQUEST))]
    #[case::create_where(Machine::Create, None, Err(StatusCode::BAD_REQUEST))]
    #[case::blob_where(Machine::Blob, None, Err(StatusCode::BAD_REQUEST))]
    #[case::anybody(Machine::Account, None, Ok("first of 1 2 3"))]
    fn nobody_named_in_a_fleet_of_three(
        #[case] machine: Machine,
        #[case] model: Option<&str>,
        #[case] expected: Result<&str, StatusCode>,
    ) {
        let away = Some(UnroutableReason::Offline);
        let mut fleet = vec![
            agent(1, None, &["a:latest"]),
            agent(2, None, &["a:latest", "b:7b"]),
            agent(3, None, &[]),
            agent(4, away, &["c:latest", "a:latest"]),
            agent(5, None, &["a:latest"]),
        ];
        Arc::make_mut(&mut fleet[4].stored).runtime.kind = RuntimeKind::Openai;

        let aimed = aim(machine, &Selection::Any, model, &fleet);

        let shown = aimed.as_ref().map(shown).map_err(AimError::status);
        assert_eq!(shown, expected.map(str::to_owned));
    }

    #[test]
    fn only_machine_is_asked_whatever_it_has() {
        let fleet = [agent(1, None, &[])];

        for machine in MACHINES {
            for model in [None, Some("a")] {
                let aimed = aim(machine, &Selection::Any, model, &fleet).unwrap();
                assert!(shown(&aimed).ends_with("of 1"), "{machine:?} {aimed:?}");
            }
        }
    }

    #[test]
    fn named_machine_that_is_being_emptied_is_asked_and_one_that_is_away_is_not() {
        let (draining, away) = (UnroutableReason::Draining, UnroutableReason::Unreachable);
        let paused = UnroutableReason::Paused;
        let fleet = [
            agent(1, Some(draining), &[]),
            agent(2, None, &[]),
            agent(3, Some(away), &[]),
            agent(4, Some(paused), &[]),
        ];
        let these = |numbers: &[u128]| {
            let ids = numbers.iter().copied().map(AgentId::from_u128);
            aim(
                Machine::Pull,
                &Selection::These(ids.collect()),
                None,
                &fleet,
            )
        };

        assert_eq!(shown(&these(&[2, 1]).unwrap()), "each of 2 1");
        assert_eq!(these(&[1, 3]), Err(AimError::Away("gpu-3".to_owned())));
        assert_eq!(these(&[4]), Err(AimError::Paused("gpu-4".to_owned())));
    }

    proptest! {
        #[test]
        fn change_goes_to_who_was_named_or_has_the_model_or_is_alone(
            machine in proptest::sample::select(MACHINES.to_vec()),
            fleet in proptest::collection::vec((any::<bool>(), any::<bool>()), 0..5),
            model in proptest::option::of(proptest::sample::select(vec!["a", "b"])),
        ) {
            let away = |is_away| if is_away { Some(UnroutableReason::Offline) } else { None };
            let models = |has: bool| -> &[&str] { if has { &["a:latest"] } else { &[] } };
            let fleet: Vec<AgentSnapshot> = (1..)
                .zip(&fleet)
                .map(|(number, (is_away, has))| agent(number, away(*is_away), models(*has)))
                .collect();
            let there = fleet.iter().filter(|agent| agent.reason.is_none()).count();

            let aimed = aim(machine, &Selection::Any, model, &fleet);

            if let Ok(aimed) = aimed && machine.is_change() {
                let (Aim::Each(contacts) | Aim::FirstOf(contacts)) = aimed;
                for contact in &contacts {
                    let agent = fleet.iter().find(|agent| agent.id() == contact.id).unwrap();
                    prop_assert!(agent.reason.is_none());
                    let has = model.is_some_and(|model| agent.has_model(model));
                    prop_assert!(there == 1 || has && machine.needs_model());
                }
            }
        }
    }

    fn shown(aimed: &Aim) -> String {
        let (how, contacts) = match aimed {
            Aim::FirstOf(contacts) => ("first of", contacts),
            Aim::Each(contacts) => ("each of", contacts),
        };
        let names = contacts
            .iter()
            .map(|contact| contact.name.replace("gpu-", ""));
        let names: Vec<String> = names.collect();
        format!("{how} {}", names.join(" "))
    }

    fn agent(number: u128, reason: Option<UnroutableReason>, models: &[&str]) -> AgentSnapshot {
        let id = AgentId::from_u128(number);
        let name = format!("gpu-{number}");
        let mut stored = StoredAgent::new(id, name, ([127, 0, 0, 1].into(), 1), Utc::now());
        stored.runtime.models = models.iter().copied().map(Model::named).collect();
        AgentSnapshot {
            last_seen: stored.last_seen,
            stored: Arc::new(stored),
            link: Link::Direct(([127, 0, 0, 1], 1).into()),
            status: AgentStatus::Online,
            reason,
            warning: None,
            draining: false,
            metrics: None,
            in_flight: 0,
        }
    }
}
