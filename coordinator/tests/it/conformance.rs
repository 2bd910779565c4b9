//! The same call, direct to a runtime and through the coordinator, gets the same answer.
//!
//! Two runtimes with one script get the same calls in the same order; before one of them stands a
//! coordinator. What must differ is said in the table, with the reason.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{
    ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderMap, LOCATION,
};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use ollama_agent::config::Link;
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::{RuntimeScript, embedding_model, simulated_model};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::agent::FakeAgent;
use crate::support::api::Api;
use crate::support::coordinator::TestCoordinator;
use crate::support::machine::AgentMachine;

const MODEL: &str = "simulated-small";
const JSON: &str = "application/json";
const DIRECT: Link = Link::Direct { advertised: None };
/// `{"model":"simulated-small","input":"hi","max_output_tokens":4}`, packed by zstd.
const PACKED: &[u8] = include_bytes!("../../../simulator/tests/it/fixtures/responses_request.zst");
/// The digest of the one byte `x`.
const BLOB: &str =
    "/api/blobs/sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";

/// How the two answers compare.
#[derive(Debug, Clone, Copy)]
enum Expected {
    /// Byte for byte.
    Same,
    /// The same JSON but for these fields, and so of another length.
    SameBut(&'static [&'static str]),
}

use Expected::{Same, SameBut};

/// The coordinator answers from what it knows: fields come in Ollama's order, the runtime of the
/// tests sorts them.
const FROM_THE_REGISTRY: Expected = SameBut(&[]);
/// As before; besides, the runtime of the tests is its models' owner, which Ollama says is `library`.
const OPENAI_FROM_THE_REGISTRY: Expected = SameBut(&["owned_by"]);
/// The coordinator answers for a model that no machine has, and numbers its errors itself.
const OWN_ERROR: Expected = SameBut(&["request_id"]);

struct Call {
    method: Method,
    path: String,
    headers: Vec<(http::HeaderName, String)>,
    body: Bytes,
    expected: Expected,
}

fn call(method: Method, path: &str, body: impl Into<Bytes>) -> Call {
    Call {
        method,
        path: path.to_owned(),
        headers: vec![(CONTENT_TYPE, JSON.to_owned())],
        body: body.into(),
        expected: Same,
    }
}

fn get(path: &str) -> Call {
    call(Method::GET, path, "").without_type()
}

fn head(path: &str) -> Call {
    call(Method::HEAD, path, "").without_type()
}

fn post(path: &str, body: Value) -> Call {
    call(Method::POST, path, body.to_string())
}

impl Call {
    fn without_type(mut self) -> Self {
        self.headers.clear();
        self
    }

    fn with(mut self, name: http::HeaderName, value: &str) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value.to_owned()));
        self
    }

    fn expect(mut self, expected: Expected) -> Self {
        self.expected = expected;
        self
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(&self.method).uri(&self.path);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(self.body.clone()));
        request.expect("it is well-formed")
    }
}

/// Everything that only reads or asks, in every form that clients use.
fn questions() -> Vec<Call> {
    let mut calls = lists();
    calls.extend(native());
    calls.extend(openai());
    calls.extend(anthropic());
    calls.extend(bodies_that_are_none());
    calls.extend(paths_that_are_none());
    calls.extend(account());
    calls
}

fn lists() -> Vec<Call> {
    vec![
        get("/"),
        head("/"),
        get("/api/version").expect(FROM_THE_REGISTRY),
        head("/api/version"),
        get("/api/status"),
        get("/api/tags").expect(FROM_THE_REGISTRY),
        head("/api/tags"),
        get("/api/ps").expect(FROM_THE_REGISTRY),
        get("/v1/models").expect(OPENAI_FROM_THE_REGISTRY),
        get("/v1/models/simulated-small").expect(OPENAI_FROM_THE_REGISTRY),
        get("/v1/models/Simulated-Small%3alatest").expect(OPENAI_FROM_THE_REGISTRY),
        get("/v1/models/team%2Fnamed%3A7b").expect(OPENAI_FROM_THE_REGISTRY),
        get("/v1/models/missing"),
        get("/v1/models/a%20%22b%22"),
    ]
}

