//! The table of routes: what Ollama answers for which method and path.

use http::Method;

/// What a request is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    Root,
    Version,
    Status,
    Tags,
    Ps,
    Show,
    Pull,
    Push,
    Create,
    Copy,
    Delete,
    PutBlob(String),
    HasBlob(String),
    Account,
    Cloud,
    Recommendations,
    Generate,
    Chat,
    Embed,
    Embeddings,
    OpenAiModels,
    OpenAiModel(String),
    ChatCompletions,
    Completions,
    OpenAiEmbeddings,
    Responses,
    Transcriptions,
    Messages,
    CountTokens,
}

/// Why a request finds no route.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoRoute {
    Path,
    Method,
    /// The path is right but for a slash at its end.
    Moved(String),
}

impl Route {
    pub(super) fn find(method: &Method, path: &str) -> Result<Self, NoRoute> {
        let route = exact(method, path);
        if matches!(route, Err(NoRoute::Path))
            && let Some(shorter) = path.strip_suffix('/')
            && !shorter.is_empty()
            && exact(method, shorter).is_ok()
        {
            return Err(NoRoute::Moved(shorter.to_owned()));
        }
        route
    }

    pub(super) fn runs_a_model(&self) -> bool {
        match self {
            Self::Generate
            | Self::Chat
            | Self::Embed
            | Self::Embeddings
            | Self::ChatCompletions
            | Self::Completions
            | Self::OpenAiEmbeddings
            | Self::Responses
            | Self::Transcriptions
            | Self::Messages => true,
            Self::Root
            | Self::Version
            | Self::Status
            | Self::Tags
            | Self::Ps
            | Self::Show
            | Self::Pull
            | Self::Push
            | Self::Create
            | Self::Copy
            | Self::Delete
            | Self::PutBlob(_)
            | Self::HasBlob(_)
            | Self::Account
            | Self::Cloud
            | Self::Recommendations
            | Self::OpenAiModels
            | Self::OpenAiModel(_)
            | Self::CountTokens => false,
        }
    }
}

fn exact(method: &Method, path: &str) -> Result<Route, NoRoute> {
    if let Some(digest) = argument(path, "/api/blobs/") {
        return match *method {
            Method::POST => Ok(Route::PutBlob(digest)),
            Method::HEAD => Ok(Route::HasBlob(digest)),
            _ => Err(NoRoute::Method),
        };
    }
    let (route, methods) = openai(path).or_else(|| native(path)).ok_or(NoRoute::Path)?;
    if methods.contains(method) {
        Ok(route)
    } else {
        Err(NoRoute::Method)
    }
}

const READ: &[Method] = &[Method::GET, Method::HEAD];
const GET: &[Method] = &[Method::GET];
const POST: &[Method] = &[Method::POST];
const DELETE: &[Method] = &[Method::DELETE];

fn native(path: &str) -> Option<(Route, &'static [Method])> {
    Some(match path {
        "/" => (Route::Root, READ),
        "/api/version" => (Route::Version, READ),
        "/api/status" => (Route::Status, GET),
        "/api/tags" => (Route::Tags, READ),
        "/api/ps" => (Route::Ps, GET),
        "/api/show" => (Route::Show, POST),
        "/api/pull" => (Route::Pull, POST),
        "/api/push" => (Route::Push, POST),
        "/api/create" => (Route::Create, POST),
        "/api/copy" => (Route::Copy, POST),
        "/api/delete" => (Route::Delete, DELETE),
        "/api/me" | "/api/signout" => (Route::Account, POST),
        "/api/experimental/web_search" | "/api/experimental/web_fetch" => (Route::Cloud, POST),
        "/api/experimental/model-recommendations" => (Route::Recommendations, GET),
        "/api/generate" => (Route::Generate, POST),
        "/api/chat" => (Route::Chat, POST),
        "/api/embed" => (Route::Embed, POST),
        "/api/embeddings" => (Route::Embeddings, POST),
        _ => {
            argument(path, "/api/user/keys/")?;
            (Route::Account, DELETE)
        }
    })
}

fn openai(path: &str) -> Option<(Route, &'static [Method])> {
    Some(match path {
        "/v1/models" => (Route::OpenAiModels, GET),
        "/v1/chat/completions" => (Route::ChatCompletions, POST),
        "/v1/completions" => (Route::Completions, POST),
        "/v1/embeddings" => (Route::OpenAiEmbeddings, POST),
        "/v1/responses" => (Route::Responses, POST),
        "/v1/audio/transcriptions" => (Route::Transcriptions, POST),
        "/v1/messages" => (Route::Messages, POST),
        "/v1/messages/count_tokens" => (Route::CountTokens, POST),
        _ => (Route::OpenAiModel(argument(path, "/v1/models/")?), GET),
    })
}

/// Returns the one segment that follows `prefix`.
fn argument(path: &str, prefix: &str) -> Option<String> {
    let segment = path.strip_prefix(prefix)?;
    (!segment.is_empty() && !segment.contains('/')).then(|| percent_decoded(segment))
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
    #[case(Method::HEAD, "/api/ps", Err(NoRoute::Method))]
    #[case(Method::HEAD, "/api/blobs/sha256:0", Ok(Route::HasBlob("sha256:0".to_owned())))]
    #[case(Method::GET, "/api/blobs/sha256:0", Err(NoRoute::Method))]
    #[case(Method::DELETE, "/api/user/keys/abc", Ok(Route::Account))]
    #[case(Method::DELETE, "/api/chat", Err(NoRoute::Method))]
    #[case(Method::POST, "/api/generate/api/show", Err(NoRoute::Path))]
    #[case(Method::POST, "/v1/images/generations", Err(NoRoute::Path))]
    #[case(Method::GET, "/v1/models/", Err(NoRoute::Moved("/v1/models".to_owned())))]
    #[case(Method::POST, "/api/chat/", Err(NoRoute::Moved("/api/chat".to_owned())))]
    #[case(Method::GET, "/api/chat/", Err(NoRoute::Path))]
    fn paths_and_methods_find_their_route(
        #[case] method: Method,
        #[case] path: &str,
        #[case] expected: Result<Route, NoRoute>,
    ) {
        assert_eq!(Route::find(&method, path), expected);
    }
}
