//! Which agents a request names, in a header or in its query: pure.

use std::str::FromStr as _;

use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{StatusCode, Uri};
use ollama_coordinator_common::id::AgentId;
use percent_encoding::percent_decode_str;

use super::AGENT_HEADER;
use crate::registry::snapshot::AgentSnapshot;

/// The parameter of the query that names agents.
const PARAMETER: &str = "agent";
/// Stands for every routable agent.
const ALL: &str = "all";
/// How many names an error lists.
const MAX_LISTED: usize = 32;

/// Which agents may be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The request names none.
    Any,
    /// Every routable one.
    All,
    /// These, each once.
    These(Vec<AgentId>),
}

/// Why names lead to no agent.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Nobody is called so.
    #[error("no machine is called '{name}'; there are: {there_are}")]
    Unknown {
        /// The name.
        name: String,
        /// The names that there are.
        there_are: String,
    },
    /// More than one is called so.
    #[error("several machines are called '{name}', use an id: {ids}")]
    Ambiguous {
        /// The name.
        name: String,
        /// The ids of those that are called so.
        ids: String,
    },
}

impl SelectorError {
    /// Returns the status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unknown { .. } => StatusCode::NOT_FOUND,
            Self::Ambiguous { .. } => StatusCode::BAD_REQUEST,
        }
    }
}

impl Selection {
    /// Returns the one agent that the request names.
    pub fn sole(&self) -> Option<AgentId> {
        match self {
            Self::These(agents) if agents.len() == 1 => agents.first().copied(),
            Self::These(_) | Self::Any | Self::All => None,
        }
    }

    /// Returns the agents that were named; empty: any routable one will do.
    pub fn into_agents(self) -> Vec<AgentId> {
        match self {
            Self::These(agents) => agents,
            Self::Any | Self::All => Vec::new(),
        }
    }
}

/// Takes the names out of a request: they are the coordinator's, not the runtime's.
pub fn take(head: &mut Parts) -> Vec<String> {
    let mut names = Vec::new();
    if head.headers.contains_key(AGENT_HEADER) {
        for value in head.headers.get_all(AGENT_HEADER) {
            add_names(&mut names, &String::from_utf8_lossy(value.as_bytes()));
        }
        head.headers.remove(AGENT_HEADER);
    }
    if head
        .uri
        .query()
        .is_some_and(|query| query.contains(PARAMETER))
    {
        head.uri = without_parameter(&head.uri, &mut names);
    }
    names
}

/// Finds the agents that are called so, by id, display name or machine name.
pub fn resolve(names: &[String], agents: &[AgentSnapshot]) -> Result<Selection, SelectorError> {
    if names.is_empty() {
        return Ok(Selection::Any);
    }
    if names.iter().any(|name| name.eq_ignore_ascii_case(ALL)) {
        return Ok(Selection::All);
    }
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let id = resolve_one(name, agents)?;
        if !found.contains(&id) {
            found.push(id);
        }
    }
    Ok(Selection::These(found))
}

fn resolve_one(name: &str, agents: &[AgentSnapshot]) -> Result<AgentId, SelectorError> {
    if let Ok(id) = AgentId::from_str(name)
        && agents.iter().any(|agent| agent.id() == id)
    {
        return Ok(id);
    }
    let is_called_so = |agent: &&AgentSnapshot| {
        let is = |other: &str| other.to_lowercase() == name.to_lowercase();
        is(agent.name()) || is(&agent.stored.machine_name)
    };
    let called_so: Vec<_> = agents.iter().filter(is_called_so).collect();
    match *called_so {
        [agent] => Ok(agent.id()),
        [] => Err(SelectorError::Unknown {
            name: name.to_owned(),
            there_are: listed(agents.iter().map(|agent| agent.name().to_owned())),
        }),
        [..] => Err(SelectorError::Ambiguous {
            name: name.to_owned(),
            ids: listed(called_so.iter().map(|agent| agent.id().to_string())),
        }),
    }
}

/// Joins names for people to read, not more than they would.
pub fn listed(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.collect();
    if names.is_empty() {
        return "none".to_owned();
    }
    names.sort_unstable();
    let more = names.len().saturating_sub(MAX_LISTED);
    names.truncate(MAX_LISTED);
    let listed = names.join(", ");
    if more == 0 {
        listed
    } else {
        format!("{listed} and {more} more")
    }
}

fn add_names(names: &mut Vec<String>, list: &str) {
    let given = list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    names.extend(given.map(str::to_owned));
}