#[expect(clippy::too_many_lines, reason = "it is one table")]
fn native() -> Vec<Call> {
    let say = json!([{ "role": "user", "content": "hi" }]);
    let tool = json!({ "type": "function", "function": {
        "name": "weather", "description": "Tells the weather.", "parameters": {
            "type": "object", "properties": { "city": { "type": "string" } },
        },
    }});
    let image = "A".repeat(2 << 20);
    let pictured = json!([{ "role": "user", "content": "hi", "images": [image] }]);
    let mut calls = vec![
        post("/api/show", json!({ "model": MODEL })),
        post(
            "/api/show",
            json!({ "name": "SIMULATED-small:latest", "verbose": true }),
        ),
        post("/api/show", json!({ "model": "missing" })),
        post("/api/chat", json!({ "model": MODEL, "messages": say })),
        post(
            "/api/chat",
            json!({ "model": MODEL, "messages": say, "stream": false }),
        ),
        post(
            "/api/chat",
            json!({ "model": MODEL, "messages": say, "tools": [tool] }),
        ),
        post(
            "/api/chat",
            json!({ "model": MODEL, "messages": say, "tools": [], "x": [{}] }),
        ),
        post(
            "/api/chat",
            json!({ "model": MODEL, "messages": say, "think": true }),
        ),
        post("/api/chat", json!({ "model": MODEL, "messages": [] })),
        post(
            "/api/chat",
            json!({ "model": MODEL, "messages": pictured, "stream": false }),
        ),
        post(
            "/api/chat?a=%20b&a=c",
            json!({ "model": MODEL, "messages": say }),
        ),
        post("/api/generate", json!({ "model": MODEL, "prompt": "hi" })),
        post(
            "/api/generate",
            json!({ "model": MODEL, "prompt": "hi", "stream": false }),
        ),
        post(
            "/api/generate",
            json!({ "model": MODEL, "options": { "num_predict": 3 }, "prompt": "hi" }),
        ),
        post("/api/generate", json!({ "model": MODEL })),
        post("/api/generate", json!({ "model": MODEL, "keep_alive": 0 })),
        post(
            "/api/generate",
            json!({ "model": MODEL, "keep_alive": "nonsense" }),
        ),
        post(
            "/api/generate",
            json!({ "model": "team/named:7b", "prompt": "hi" }),
        ),
        post(
            "/api/chat",
            json!({ "model": "simulated-embed", "messages": say }),
        ),
        post(
            "/api/embed",
            json!({ "model": "simulated-embed", "input": ["a", "b"] }),
        ),
        post(
            "/api/embed",
            json!({ "model": "simulated-embed", "input": "a", "dimensions": 4 }),
        ),
        post(
            "/api/embed",
            json!({ "model": "simulated-embed", "input": 7 }),
        ),
        post(
            "/api/embeddings",
            json!({ "model": "simulated-embed", "prompt": "a" }),
        ),
        post("/api/chat", json!({ "model": MODEL, "messages": say })).without_type(),
        post("/api/chat", json!({ "model": MODEL, "messages": say }))
            .with(CONTENT_TYPE, "text/plain"),
    ];
    for path in [
        "/api/chat",
        "/api/generate",
        "/api/embed",
        "/api/embeddings",
    ] {
        calls.push(post(
            path,
            json!({ "model": "missing", "prompt": "a", "input": "a" }),
        ));
    }
    calls
}

