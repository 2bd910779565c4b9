//! Which route a request takes: pure, by method and path.

use axum::http::Method;

use super::error::Dialect;

/// How a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// From what the registry knows; no machine is asked.
    List(List),
    /// By a model on a machine that has a slot free.
    Inference(Inference),
    /// By one or several machines, without taking a slot.
    Machine(Machine),
}

/// What the registry answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// `GET /`.
    Root,
    /// `GET /api/version`.
    Version,
    /// `GET /api/tags`.
    Tags,
    /// `GET /api/ps`.
    Ps,
    /// `GET /v1/models`.
    Models,
    /// `GET /v1/models/{model}`.
    Model,
}

/// A request that a model answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inference {
    /// Whose protocol it is.
    pub dialect: Dialect,
    /// Whether only runtimes with Ollama's own API can answer.
    pub ollama_only: bool,
    /// Whether it may be sent again, to another agent, before anything of the answer was sent on.
    pub is_repeatable: bool,
    /// Whether the route is one that is listed here.
    pub is_known: bool,
    /// Whether an answer is streamed when the request does not say.
    pub streams_by_default: bool,
}

/// What is asked of machines rather than of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// `POST /api/show`.
    Show,
    /// `POST /api/pull`.
    Pull,
    /// `POST /api/push`.
    Push,
    /// `POST /api/create`.
    Create,
    /// `POST /api/copy`.
    Copy,
    /// `DELETE /api/delete`.
    Delete,
    /// `POST` or `HEAD /api/blobs/{digest}`.
    Blob,
    /// Anything else that Ollama answers without a model.
    Other,
}

/// Why there is no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoute {
    /// Nothing is at this path.
    Path,
    /// The path takes other methods; these.
    Method(&'static str),
}

const GET: &str = "GET,HEAD";
const POST: &str = "POST";

impl Route {
    /// Finds the route of a request.
    pub fn find(method: &Method, path: &str) -> Result<Self, NoRoute> {
        let (route, methods) = Self::at(path).ok_or(NoRoute::Path)?;
        if methods.split(',').any(|allowed| allowed == method.as_str()) {
            Ok(route)
        } else {
            Err(NoRoute::Method(methods))
        }
    }

    fn at(path: &str) -> Option<(Self, &'static str)> {
        let native = Inference {
            dialect: Dialect::Ollama,
            ollama_only: true,
            is_repeatable: true,
            is_known: true,
            streams_by_default: true,
        };
        let plain = Inference {
            streams_by_default: false,
            ..native
        };
        let openai = Inference {
            dialect: Dialect::OpenAi,
            ollama_only: false,
            ..plain
        };
        let anthropic = Inference {
            dialect: Dialect::Anthropic,
            ..openai
        };
        Some(match path {
            "/api/chat" | "/api/generate" => (Self::Inference(native), POST),
            "/v1/chat/completions"
            | "/v1/completions"
            | "/v1/embeddings"
            | "/v1/responses"
            | "/v1/audio/transcriptions" => (Self::Inference(openai), POST),
            "/v1/messages" | "/v1/messages/count_tokens" => (Self::Inference(anthropic), POST),
            "/api/embed" | "/api/embeddings" => (Self::Inference(plain), POST),
            "/" => (Self::List(List::Root), GET),
            "/api/version" => (Self::List(List::Version), GET),
            "/api/tags" => (Self::List(List::Tags), GET),
            "/api/ps" => (Self::List(List::Ps), GET),
            "/v1/models" => (Self::List(List::Models), GET),
            "/api/show" => (Self::Machine(Machine::Show), POST),
            "/api/pull" => (Self::Machine(Machine::Pull), POST),
            "/api/push" => (Self::Machine(Machine::Push), POST),
            "/api/create" => (Self::Machine(Machine::Create), POST),
            "/api/copy" => (Self::Machine(Machine::Copy), POST),
            "/api/delete" => (Self::Machine(Machine::Delete), "DELETE"),
            _ if path.starts_with("/v1/models/") => (Self::List(List::Model), GET),
            _ if path.starts_with("/api/blobs/") => (Self::Machine(Machine::Blob), "POST,HEAD"),
            _ => return None,
        })
    }

    /// Returns how a path below `/api/` or `/v1/` is answered that is not known here: newer
    /// runtimes and other ones have more routes, and what names a model can be sent to one.
    pub fn beyond(method: &Method, path: &str) -> Option<Inference> {
        let is_api = path.starts_with("/api/") || path.starts_with("/v1/");
        (is_api && method == Method::POST).then_some(Inference {
            dialect: Dialect::of(path),
            ollama_only: false,
            is_repeatable: false,
            is_known: false,
            streams_by_default: false,
        })
    }
}
