//! The runtime that all proxies are measured in front of: it answers at once, or with chunks at a
//! fixed distance that carry when they were sent. One thread and no HTTP library, so that it is not
//! what limits a proxy.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use httparse::Status;
use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, sleep_until};

/// The one model it has.
pub(crate) const MODEL: &str = "bench";
/// What stands before the time at which a chunk was sent.
pub(crate) const STAMP: &str = "sent ";

const LARGEST_REQUEST: usize = 1024 * 1024;
const MOST_HEADERS: usize = 64;

/// How an API answers a chat request.
#[derive(Debug)]
struct Api {
    /// The whole answer, some 320 bytes.
    reply: &'static str,
    /// The media type of a stream.
    kind: &'static str,
    /// What surrounds the text of a chunk.
    before: &'static str,
    after: &'static str,
    /// The end of a stream.
    last: &'static str,
}

const OLLAMA: Api = Api {
    reply: r#"{"model":"bench","created_at":"2026-01-01T00:00:00.000000000Z","message":{"role":"assistant","content":"Sunlight is scattered by the air, and blue the most."},"done":true,"done_reason":"stop","total_duration":412345678,"load_duration":1234567,"prompt_eval_count":26,"prompt_eval_duration":98765432,"eval_count":12,"eval_duration":301234567}"#,
    kind: "application/x-ndjson",
    before: r#"{"model":"bench","created_at":"2026-01-01T00:00:00.000000000Z","message":{"role":"assistant","content":""#,
    after: "\"},\"done\":false}\n",
    last: "{\"model\":\"bench\",\"created_at\":\"2026-01-01T00:00:00.000000000Z\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\"}\n",
};
const OPENAI: Api = Api {
    reply: r#"{"id":"chatcmpl-bench","object":"chat.completion","created":1767225600,"model":"bench","choices":[{"index":0,"message":{"role":"assistant","content":"Sunlight is scattered by the air, and blue the most."},"finish_reason":"stop"}],"usage":{"prompt_tokens":26,"completion_tokens":12,"total_tokens":38}}"#,
    kind: "text/event-stream",
    before: r#"data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1767225600,"model":"bench","choices":[{"index":0,"delta":{"content":""#,
    after: "\"},\"finish_reason\":null}]}\n\n",
    last: "data: [DONE]\n\n",
};
const TAGS: &str = r#"{"models":[{"name":"bench","model":"bench","modified_at":"2026-01-01T00:00:00Z","size":4920753328,"digest":"46e0c10c039e019119339687c3c1757cc81b9da49709a3b3924863ba87ca666e","details":{"format":"gguf","family":"llama","families":["llama"],"parameter_size":"8.0B","quantization_level":"Q4_K_M"}}]}"#;
const RUNNING: &str = r#"{"models":[{"name":"bench","model":"bench","size":6654289920,"size_vram":6654289920,"expires_at":"2100-01-01T00:00:00Z"}]}"#;
const VERSION: &str = r#"{"version":"0.12.6"}"#;
const MODELS: &str =
    r#"{"object":"list","data":[{"id":"bench","object":"model","created":1,"owned_by":"bench"}]}"#;
/// What the routers of other engines ask for before they send anything.
const ABOUT: &str = r#"{"status":"ok","model_path":"bench","served_model_name":"bench","is_generation":true,"tp_size":1,"dp_size":1}"#;

/// The fields of a chat request that decide about the answer.
#[derive(Debug, Deserialize, PartialEq, Eq)]
struct Chat {
    #[serde(default)]
    stream: bool,
    /// How many chunks a stream has. One router renames the field.
    #[serde(default, rename = "max_tokens", alias = "max_completion_tokens")]
    chunks: u64,
    /// How many milliseconds lie between two of them.
    #[serde(default, rename = "seed")]
    pace_ms: u64,
}

