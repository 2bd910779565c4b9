//! What the registry shows, and what an operator may change.

use std::collections::BTreeSet;

use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::view::{AgentStatus, AgentView};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::agent::FakeAgent;
use crate::support::coordinator::TestCoordinator;

#[tokio::test]
async fn filters_select_by_status_label_and_model() {
    let coordinator = TestCoordinator::new().await;
    let small = FakeAgent::new("small").with_models(&["llama3.2:latest"]);
    let large = FakeAgent::new("large").with_models(&["llama3.2:latest", "qwen3:32b"]);
    for agent in [&small, &large] {
        agent.register(coordinator.api).await;
    }
    small.leave(coordinator.api).await;
    let label = json!({ "labels": { "room": "lab 2", "owner": "" } });
    coordinator.api.patch(&large.path(""), &label).await;

    for (query, expected) in [
        ("status=online", vec!["large"]),
        ("status=offline", vec!["small"]),
        ("label=room", vec!["large"]),
        ("label=room=lab%202", vec!["large"]),
        ("label=owner=", vec!["large"]),
        ("label=room%3Dlab%203", vec![]),
        ("model=qwen3:32b", vec!["large"]),
        ("model=qwen3", vec![]),
        ("status=offline&model=llama3.2", vec!["small"]),
        (
            "status=online&label=room&model=llama3.2:latest",
            vec!["large"],
        ),
    ] {
        let path = format!("/api/agents?{query}");
        let agents: Vec<AgentView> = coordinator.api.get(&path).await.parsed().await;
        let names: Vec<_> = agents.iter().map(|agent| &*agent.machine_name).collect();
        assert_eq!(names, expected, "{query}");
    }
}

#[rstest]
#[case(1)]
#[case(3)]
#[case(7)]
#[case(100_000)]
#[tokio::test]
async fn pages_show_every_agent_once(#[case] limit: usize) {
    let coordinator = TestCoordinator::new().await;
    let mut registered = BTreeSet::new();
    for index in 0..7 {
        let agent = FakeAgent::new(&format!("gpu-{index}"));
        registered.insert(agent.register(coordinator.api).await.id);
    }

    let mut shown: Vec<AgentId> = Vec::new();
    let mut path = format!("/api/agents?limit={limit}");
    loop {
        let mut page = coordinator.api.get(&path).await;
        let agents: Vec<AgentView> = page.parsed().await;
        assert!((1..=limit).contains(&agents.len()));
        shown.extend(agents.iter().map(|agent| agent.id));
        let cursor = page.header("x-next-cursor");
        if cursor.is_empty() {
            break;
        }
        path = format!("/api/agents?limit={limit}&cursor={cursor}");
    }

    assert_eq!(shown, Vec::from_iter(registered));
}

#[rstest]
#[case("cursor=yesterday")]
#[case("limit=0")]
#[case("limit=100001")]
#[case("limit=-1")]
#[case("status=sleeping")]
#[case("stauts=online")]
#[tokio::test]
async fn unusable_filter_is_refused(#[case] query: &str) {
    let coordinator = TestCoordinator::new().await;

    let mut answer = coordinator.api.get(&format!("/api/agents?{query}")).await;

    assert_eq!(answer.problem(400).await["code"], "invalid_request");
}