fn without_parameter(uri: &Uri, names: &mut Vec<String>) -> Uri {
    let mut kept = Vec::new();
    for pair in uri.query().unwrap_or_default().split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if key == PARAMETER {
            let value = value.replace('+', " ");
            add_names(names, &percent_decode_str(&value).decode_utf8_lossy());
        } else {
            kept.push(pair);
        }
    }
    let path = uri.path();
    let kept = kept.join("&");
    let rest = if kept.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{kept}")
    };
    let mut parts = uri.clone().into_parts();
    let rest = PathAndQuery::try_from(rest).expect("what is left of a URI is one");
    parts.path_and_query = Some(rest);
    Uri::from_parts(parts).expect("what is left of a URI is one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::agent::Link;
    use axum::http::Request;
    use chrono::Utc;
    use ollama_coordinator_common::protocol::view::AgentStatus;
    use proptest::prelude::*;
    use rstest::rstest;
    use std::sync::Arc;

    use crate::storage::agent::StoredAgent;

    #[rstest]
    #[case("/api/pull", &[], "/api/pull")]
    #[case("/api/pull?agent=a", &["a"], "/api/pull")]
    #[case("/api/pull?x=%20&agent=a,b%20c&agent=d+e&y", &["a", "b c", "d e"], "/api/pull?x=%20&y")]
    #[case("/api/pull?agents=a", &[], "/api/pull?agents=a")]
    #[case("http://host/api/pull?agent=a&x=1", &["a"], "http://host/api/pull?x=1")]
    fn query_names_agents_and_keeps_the_rest(
        #[case] uri: &str,
        #[case] expected: &[&str],
        #[case] left: &str,
    ) {
        let (mut head, ()) = Request::builder().uri(uri).body(()).unwrap().into_parts();

        assert_eq!(take(&mut head), expected);
        assert_eq!(head.uri, left);
    }

    #[test]
    fn header_names_agents_and_is_taken_out() {
        let request = Request::builder()
            .uri("/?agent=c")
            .header(AGENT_HEADER, "a, b")
            .header(AGENT_HEADER, "d");
        let (mut head, ()) = request.body(()).unwrap().into_parts();

        assert_eq!(take(&mut head), ["a", "b", "d", "c"]);
        assert!(head.headers.is_empty());
    }

    #[test]
    fn agent_is_found_by_any_of_its_names() {
        let fleet = [agent(1, "gpu-1", None), agent(2, "gpu-2", Some("Big One"))];
        let ids = [fleet[0].id(), fleet[1].id()];
        let find = |names: &[&str]| {
            let names: Vec<String> = names.iter().copied().map(str::to_owned).collect();
            resolve(&names, &fleet)
        };

        assert_eq!(find(&[]), Ok(Selection::Any));
        assert_eq!(find(&["GPU-1"]), Ok(Selection::These(vec![ids[0]])));
        let id = ids[0].to_string();
        let named = [id.as_str(), "big one", "gpu-2"];
        assert_eq!(find(&named), Ok(Selection::These(ids.to_vec())));
        assert_eq!(find(&["gpu-1", "ALL"]), Ok(Selection::All));
        let unknown = find(&["gpu-3"]).unwrap_err();
        assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
        assert_eq!(
            unknown.to_string(),
            "no machine is called 'gpu-3'; there are: Big One, gpu-1"
        );
    }

    #[test]
    fn name_of_two_agents_is_refused_with_their_ids() {
        let fleet = [agent(1, "gpu", None), agent(2, "x", Some("GPU"))];

        let error = resolve(&["gpu".to_owned()], &fleet).unwrap_err();

        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
        let message = error.to_string();
        for agent in &fleet {
            assert!(message.contains(&agent.id().to_string()), "{message}");
        }
    }

    fn agent(number: u128, machine_name: &str, display_name: Option<&str>) -> AgentSnapshot {
        let id = AgentId::from_u128(number);
        let mut stored = StoredAgent::new(id, machine_name, ([127, 0, 0, 1].into(), 1), Utc::now());
        stored.display_name = display_name.map(str::to_owned);
        AgentSnapshot {
            last_seen: stored.last_seen,
            stored: Arc::new(stored),
            link: Link::Direct(([127, 0, 0, 1], 1).into()),
            status: AgentStatus::Online,
            reason: None,
            warning: None,
            draining: false,
            metrics: None,
            in_flight: 0,
        }
    }

    proptest! {
        #[test]
        fn only_names_are_taken_out_of_a_query(
            pairs in prop::collection::vec(
                ("(agent|agents|Agent|a|x%20y|)", "[a-zA-Z0-9%+,._~-]{0,10}", any::<bool>()), 0..6,
            ),
            path in "(http://host(:1)?)?(/[a-z%~]{0,8})?",
        ) {
            let pairs: Vec<String> = pairs
                .into_iter()
                .map(|(key, value, has_value)| if has_value { format!("{key}={value}") } else { key })
                .collect();
            let Ok(uri) = format!("{path}?{}", pairs.join("&")).parse::<Uri>() else {
                return Ok(());
            };
            let (mut head, ()) = Request::builder().uri(uri).body(()).unwrap().into_parts();

            let names = take(&mut head);

            let is_name = |pair: &&String| *pair == "agent" || pair.starts_with("agent=");
            let kept: Vec<&str> =
                pairs.iter().filter(|pair| !is_name(pair)).map(String::as_str).collect();
            prop_assert_eq!(head.uri.query().unwrap_or_default(), kept.join("&"));
            prop_assert!(names.iter().all(|name| !name.is_empty() && name.trim() == name));
        }

        #[test]
        fn no_uri_makes_it_panic(text in "[!-~]{0,60}", name in any::<String>()) {
            if let Ok(uri) = text.parse::<Uri>() {
                let (mut head, ()) = Request::builder().uri(uri).body(()).unwrap().into_parts();
                drop(take(&mut head));
            }
            drop(resolve(&[name], &[agent(1, "gpu", None)]));
        }
    }
}