/// Returns the body of a chat request. Only fields that every proxy here lets through decide
/// about the answer.
pub(crate) fn chat(streamed: Option<(u64, Duration)>) -> String {
    let (stream, chunks, pace) = match streamed {
        Some((chunks, pace)) => (true, chunks, pace.as_millis()),
        None => (false, 1, 0),
    };
    format!(
        r#"{{"model":"{MODEL}","stream":{stream},"max_tokens":{chunks},"seed":{pace},"messages":[{{"role":"system","content":"You are a helpful assistant."}},{{"role":"user","content":"Why is the sky blue? Answer in one sentence."}}]}}"#
    )
}

/// Returns the time of a clock that all processes of this machine share, in nanoseconds.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let part = |number| u64::try_from(number).unwrap_or_default();
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}

/// Serves on every address, for ever.
pub(crate) async fn serve(addrs: &[SocketAddr]) -> anyhow::Result<()> {
    let mut listeners = JoinSet::new();
    for addr in addrs {
        let listener = TcpListener::bind(addr).await;
        let listener = listener.context("cannot listen for the upstream")?;
        listeners.spawn(accept(listener));
    }
    while let Some(ended) = listeners.join_next().await {
        ended??;
    }
    Ok(())
}

async fn accept(listener: TcpListener) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        connections.spawn(answer_all(stream));
        while connections.try_join_next().is_some() {}
    }
}

/// Answers until the peer closes the connection or sends what is not understood.
async fn answer_all(mut stream: TcpStream) -> io::Result<()> {
    let mut received = Vec::with_capacity(4096);
    loop {
        let request = loop {
            if let Some(end) = upload_end(&received)? {
                swallow(&mut stream, end - received.len()).await?;
                received.clear();
            }
            if let Some(request) = Request::parse(&received)? {
                break request;
            }
            if received.len() > LARGEST_REQUEST || stream.read_buf(&mut received).await? == 0 {
                return Ok(());
            }
        };
        answer(&mut stream, &request).await?;
        let length = request.length;
        received.drain(..length);
    }
}

/// Takes the rest of an upload and keeps nothing of it.
async fn swallow(stream: &mut TcpStream, mut rest: usize) -> io::Result<()> {
    let mut taken = vec![0; LARGEST_REQUEST];
    while rest > 0 {
        let most = rest.min(taken.len());
        match stream.read(&mut taken[..most]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => rest -= length,
        }
    }
    stream.write_all(&whole("201 Created", "")).await
}

async fn answer(stream: &mut TcpStream, request: &Request<'_>) -> io::Result<()> {
    let api = match request.path {
        "/api/chat" => &OLLAMA,
        "/v1/chat/completions" => &OPENAI,
        path => {
            let (status, body) = about(path);
            return stream.write_all(&whole(status, body)).await;
        }
    };
    let Ok(chat) = serde_json::from_slice::<Chat>(request.body) else {
        return stream.write_all(&whole("400 Bad Request", "{}")).await;
    };
    if chat.stream {
        return chunks(stream, &chat, api).await;
    }
    stream.write_all(&whole("200 OK", api.reply)).await
}

/// Returns what is told to those who look whether this is a runtime.
fn about(path: &str) -> (&'static str, &'static str) {
    let body = match path {
        "/api/version" => VERSION,
        "/api/tags" => TAGS,
        "/api/ps" => RUNNING,
        "/v1/models" => MODELS,
        "/health" | "/get_model_info" | "/model_info" | "/get_server_info" | "/server_info" => {
            ABOUT
        }
        _ => return ("404 Not Found", "404 page not found"),
    };
    ("200 OK", body)
}

