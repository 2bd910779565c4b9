//! From a request to its answer: what each route does and the failures that the script asks for.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use super::engine::Engine;
use super::record::{self, Exchange, RecordedRequest};
use super::reply::{ApiError, Dialect, Reply, SIMULATED_ERROR};
use super::route::{NoRoute, Route};
use super::script::{FailureMode, FailureScope, RuntimeScript};
use super::wire::{AfterCut, AnswerBody, CutBody, ResetSwitch};
use super::{
    account, anthropic, audio, blobs, catalogue, library, ollama, openai, openai_embeddings,
    responses,
};

const LARGEST_REQUEST: usize = 64 << 20;
/// Carries the script's label in every answer.
pub(super) const LABEL_HEADER: &str = "x-simulated-runtime";

/// One request and everything needed to answer it.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) engine: Arc<Engine>,
    /// The script as it was when the request came.
    pub(super) script: Arc<RuntimeScript>,
    pub(super) body: Bytes,
    content_type: Option<HeaderValue>,
    content_encoding: Option<HeaderValue>,
}

impl Call {
    pub(super) fn content_type(&self) -> Option<&str> {
        self.content_type.as_ref()?.to_str().ok()
    }

    pub(super) fn content_encoding(&self) -> Option<&str> {
        self.content_encoding.as_ref()?.to_str().ok()
    }

    /// Returns the same call with another body.
    pub(super) fn with_body(&self, body: Bytes) -> Self {
        Self {
            body,
            ..self.clone()
        }
    }
}

/// Answers one request as the script says.
pub(super) async fn answer(
    engine: Arc<Engine>,
    switch: ResetSwitch,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    if request.uri().path() == record::PATH {
        return record::page(&engine);
    }
    let mut exchange = Exchange::begin(&engine.record);
    let (head, body) = request.into_parts();
    let dialect = Dialect::of(head.uri.path());
    let route = Route::find(&head.method, head.uri.path());
    let body = Body::read(route.as_ref().ok(), body).await;
    let script = engine.script();
    let failure = failure_for(route.as_ref().ok(), &script);
    if matches!(failure, FailureMode::Reset { .. }) {
        exchange.answered();
    }
    let reply = match body {
        Err(error) => error.into_reply(dialect),
        Ok(body) => {
            let call = Call {
                engine,
                script: Arc::clone(&script),
                body: body.bytes,
                content_type: head.headers.get(CONTENT_TYPE).cloned(),
                content_encoding: head.headers.get(CONTENT_ENCODING).cloned(),
            };
            let (method, uri) = (head.method.clone(), head.uri.clone());
            call.engine.record.keep(RecordedRequest {
                method: head.method,
                uri: head.uri,
                headers: head.headers,
                body: call.body.clone(),
            });
            match stopped_early(failure, &switch).await {
                Some(error) => error.into_reply(dialect),
                None => match route {
                    Ok(route) => reply_to(&call, route, body.uploaded.as_deref())
                        .await
                        .unwrap_or_else(|error| error.into_reply(dialect)),
                    Err(no_route) => no_reply(no_route, &method, &uri),
                },
            }
        }
    };
    labelled(cut(reply.into_response(exchange), failure, switch), &script)
}

/// What came with a request: its bytes or, of an upload, only their digest.
#[derive(Debug, Default)]
struct Body {
    bytes: Bytes,
    uploaded: Option<String>,
}

impl Body {
    async fn read(route: Option<&Route>, body: Incoming) -> Result<Self, ApiError> {
        if let Some(Route::PutBlob(_)) = route {
            return Ok(Self {
                uploaded: blobs::digest_of(body).await,
                ..Self::default()
            });
        }
        let body = Limited::new(body, LARGEST_REQUEST).collect().await;
        let body = body.map_err(|_too_large| {
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "request body too large")
        })?;
        Ok(Self {
            bytes: body.to_bytes(),
            uploaded: None,
        })
    }
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

async fn reply_to(call: &Call, route: Route, uploaded: Option<&str>) -> Result<Reply, ApiError> {
    match route {
        Route::Root => Ok(Reply::text(StatusCode::OK, "Ollama is running")),
        Route::Version => Ok(catalogue::version(call)),
        Route::Status => Ok(account::status(call)),
        Route::Tags => Ok(catalogue::tags(call)),
        Route::Ps => Ok(catalogue::ps(call)),
        Route::Show => catalogue::show(call),
        Route::Pull => library::pull(call).await,
        Route::Push => library::push(call).await,
        Route::Create => library::create(call).await,
        Route::Copy => library::copy(call),
        Route::Delete => library::delete(call),
        Route::PutBlob(digest) => blobs::put(call, &digest, uploaded),
        Route::HasBlob(digest) => blobs::head(call, &digest),
        Route::Account => Ok(account::unauthorized()),
        Route::Cloud => account::cloud(call),
        Route::Recommendations => Ok(account::recommendations(call)),
        Route::OpenAiModels => Ok(catalogue::openai_models(call)),
        Route::OpenAiModel(name) => catalogue::openai_model(call, &name),
        Route::Generate => ollama::generate(call).await,
        Route::Chat => ollama::chat(call).await,
        Route::Embed => ollama::embed(call).await,
        Route::Embeddings => ollama::embeddings(call).await,
        Route::ChatCompletions => openai::chat_completions(call).await,
        Route::Completions => openai::completions(call).await,
        Route::OpenAiEmbeddings => openai_embeddings::embeddings(call).await,
        Route::Responses => responses::responses(call).await,
        Route::Transcriptions => audio::transcriptions(call).await,
        Route::Messages => anthropic::messages(call).await,
        Route::CountTokens => anthropic::count_tokens(call),
    }
}

fn no_reply(no_route: NoRoute, method: &Method, uri: &Uri) -> Reply {
    match no_route {
        NoRoute::Path => Reply::text(StatusCode::NOT_FOUND, "404 page not found"),
        NoRoute::Method => Reply::text(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed"),
        NoRoute::Moved(path) => {
            let status = if method == Method::GET {
                StatusCode::MOVED_PERMANENTLY
            } else {
                StatusCode::TEMPORARY_REDIRECT
            };
            let query = uri.query().map(|query| format!("?{query}"));
            Reply::moved(status, &format!("{path}{}", query.unwrap_or_default()))
        }
    }
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