fn openai() -> Vec<Call> {
    let say = json!([{ "role": "user", "content": "hi" }]);
    let chat = |stream: bool| json!({ "model": MODEL, "messages": say, "stream": stream });
    let usage = json!({
        "model": MODEL, "messages": say, "stream": true,
        "stream_options": { "include_usage": true }, "max_tokens": 3,
    });
    let form = |text: String| {
        let form = call(Method::POST, "/v1/audio/transcriptions", text);
        form.with(CONTENT_TYPE, "multipart/form-data; boundary=b")
    };
    let whole = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nsimulated-small\r\n\
        --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\r\n\
        --b--\r\n";
    let mut calls = vec![
        post("/v1/chat/completions", chat(false)),
        post("/v1/chat/completions", chat(true)),
        post("/v1/chat/completions", usage),
        post("/v1/completions", json!({ "model": MODEL, "prompt": "hi" })),
        post(
            "/v1/completions",
            json!({ "model": MODEL, "prompt": "hi", "stream": true }),
        ),
        post(
            "/v1/embeddings",
            json!({ "model": "simulated-embed", "input": "hi" }),
        ),
        post(
            "/v1/embeddings",
            json!({ "model": "simulated-embed", "input": ["a"], "encoding_format": "base64" }),
        ),
        post("/v1/embeddings", json!({ "model": "simulated-embed" })),
        post("/v1/responses", json!({ "model": MODEL, "input": "hi" })),
        post(
            "/v1/responses",
            json!({ "model": MODEL, "input": "hi", "stream": true }),
        ),
        call(Method::POST, "/v1/responses", PACKED).with(CONTENT_ENCODING, "zstd"),
        call(Method::POST, "/v1/responses", &PACKED[..9]).with(CONTENT_ENCODING, "zstd"),
        form(whole.to_owned()),
        form(whole.replace("simulated-small", "missing")),
        form(whole.replace("name=\"file\"", "name=\"other\"")),
    ];
    for path in [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
    ] {
        let body = json!({ "model": "missing", "messages": say, "input": "a", "prompt": "a" });
        calls.push(post(path, body));
    }
    calls
}

fn anthropic() -> Vec<Call> {
    let ask = |model: &str, stream: bool| {
        let say = json!([{ "role": "user", "content": "hi" }]);
        json!({ "model": model, "max_tokens": 5, "messages": say, "stream": stream })
    };
    let version = || http::HeaderName::from_static("anthropic-version");
    vec![
        post("/v1/messages", ask(MODEL, false)).with(version(), "2023-06-01"),
        post("/v1/messages", ask(MODEL, true)).with(version(), "2023-06-01"),
        post("/v1/messages", ask("missing", false)).expect(OWN_ERROR),
        post(
            "/v1/messages",
            json!({ "model": MODEL, "messages": [{ "role": "user", "content": "hi" }] }),
        ),
        post("/v1/messages/count_tokens", ask(MODEL, false)),
    ]
}

const INFERENCE: [&str; 10] = [
    "/api/chat",
    "/api/generate",
    "/api/embed",
    "/api/embeddings",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1/audio/transcriptions",
];

fn bodies_that_are_none() -> Vec<Call> {
    let bodies = [
        "",
        "{}",
        "not json",
        "[]",
        r#"{"model":7}"#,
        r#"{"model":""}"#,
        "{\"model\":",
    ];
    let paths = INFERENCE.into_iter().chain(["/api/show"]);
    let call_with = |(path, body)| call(Method::POST, path, body);
    paths
        .flat_map(|path| bodies.map(|body| (path, body)))
        .map(call_with)
        .collect()
}

fn paths_that_are_none() -> Vec<Call> {
    vec![
        get("/nothing"),
        get("/api/nothing"),
        get("/api/"),
        get("/v1"),
        post("/api/nothing", json!({ "model": MODEL })),
        post("/api/nothing", json!({ "model": "missing" })),
        post("/v1/nothing", json!({})),
        call(Method::POST, "/v1/nothing", ""),
        post("/api/generate/api/show", json!({ "name": MODEL })),
        call(Method::PUT, "/api/nothing", "{}"),
        get("/api/chat"),
        head("/api/chat"),
        head("/api/ps"),
        head("/v1/models"),
        call(Method::PUT, "/api/chat", "{}"),
        call(Method::DELETE, "/v1/messages", "{}"),
        call(Method::OPTIONS, "/api/chat", ""),
        post("/api/tags", json!({})),
        get("/api/delete"),
        get("/api/blobs/sha256:00"),
        post("/api/chat/", json!({ "model": MODEL })),
        get("/api/chat/"),
        get("/v1/models/"),
        get("/api/tags/?a=b"),
    ]
}

fn account() -> Vec<Call> {
    vec![
        call(Method::POST, "/api/me", ""),
        post("/api/experimental/web_search", json!({ "query": "x" })),
        post("/api/experimental/web_fetch", json!({ "url": "x" })),
        call(Method::POST, "/api/experimental/web_search", "not json"),
        get("/api/experimental/model-recommendations"),
        call(Method::POST, "/api/signout", ""),
        call(Method::DELETE, "/api/user/keys/abc%3D", ""),
    ]
}