fn whole(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Sends every chunk on its own, at its time or as fast as they are taken.
async fn chunks(stream: &mut TcpStream, chat: &Chat, api: &Api) -> io::Result<()> {
    let kind = api.kind;
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let started = Instant::now();
    for number in 0..chat.chunks {
        if chat.pace_ms == 0 {
            yield_now().await;
        } else if number > 0 {
            // Not for the first one: a timer that is due at once takes up to a millisecond.
            let after = Duration::from_millis(chat.pace_ms.saturating_mul(number));
            sleep_until(started + after).await;
        }
        let (before, sent, after) = (api.before, now(), api.after);
        let chunk = framed(&format!("{before}{STAMP}{sent}{after}"));
        stream.write_all(chunk.as_bytes()).await?;
    }
    let last = framed(api.last) + "0\r\n\r\n";
    stream.write_all(last.as_bytes()).await
}

fn framed(line: &str) -> String {
    format!("{:x}\r\n{line}\r\n", line.len())
}

/// Returns where the upload ends whose head these bytes begin with, if they do.
fn upload_end(bytes: &[u8]) -> io::Result<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let Status::Complete(start) = head.parse(bytes).map_err(io::Error::other)? else {
        return Ok(None);
    };
    if !head
        .path
        .is_some_and(|path| path.starts_with("/api/blobs/"))
    {
        return Ok(None);
    }
    Ok(Some(start + length_of(&head)?))
}

fn length_of(head: &httparse::Request<'_, '_>) -> io::Result<usize> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let mut length = 0;
    for header in head.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(header.value).ok();
            length = text
                .and_then(|text| text.parse().ok())
                .ok_or_else(invalid)?;
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(invalid());
        }
    }
    Ok(length)
}

/// A whole request. Its body has a length: none of the proxies sends it in chunks.
#[derive(Debug, PartialEq, Eq)]
struct Request<'a> {
    path: &'a str,
    body: &'a [u8],
    /// How many bytes it took.
    length: usize,
}

impl<'a> Request<'a> {
    /// Reads the first request; `None` while it is not whole.
    fn parse(bytes: &'a [u8]) -> io::Result<Option<Self>> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut head = httparse::Request::new(&mut headers);
        let Status::Complete(start) = head.parse(bytes).map_err(io::Error::other)? else {
            return Ok(None);
        };
        let length = length_of(&head)?;
        let Some(body) = bytes.get(start..).and_then(|rest| rest.get(..length)) else {
            return Ok(None);
        };
        Ok(Some(Self {
            path: head.path.ok_or_else(invalid)?,
            body,
            length: start + length,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_is_read_when_it_is_whole() {
        let bytes = b"POST /api/chat HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}GET";

        let whole = Request {
            path: "/api/chat",
            body: b"{}",
            length: 48,
        };
        assert_eq!(Request::parse(bytes).unwrap(), Some(whole));
        assert_eq!(Request::parse(&bytes[..47]).unwrap(), None);
        assert_eq!(Request::parse(&bytes[..20]).unwrap(), None);
    }

    #[test]
    fn body_in_chunks_is_refused() {
        let bytes = b"POST /api/chat HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";

        assert!(Request::parse(bytes).is_err());
    }

    #[test]
    fn chat_asks_for_what_the_upstream_understands() {
        let small: Chat = serde_json::from_str(&chat(None)).unwrap();
        let streamed = chat(Some((200, Duration::from_millis(5))));
        let streamed: Chat = serde_json::from_str(&streamed).unwrap();

        assert!(!small.stream);
        let (stream, chunks, pace_ms) = (true, 200, 5);
        assert_eq!(
            streamed,
            Chat {
                stream,
                chunks,
                pace_ms
            }
        );
    }

    #[tokio::test]
    async fn stream_has_its_chunks_and_an_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(accept(listener));
        let mut connection = crate::client::Connection::open(addr).await.unwrap();
        let body = chat(Some((3, Duration::ZERO)));

        let request = crate::client::request("POST", "/api/chat", None, &body);
        let answer = connection.send(&request).await.unwrap();

        let text = String::from_utf8_lossy(answer.body);
        assert_eq!(text.matches(STAMP).count(), 3);
        assert!(text.contains(r#""done":true"#));
    }
}
