//! From a request to its answer: the route table and the failures that the script asks for.

use std::sync::Arc;

use bytes::Bytes;
use http::header::HeaderValue;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Collected, Limited};
use hyper::body::Incoming;

use super::engine::Engine;
use super::record::{Exchange, RecordedRequest};
use super::reply::{ApiError, Dialect, Reply, SIMULATED_ERROR};
use super::script::{FailureMode, FailureScope, RuntimeScript};
use super::wire::{AfterCut, AnswerBody, CutBody, ResetSwitch};
use super::{catalogue, ollama, openai};

const LARGEST_REQUEST: usize = 64 << 20;
/// Carries the script's label in every answer.
pub(super) const LABEL_HEADER: &str = "x-simulated-runtime";

/// One request and everything needed to answer it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) engine: Arc<Engine>,
    /// The script as it was when the request came.
    pub(super) script: Arc<RuntimeScript>,
    pub(super) body: Bytes,
}

/// Answers one request as the script says.
pub(super) async fn answer(
    engine: Arc<Engine>,
    switch: ResetSwitch,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let mut exchange = Exchange::begin(&engine.record);
    let (head, body) = request.into_parts();
    let dialect = Dialect::of(head.uri.path());
    let route = Route::find(&head.method, head.uri.path());
    let body = Limited::new(body, LARGEST_REQUEST).collect().await;
    let script = engine.script();
    let failure = failure_for(route.as_ref().ok(), &script);
    if matches!(failure, FailureMode::Reset { .. }) {
        exchange.answered();
    }
    let reply = match body.map(Collected::to_bytes) {
        Err(_too_large) => {
            let error = ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "request body too large");
            error.into_reply(dialect)
        }
        Ok(body) => {
            engine.record.keep(RecordedRequest {
                method: head.method,
                uri: head.uri,
                headers: head.headers,
                body: body.clone(),
            });
            let call = Call {
                engine,
                script: Arc::clone(&script),
                body,
            };
            match stopped_early(failure, &switch).await {
                Some(error) => error.into_reply(dialect),
                None => reply_to(call, route, dialect).await,
            }
        }
    };
    labelled(cut(reply.into_response(exchange), failure, switch), &script)
}

/// Applies the failures that come before any answer.
async fn stopped_early(failure: FailureMode, switch: &ResetSwitch) -> Option<ApiError> {
    match failure {
        FailureMode::Stall { after_bytes: 0 } => std::future::pending().await,
        FailureMode::Reset { after_bytes: 0 } => {
            switch.pull();
            std::future::pending().await
        }
        FailureMode::Status(status) => Some(ApiError::new(status, SIMULATED_ERROR)),
        FailureMode::None
        | FailureMode::Refuse
        | FailureMode::Stall { .. }
        | FailureMode::Reset { .. }
        | FailureMode::ErrorLine { .. }
        | FailureMode::Slow { .. } => None,
    }
}

async fn reply_to(call: Call, route: Result<Route, NoRoute>, dialect: Dialect) -> Reply {
    let reply = match route {
        Ok(Route::Root) => Ok(Reply::text(StatusCode::OK, "Ollama is running")),
        Ok(Route::Version) => Ok(catalogue::version(&call)),
        Ok(Route::Tags) => Ok(catalogue::tags(&call)),
        Ok(Route::Ps) => Ok(catalogue::ps(&call)),
        Ok(Route::Show) => catalogue::show(&call),
        Ok(Route::OpenAiModels) => Ok(catalogue::openai_models(&call)),
        Ok(Route::OpenAiModel(name)) => catalogue::openai_model(&call, &name),
        Ok(Route::Generate) => ollama::generate(&call).await,
        Ok(Route::Chat) => ollama::chat(&call).await,
        Ok(Route::Embed) => ollama::embed(&call).await,
        Ok(Route::Embeddings) => ollama::embeddings(&call).await,
        Ok(Route::ChatCompletions) => openai::chat_completions(&call).await,
        Ok(Route::Completions) => openai::completions(&call).await,
        Ok(Route::OpenAiEmbeddings) => openai::embeddings(&call).await,
        Err(NoRoute::Path) => Ok(Reply::text(StatusCode::NOT_FOUND, "404 page not found")),
        Err(NoRoute::Method) => Ok(Reply::text(
            StatusCode::METHOD_NOT_ALLOWED,
            "405 method not allowed",
        )),
    };
    reply.unwrap_or_else(|error| error.into_reply(dialect))
}