/// What changes a machine, in an order in which each step finds what it needs.
fn changes() -> Vec<Call> {
    let delete = |body: Value| call(Method::DELETE, "/api/delete", body.to_string());
    vec![
        post("/api/pull", json!({ "model": "pulled" })),
        post("/api/pull", json!({ "name": "pulled:7b", "stream": false })),
        post("/api/pull", json!({ "model": "missing-one" })),
        post("/api/pull", json!({ "model": "broken-one" })),
        post(
            "/api/pull",
            json!({ "model": "broken-one", "stream": false }),
        ),
        post("/api/pull", json!({ "model": "not valid" })),
        call(Method::POST, "/api/pull", ""),
        call(Method::POST, "/api/pull", "not json"),
        post("/api/push", json!({ "model": MODEL, "insecure": true })),
        post("/api/push", json!({ "model": MODEL, "stream": false })),
        post("/api/push", json!({})),
        post("/api/push", json!({ "model": "missing" })),
        head(BLOB),
        call(Method::POST, BLOB, "y").without_type(),
        call(Method::POST, BLOB, "x").without_type(),
        call(Method::POST, BLOB, "x").without_type(),
        head(BLOB),
        head("/api/blobs/nonsense"),
        post("/api/create", json!({ "model": "made", "from": MODEL })),
        post(
            "/api/create",
            json!({ "model": "made-2", "from": MODEL, "stream": false }),
        ),
        post("/api/create", json!({ "model": "made-3" })),
        post(
            "/api/create",
            json!({ "model": "made-3", "from": "missing" }),
        ),
        post(
            "/api/copy",
            json!({ "source": MODEL, "destination": "copied" }),
        ),
        post(
            "/api/copy",
            json!({ "source": "missing", "destination": "copied" }),
        ),
        post("/api/copy", json!({})),
        call(Method::POST, "/api/copy", ""),
        delete(json!({ "model": "copied" })),
        delete(json!({ "name": "pulled" })),
        delete(json!({ "name": "pulled" })),
        delete(json!({})),
        call(Method::DELETE, "/api/delete", ""),
        call(Method::DELETE, "/api/delete", "not json"),
    ]
}

/// What is seen of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: StatusCode,
    headers: Vec<(String, String)>,
    body: String,
    broke_off: bool,
}

async fn seen(api: Api, call: &Call) -> Seen {
    let mut answer = api.send(call.request()).await;
    let headers = headers_that_matter(&answer.headers);
    let (body, error) = answer.read_all().await;
    Seen {
        status: answer.status,
        headers,
        body,
        broke_off: error.is_some(),
    }
}

/// Returns the headers but for those of one connection, the time, and what each side says of itself.
/// `Allow` is the coordinator's own: the runtime of the tests does not send it, Ollama does.
fn headers_that_matter(headers: &HeaderMap) -> Vec<(String, String)> {
    let own = |name: &str| {
        name.starts_with("x-coordinator-")
            || ["server-timing", "x-simulated-runtime"].contains(&name)
    };
    let mut headers: Vec<_> = headers
        .iter()
        .filter(|(name, _)| ![CONNECTION, DATE, ALLOW].contains(name) && !own(name.as_str()))
        .map(|(name, value)| {
            (
                name.to_string(),
                value.to_str().expect("it is text").to_owned(),
            )
        })
        .collect();
    headers.sort_unstable();
    headers
}

fn are_alike(direct: &Seen, through: &Seen, expected: Expected) -> bool {
    match expected {
        Same => direct == through,
        SameBut(fields) => {
            let but_length = |seen: &Seen| -> Vec<_> {
                let headers = seen.headers.iter();
                let kept = headers.filter(|(name, _)| *name != CONTENT_LENGTH.as_str());
                kept.cloned().collect()
            };
            direct.status == through.status
                && but_length(direct) == but_length(through)
                && without(&direct.body, fields) == without(&through.body, fields)
        }
    }
}

