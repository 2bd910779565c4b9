//! Lists that the coordinator answers from its own knowledge: no machine is waited for.
//!
//! Their fields and their order are Ollama's.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use axum::http::{HeaderValue, Response, StatusCode, header};
use chrono::{DateTime, FixedOffset};
use ollama_coordinator_common::protocol::runtime::{
    LoadedModel, Model, ModelDetails, RuntimeReport,
};
use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::body::ProxyBody;
use super::error::{self, Dialect};
use super::route::List;
use crate::registry::Registry;
use crate::registry::candidates::Candidates;
use crate::registry::snapshot::model_key;

/// What stands for a time that nobody told.
const NO_TIME: &str = "1970-01-01T00:00:00Z";
/// What the coordinator says where no machine tells a version.
const NO_VERSION: &str = "0.0.0";

/// Answers from what the registry knows.
pub fn answer(registry: &Registry, list: List, path: &str) -> Response<ProxyBody> {
    let candidates = registry.candidates();
    match list {
        List::Root => error::plain(StatusCode::OK, "Ollama is running"),
        List::Version => json(&Version {
            version: candidates.commonest_version().unwrap_or(NO_VERSION),
        }),
        List::Tags => json(&Models {
            models: tags(&candidates),
        }),
        List::Ps => {
            let agents = registry.snapshot();
            let routable = agents.iter().filter(|agent| agent.reason.is_none());
            json(&Models {
                models: loaded(routable.map(|agent| &agent.stored.runtime)),
            })
        }
        List::Models => json(&OpenAiList {
            object: "list",
            data: newest_first(&candidates).map(OpenAiModel::of).collect(),
        }),
        List::Model => one(&candidates, path),
    }
}

fn json(body: &impl Serialize) -> Response<ProxyBody> {
    let body = serde_json::to_vec(body).expect("lists serialise");
    let mut response = Response::new(ProxyBody::whole(body));
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

#[derive(Serialize)]
struct Version<'a> {
    version: &'a str,
}

#[derive(Serialize)]
struct Models<T> {
    models: Vec<T>,
}

/// Returns the models of all routable agents, as Ollama sorts them.
fn newest_first(candidates: &Candidates) -> impl Iterator<Item = &Model> {
    let mut models: Vec<&Model> = candidates.models().collect();
    models.sort_by_cached_key(|model| Reverse(time(model.modified_at.as_deref())));
    models.into_iter()
}

fn tags(candidates: &Candidates) -> Vec<TagsModel<'_>> {
    newest_first(candidates).map(TagsModel::of).collect()
}

#[derive(Serialize)]
struct TagsModel<'a> {
    name: &'a str,
    model: &'a str,
    modified_at: &'a str,
    size: u64,
    digest: &'a str,
    details: Option<&'a ModelDetails>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    capabilities: &'a [String],
}

impl<'a> TagsModel<'a> {
    fn of(model: &'a Model) -> Self {
        Self {
            name: &model.name,
            model: &model.name,
            modified_at: model.modified_at.as_deref().unwrap_or(NO_TIME),
            size: model.size.unwrap_or(0),
            digest: model.digest.as_deref().unwrap_or(""),
            details: model.details.as_ref(),
            capabilities: &model.capabilities,
        }
    }
}

/// Returns the models in memory anywhere, each once: as it is where it stays for longest.
fn loaded<'a>(runtimes: impl Iterator<Item = &'a RuntimeReport>) -> Vec<PsModel<'a>> {
    let mut by_name = BTreeMap::<&str, PsModel<'a>>::new();
    for runtime in runtimes {
        for loaded in &runtime.loaded_models {
            let model = runtime
                .models
                .iter()
                .find(|model| model.name == loaded.name);
            let entry = PsModel::of(loaded, model);
            let is_longer = by_name
                .get(&*loaded.name)
                .is_none_or(|other| entry.until() > other.until());
            if is_longer {
                by_name.insert(&loaded.name, entry);
            }
        }
    }
    let mut models: Vec<_> = by_name.into_values().collect();
    models.sort_by_cached_key(|model| Reverse(model.until()));
    models
}

#[derive(Debug, Serialize)]
struct PsModel<'a> {
    name: &'a str,
    model: &'a str,
    size: u64,
    digest: &'a str,
    details: Option<&'a ModelDetails>,
    expires_at: &'a str,
    size_vram: u64,
    context_length: u64,
}

impl<'a> PsModel<'a> {
    fn of(loaded: &'a LoadedModel, model: Option<&'a Model>) -> Self {
        Self {
            name: &loaded.name,
            model: &loaded.name,
            size: loaded.size.unwrap_or(0),
            digest: model.and_then(|m| m.digest.as_deref()).unwrap_or(""),
            details: model.and_then(|model| model.details.as_ref()),
            expires_at: loaded.expires_at.as_deref().unwrap_or(NO_TIME),
            size_vram: loaded.size_vram.unwrap_or(0),
            context_length: loaded.context_length.unwrap_or(0),
        }
    }

    fn until(&self) -> Option<DateTime<FixedOffset>> {
        time(Some(self.expires_at))
    }
}

#[derive(Serialize)]
struct OpenAiList<'a> {
    object: &'static str,
    data: Vec<OpenAiModel<'a>>,
}

#[derive(Serialize)]
struct OpenAiModel<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    owned_by: &'a str,
}

impl<'a> OpenAiModel<'a> {
    fn of(model: &'a Model) -> Self {
        let created = time(model.modified_at.as_deref()).map_or(0, |time| time.timestamp());
        let mut parts = model.name.rsplit('/');
        let owned_by = parts.nth(1).unwrap_or("library");
        Self {
            id: &model.name,
            object: "model",
            created,
            owned_by,
        }
    }
}

/// Answers for the one model that ends the path.
fn one(candidates: &Candidates, path: &str) -> Response<ProxyBody> {
    let name = path.strip_prefix("/v1/models/").unwrap_or_default();
    let name = percent_decode_str(name).decode_utf8_lossy();
    let key = model_key(&name);
    let is = |model: &&Model| model.name == name || model_key(&model.name) == key;
    if let Some(model) = candidates.models().find(is) {
        return json(&OpenAiModel::of(model));
    }
    let message = format!("model '{name}' not found");
    error::answer(Dialect::OpenAi, StatusCode::NOT_FOUND, &message)
}

fn time(text: Option<&str>) -> Option<DateTime<FixedOffset>> {
    DateTime::parse_from_rfc3339(text?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(name: &str, expires_at: &str) -> RuntimeReport {
        RuntimeReport {
            loaded_models: vec![LoadedModel {
                name: name.to_owned(),
                size: Some(1),
                size_vram: None,
                expires_at: Some(expires_at.to_owned()),
                context_length: None,
            }],
            ..RuntimeReport::default()
        }
    }

    #[test]
    fn model_in_several_memories_is_listed_where_it_stays_for_longest() {
        let runtimes = [
            holding("a:latest", "2026-01-01T12:00:00Z"),
            holding("b:latest", "2026-01-01T12:30:00Z"),
            // Later than the first, though its text is less.
            holding("a:latest", "2026-01-01T10:00:00-05:00"),
            holding("a:latest", "2026-01-01T11:00:00Z"),
        ];

        let models = loaded(runtimes.iter());

        let shown: Vec<_> = models.iter().map(|m| (m.name, m.expires_at)).collect();
        assert_eq!(
            shown,
            [
                ("a:latest", "2026-01-01T10:00:00-05:00"),
                ("b:latest", "2026-01-01T12:30:00Z"),
            ]
        );
    }
}
