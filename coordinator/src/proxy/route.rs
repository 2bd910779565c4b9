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
    /// What else changes a machine: `POST /api/signout`, `DELETE /api/user/keys/{key}`, experiments.
    Setting,
    /// What any machine can answer: `POST /api/me`, the search and the recommendations of the cloud.
    Account,
    /// `GET /api/status`.
    Status,
}

/// Why there is no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoute {
    /// Nothing is at this path.
    Path,
    /// The path takes other methods; these.
    Method(&'static str),
    /// There is something without the slash at the end.
    Slash,
}

impl Inference {
    /// Returns whether the route is one that is listed here: of others nobody knows whether they may
    /// be repeated.
    pub fn is_known(self) -> bool {
        self.is_repeatable
    }
}

const READ: &str = "GET,HEAD";
const GET: &str = "GET";
const POST: &str = "POST";

impl Route {
    /// Finds the route of a request.
    pub fn find(method: &Method, path: &str) -> Result<Self, NoRoute> {
        let takes = |methods: &str| methods.split(',').any(|allowed| allowed == method.as_str());
        match Self::at(path) {
            Some((route, methods)) if takes(methods) => Ok(route),
            Some((_, methods)) => Err(NoRoute::Method(methods)),
            None => {
                let shorter = path.strip_suffix('/').and_then(Self::at);
                let is_near = shorter.is_some_and(|(_, methods)| takes(methods));
                Err(if is_near {
                    NoRoute::Slash
                } else {
                    NoRoute::Path
                })
            }
        }
    }

    fn at(path: &str) -> Option<(Self, &'static str)> {
        let native = Inference {
            dialect: Dialect::Ollama,
            ollama_only: true,
            is_repeatable: true,
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
            "/" => (Self::List(List::Root), READ),
            "/api/version" => (Self::List(List::Version), READ),
            "/api/tags" => (Self::List(List::Tags), READ),
            "/api/ps" => (Self::List(List::Ps), GET),
            "/v1/models" => (Self::List(List::Models), GET),
            _ => return Self::named(path).or_else(|| Self::machine(path)),
        })
    }

    fn machine(path: &str) -> Option<(Self, &'static str)> {
        let (machine, methods) = match path {
            "/api/show" => (Machine::Show, POST),
            "/api/pull" => (Machine::Pull, POST),
            "/api/push" => (Machine::Push, POST),
            "/api/create" => (Machine::Create, POST),
            "/api/copy" => (Machine::Copy, POST),
            "/api/delete" => (Machine::Delete, "DELETE"),
            "/api/status" => (Machine::Status, GET),
            "/api/me" | "/api/experimental/web_search" | "/api/experimental/web_fetch" => {
                (Machine::Account, POST)
            }
            "/api/experimental/model-recommendations" => (Machine::Account, GET),
            "/api/experimental/aliases" => (Machine::Setting, "GET,POST,DELETE"),
            "/api/signout" => (Machine::Setting, POST),
            _ => return None,
        };
        Some((Self::Machine(machine), methods))
    }

    /// Finds a route whose path ends in a name.
    fn named(path: &str) -> Option<(Self, &'static str)> {
        let has_name = |root: &str| path.strip_prefix(root).is_some_and(|rest| !rest.is_empty());
        Some(if has_name("/v1/models/") {
            (Self::List(List::Model), GET)
        } else if has_name("/api/blobs/") {
            (Self::Machine(Machine::Blob), "POST,HEAD")
        } else if has_name("/api/user/keys/") {
            (Self::Machine(Machine::Setting), "DELETE")
        } else {
            return None;
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
            streams_by_default: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Method::HEAD, "/api/tags", Ok(Route::List(List::Tags)))]
    #[case(Method::HEAD, "/api/ps", Err(NoRoute::Method("GET")))]
    #[case(Method::GET, "/v1/models/a%2Fb", Ok(Route::List(List::Model)))]
    #[case(Method::GET, "/v1/models/", Err(NoRoute::Slash))]
    #[case(Method::POST, "/api/pull/", Err(NoRoute::Slash))]
    #[case(Method::GET, "/api/pull/", Err(NoRoute::Path))]
    #[case(Method::HEAD, "/api/blobs/sha256:0", Ok(Route::Machine(Machine::Blob)))]
    #[case(Method::GET, "/api/delete", Err(NoRoute::Method("DELETE")))]
    #[case(
        Method::DELETE,
        "/api/user/keys/abc",
        Ok(Route::Machine(Machine::Setting))
    )]
    #[case(Method::POST, "/api/generate/api/show", Err(NoRoute::Path))]
    fn methods_and_paths_find_their_route(
        #[case] method: Method,
        #[case] path: &str,
        #[case] expected: Result<Route, NoRoute>,
    ) {
        assert_eq!(Route::find(&method, path), expected);
    }
}
