//! The agents as a whole.

use ollama_coordinator_common::doctor::{Check, CheckId};
use ollama_coordinator_common::http::HttpClient;
use ollama_coordinator_common::protocol::view::AgentView;

use crate::commands::agents::table;
use crate::commands::ask::fetch;

/// How many agents are named.
const NAMED: usize = 5;

/// Asks for the agents.
pub(crate) async fn look(client: &mut HttpClient) -> Check {
    match fetch::<Vec<AgentView>>(client, "/api/agents").await {
        Ok(agents) => judge(&agents),
        Err(error) => Check::unknown(CheckId::Agents, error.to_string()),
    }
}

fn judge(agents: &[AgentView]) -> Check {
    let id = CheckId::Agents;
    let idle: Vec<_> = agents.iter().filter(|agent| !agent.routable).collect();
    let known = agents.len();
    let Some(first) = idle.first() else {
        if agents.is_empty() {
            return Check::warning(id, "none yet")
                .with_remedy("on each machine, run: ollama-agent --coordinator URL");
        }
        return Check::ok(id, format!("{known} of {known} get requests"));
    };
    let names = idle
        .iter()
        .take(NAMED)
        .map(|agent| format!("{} ({})", table::name(agent), table::state(agent)));
    let names = names.collect::<Vec<_>>().join(", ");
    let more = if idle.len() > NAMED { ", ..." } else { "" };
    let found = format!(
        "{} of {known} get requests; not {names}{more}",
        known - idle.len()
    );
    Check::warning(id, found)
        .with_remedy(format!("ollama-coordinator doctor {}", table::name(first)))
}