#[tokio::test]
async fn operators_changes_are_shown_and_survive_a_restart() {
    let mut coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");
    agent.register(coordinator.api).await;
    let change = json!({
        "display_name": "The big one", "labels": { "room": "2" }, "notes": "loud\nhot",
        "draining": true,
    });

    let changed = coordinator
        .api
        .patch(&agent.path(""), &change)
        .await
        .json()
        .await;
    agent.register(coordinator.api).await;
    coordinator.restart().await;

    let kept = coordinator.api.get(&agent.path("")).await.json().await;
    for field in ["display_name", "labels", "notes", "draining"] {
        assert_eq!(
            (&changed[field], &kept[field]),
            (&change[field], &change[field]),
            "{field}"
        );
    }
    let cleared = json!({ "display_name": "", "labels": {}, "notes": "", "draining": false });
    let cleared = coordinator
        .api
        .patch(&agent.path(""), &cleared)
        .await
        .json()
        .await;
    assert_eq!(
        (&cleared["display_name"], &cleared["notes"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(
        (&cleared["labels"], &cleared["draining"]),
        (&json!({}), &json!(false))
    );
}

#[rstest]
#[case(json!({ "display_name": "a\u{202e}b" }), "display_name")]
#[case(json!({ "display_name": "x".repeat(256) }), "display_name")]
#[case(json!({ "labels": { "": "value" } }), "labels")]
#[case(json!({ "labels": { "key": "\u{1b}" } }), "labels.key")]
#[case(json!({ "labels": ["gpu"] }), "labels")]
#[case(json!({ "notes": "x".repeat(4097) }), "notes")]
#[case(json!({ "notes": "\u{0}" }), "notes")]
#[case(json!({ "draining": "yes" }), "draining")]
#[case(json!({ "status": "online" }), "status")]
#[tokio::test]
async fn unusable_change_is_refused_and_changes_nothing(
    #[case] change: Value,
    #[case] field: &str,
) {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");
    agent.register(coordinator.api).await;

    let problem = coordinator
        .api
        .patch(&agent.path(""), &change)
        .await
        .problem(400)
        .await;

    assert_eq!(problem["errors"][0]["field"], field, "{problem}");
    let shown = coordinator.api.agent(agent.id).await;
    assert_eq!(
        (shown.display_name, shown.notes, shown.labels.len()),
        (None, None, 0)
    );
}

#[tokio::test]
async fn forgotten_agent_is_gone_until_it_registers_again() {
    let mut coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");
    agent.register(coordinator.api).await;

    let removed = coordinator.api.delete(&agent.path("")).await;

    assert_eq!(removed.status, 204);
    for mut answer in [
        coordinator.api.get(&agent.path("")).await,
        coordinator.api.delete(&agent.path("")).await,
        coordinator.api.patch(&agent.path(""), &json!({})).await,
        agent.beat(coordinator.api).await,
    ] {
        assert_eq!(answer.problem(404).await["code"], "unknown_agent");
    }
    coordinator.restart().await;
    assert_eq!(coordinator.api.agents().await, []);
    assert_eq!(agent.register(coordinator.api).await.id, agent.id);
}

#[tokio::test]
async fn listed_agents_are_the_documents_of_the_contract() {
    let coordinator = TestCoordinator::new().await;
    let mut agent = FakeAgent::new("gpu-1").with_models(&["a:latest"]);
    agent.report.slots = std::num::NonZeroU32::new(2);
    let mut full = agent.registration();
    full["system_info"] = json!({ "os": "Debian", "gpus": [{ "name": "RTX", "driver": "1" }] });
    full["cloned_from"] = json!(AgentId::new());
    full["agent_version"] = json!("0.1.0");
    full["runtime"]["loaded_models"] = json!([{ "name": "a:latest", "size": 1, "size_vram": 1 }]);
    agent.send(coordinator.api, "/api/agents", &full).await;
    let load = json!({ "session": agent.session, "metrics": { "gpu_percent": 5.5 } });
    agent
        .send(coordinator.api, &agent.path("/heartbeat"), &load)
        .await;
    FakeAgent::new("gpu-2").register(coordinator.api).await;

    for path in ["/api/agents", "/api/agents?limit=9"] {
        let listed = coordinator.api.get(path).await.json().await;
        let parsed: Vec<AgentView> = serde_json::from_value(listed.clone()).unwrap();

        assert_eq!(json!(parsed), listed, "{path}");
        assert!(
            parsed
                .iter()
                .all(|agent| agent.status == AgentStatus::Online)
        );
    }
}