fn failure_for(route: Option<&Route>, script: &RuntimeScript) -> FailureMode {
    let is_hit = match script.failure_scope {
        FailureScope::Everything => true,
        FailureScope::Inference => route.is_some_and(Route::runs_a_model),
    };
    if is_hit {
        script.failure
    } else {
        FailureMode::None
    }
}

fn cut(
    response: Response<AnswerBody>,
    failure: FailureMode,
    switch: ResetSwitch,
) -> Response<AnswerBody> {
    let (after_bytes, then) = match failure {
        FailureMode::Stall { after_bytes } => (after_bytes, AfterCut::Silence),
        FailureMode::Reset { after_bytes } => (after_bytes, AfterCut::Reset(switch)),
        FailureMode::None
        | FailureMode::Refuse
        | FailureMode::Status(_)
        | FailureMode::ErrorLine { .. }
        | FailureMode::Slow { .. } => return response,
    };
    response.map(|body| CutBody::new(body, after_bytes, then).boxed_unsync())
}

fn labelled(mut response: Response<AnswerBody>, script: &RuntimeScript) -> Response<AnswerBody> {
    if let Ok(label) = HeaderValue::from_str(&script.label) {
        response.headers_mut().insert(LABEL_HEADER, label);
    }
    response
}

#[derive(Debug, PartialEq, Eq)]
enum Route {
    Root,
    Version,
    Tags,
    Ps,
    Show,
    Generate,
    Chat,
    Embed,
    Embeddings,
    OpenAiModels,
    OpenAiModel(String),
    ChatCompletions,
    Completions,
    OpenAiEmbeddings,
}

#[derive(Debug, PartialEq, Eq)]
enum NoRoute {
    Path,
    Method,
}

impl Route {
    fn find(method: &Method, path: &str) -> Result<Self, NoRoute> {
        let (route, methods): (_, &[Method]) = match path {
            "/" => (Self::Root, &[Method::GET, Method::HEAD]),
            "/api/version" => (Self::Version, &[Method::GET, Method::HEAD]),
            "/api/tags" => (Self::Tags, &[Method::GET, Method::HEAD]),
            "/api/ps" => (Self::Ps, &[Method::GET]),
            "/api/show" => (Self::Show, &[Method::POST]),
            "/api/generate" => (Self::Generate, &[Method::POST]),
            "/api/chat" => (Self::Chat, &[Method::POST]),
            "/api/embed" => (Self::Embed, &[Method::POST]),
            "/api/embeddings" => (Self::Embeddings, &[Method::POST]),
            "/v1/models" => (Self::OpenAiModels, &[Method::GET]),
            "/v1/chat/completions" => (Self::ChatCompletions, &[Method::POST]),
            "/v1/completions" => (Self::Completions, &[Method::POST]),
            "/v1/embeddings" => (Self::OpenAiEmbeddings, &[Method::POST]),
            _ => match path.strip_prefix("/v1/models/") {
                Some(name) if !name.is_empty() && !name.contains('/') => {
                    (Self::OpenAiModel(percent_decoded(name)), &[Method::GET])
                }
                Some(_) | None => return Err(NoRoute::Path),
            },
        };
        if methods.contains(method) {
            Ok(route)
        } else {
            Err(NoRoute::Method)
        }
    }

    fn runs_a_model(&self) -> bool {
        match self {
            Self::Generate
            | Self::Chat
            | Self::Embed
            | Self::Embeddings
            | Self::ChatCompletions
            | Self::Completions
            | Self::OpenAiEmbeddings => true,
            Self::Root
            | Self::Version
            | Self::Tags
            | Self::Ps
            | Self::Show
            | Self::OpenAiModels
            | Self::OpenAiModel(_) => false,
        }
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail.get(..2).filter(|_| *first == b'%');
        let digits = escaped.and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = byte.map_or(tail, |_| &tail[2..]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Method::GET, "/v1/models/a%2Fb%3Alatest", Ok(Route::OpenAiModel("a/b:latest".to_owned())))]
    #[case(Method::GET, "/v1/models/50%", Ok(Route::OpenAiModel("50%".to_owned())))]
    #[case(Method::HEAD, "/api/tags", Ok(Route::Tags))]
    #[case(Method::DELETE, "/api/chat", Err(NoRoute::Method))]
    #[case(Method::POST, "/api/generate/api/show", Err(NoRoute::Path))]
    #[case(Method::GET, "/v1/models/", Err(NoRoute::Path))]
    fn paths_and_methods_find_their_route(
        #[case] method: Method,
        #[case] path: &str,
        #[case] expected: Result<Route, NoRoute>,
    ) {
        assert_eq!(Route::find(&method, path), expected);
    }
}