/// Reads JSON and leaves fields out of it, wherever they are.
fn without(body: &str, fields: &[&str]) -> Value {
    fn prune(value: &mut Value, fields: &[&str]) {
        match value {
            Value::Object(object) => {
                object.retain(|name, _| !fields.contains(&name.as_str()));
                object.values_mut().for_each(|value| prune(value, fields));
            }
            Value::Array(list) => list.iter_mut().for_each(|value| prune(value, fields)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut value = serde_json::from_str(body).expect("it is JSON");
    prune(&mut value, fields);
    value
}

/// Two runtimes of one script, and a coordinator before one of them.
struct Pair {
    direct: ScriptedRuntime,
    machine: AgentMachine,
    coordinator: TestCoordinator,
}

impl Pair {
    async fn start(link: Link) -> Self {
        let script = RuntimeScript {
            models: vec![
                embedding_model("simulated-embed:latest"),
                simulated_model("simulated-small:latest", 1 << 30),
                simulated_model("team/named:7b", 1 << 30),
            ],
            fixed_clock: true,
            ..RuntimeScript::default()
        };
        let coordinator = TestCoordinator::new().await;
        let direct = ScriptedRuntime::start(script.clone()).await;
        let mut machine = AgentMachine::with(coordinator.api, "gpu", script).await;
        machine.config.link = link;
        machine.start();
        machine.wait_until_routable().await;
        Self {
            direct: direct.expect("a port is free"),
            machine,
            coordinator,
        }
    }

    /// Makes every call both ways, and fails with all that differ.
    async fn compare(&self, calls: Vec<Call>) {
        let direct = Api::new(self.direct.addr());
        let mut differences = String::new();
        for call in &calls {
            let direct = seen(direct, call).await;
            let through = seen(self.coordinator.api, call).await;
            if !are_alike(&direct, &through, call.expected) {
                let start = &call.body[..call.body.len().min(99)];
                let Call { method, path, .. } = call;
                writeln!(
                    differences,
                    "{method} {path} {:?}\n  direct:  {direct:?}\n  through: {through:?}",
                    String::from_utf8_lossy(start),
                )
                .expect("a string takes all");
            }
        }
        assert!(
            differences.is_empty(),
            "of {} calls:\n{differences}",
            calls.len()
        );
    }
}

#[rstest]
#[case::direct(DIRECT)]
#[case::tunnel(Link::Tunnel)]
#[tokio::test]
async fn question_is_answered_as_by_the_runtime_itself(#[case] link: Link) {
    let pair = Pair::start(link).await;

    pair.compare(questions()).await;
}

#[rstest]
#[case::direct(DIRECT)]
#[case::tunnel(Link::Tunnel)]
#[tokio::test]
async fn change_is_answered_as_by_the_runtime_itself(#[case] link: Link) {
    let pair = Pair::start(link).await;

    pair.compare(changes()).await;

    let names = |runtime: &ScriptedRuntime| -> Vec<String> {
        let script = runtime.script();
        script
            .models
            .iter()
            .map(|model| model.name.clone())
            .collect()
    };
    assert_eq!(names(&pair.machine.runtime), names(&pair.direct));
}

#[tokio::test]
async fn slash_too_many_leads_to_where_the_runtime_leads() {
    let pair = Pair::start(DIRECT).await;

    let moved = pair.coordinator.api.get("/v1/models/?a=b").await;

    assert_eq!(moved.status, StatusCode::MOVED_PERMANENTLY);
    assert_eq!(moved.header(LOCATION), "/v1/models?a=b");
}

#[tokio::test]
async fn request_that_cannot_be_read_is_sent_to_one_machine_once() {
    let coordinator = TestCoordinator::new().await;
    let mut runtimes = Vec::new();
    for _ in 0..3 {
        let runtime = ScriptedRuntime::start(RuntimeScript::default()).await;
        let runtime = runtime.expect("a port is free");
        FakeAgent::in_front_of(&runtime, "gpu")
            .join(coordinator.api)
            .await;
        runtimes.push(runtime);
    }

    let nonsense = call(Method::POST, "/api/chat", "not json");
    let answer = coordinator.api.send(nonsense.request()).await;

    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let asked = runtimes.iter().map(|r| r.recent_requests_to("/api/chat"));
    assert_eq!(asked.sum::<usize>(), 1);
    assert_eq!(
        coordinator
            .api
            .agents()
            .await
            .iter()
            .map(|a| a.in_flight)
            .sum::<u32>(),
        0
    );
}
