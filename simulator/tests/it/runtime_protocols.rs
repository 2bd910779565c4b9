//! What a scripted runtime answers in each protocol beyond plain text: tools, pictures, thoughts,
//! responses, Anthropic messages, transcriptions, and the routes of an account it does not have.

use std::num::NonZeroU32;

use http::{Method, StatusCode};
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::{FailureMode, RuntimeScript, chat_prompt, simulated_model};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{Answer, get, post, send, send_with};

const MODEL: &str = "simulated-small";
/// `{"model":"simulated-small","input":"hi","max_output_tokens":4}`, compressed.
const ZSTD_REQUEST: &[u8] = include_bytes!("fixtures/responses_request.zst");

async fn runtime() -> ScriptedRuntime {
    let mut script = RuntimeScript {
        fixed_clock: true,
        ..RuntimeScript::default()
    };
    let mut thinker = simulated_model("thinker:latest", 1);
    thinker.capabilities.push("thinking".to_owned());
    script.models.push(thinker);
    ScriptedRuntime::start(script)
        .await
        .expect("a loopback port is free")
}

fn expected(runtime: &ScriptedRuntime, limit: u32) -> String {
    let prompt = chat_prompt([("user", "hi")]);
    runtime
        .script()
        .answer(MODEL, &prompt, NonZeroU32::new(limit))
}

/// Reads server-sent events that are named as their data's `type` says.
async fn named_events(answer: &mut Answer) -> Vec<Value> {
    assert_eq!(answer.content_type(), "text/event-stream");
    let text = answer.text().await;
    let events = text.split_terminator("\n\n").map(|event| {
        let (name, data) = event.split_once('\n').expect("an event has two lines");
        let data = data.strip_prefix("data: ").expect("then comes its data");
        let value: Value = serde_json::from_str(data).expect("the data is JSON");
        assert_eq!(
            name,
            format!("event: {}", value["type"].as_str().unwrap_or_default())
        );
        value
    });
    events.collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    let mut kinds: Vec<_> = events
        .iter()
        .map(|e| e["type"].as_str().unwrap_or_default())
        .collect();
    kinds.dedup();
    kinds
}

fn messages(extra: Value) -> Value {
    let mut body = json!({
        "model": MODEL, "max_tokens": 4, "messages": [{ "role": "user", "content": "hi" }],
    });
    for (key, value) in extra.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    body
}

#[tokio::test]
async fn anthropic_message_streams_the_same_text_as_it_answers_whole() {
    let runtime = runtime().await;
    let path = "/v1/messages";

    let whole = post(runtime.addr(), path, messages(json!({})))
        .await
        .json()
        .await;
    let streaming = messages(json!({ "stream": true }));
    let mut answer = post(runtime.addr(), path, streaming).await;
    let events = named_events(&mut answer).await;

    assert_eq!(whole["content"][0]["text"], expected(&runtime, 4));
    assert_eq!(
        (&whole["type"], &whole["stop_reason"]),
        (&json!("message"), &json!("max_tokens"))
    );
    assert_eq!(
        whole["usage"],
        json!({ "input_tokens": 2, "output_tokens": 4 })
    );
    assert_eq!(
        kinds(&events),
        [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    let text: String = events
        .iter()
        .filter_map(|e| e["delta"]["text"].as_str())
        .collect();
    assert_eq!(text, expected(&runtime, 4));
    assert_eq!(events[0]["message"]["id"], whole["id"]);
}

#[tokio::test]
async fn response_streams_the_same_text_as_it_answers_whole() {
    let runtime = runtime().await;
    let body = |stream| json!({ "model": MODEL, "input": "hi", "stream": stream });
    let path = "/v1/responses";

    let whole = post(runtime.addr(), path, body(false)).await.json().await;
    let mut answer = post(runtime.addr(), path, body(true)).await;
    let events = named_events(&mut answer).await;

    assert_eq!(
        whole["output"][0]["content"][0]["text"],
        expected(&runtime, 99)
    );
    assert_eq!(
        kinds(&events),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    assert_eq!(events.last().unwrap()["response"], whole);
    let numbers: Vec<_> = events
        .iter()
        .map(|e| e["sequence_number"].as_u64().unwrap())
        .collect();
    assert!(
        numbers
            .iter()
            .enumerate()
            .all(|(i, number)| i as u64 == *number),
        "{numbers:?}"
    );
}

#[rstest]
#[case("zstd", 200)]
#[case("br", 415)]
#[tokio::test]
async fn response_is_made_for_a_compressed_request(#[case] encoding: &str, #[case] status: u16) {
    let runtime = runtime().await;
    let headers = [("content-encoding", encoding)];

    let mut answer = send_with(
        runtime.addr(),
        Method::POST,
        "/v1/responses",
        &headers,
        ZSTD_REQUEST,
    )
    .await
    .unwrap();

    assert_eq!(answer.status.as_u16(), status);
    let answer = answer.json().await;
    if status == 200 {
        assert_eq!(
            answer["output"][0]["content"][0]["text"],
            expected(&runtime, 4)
        );
        assert_eq!(answer["status"], "incomplete");
    }
}

fn weather_tool() -> Value {
    let schema = json!({ "type": "object", "properties": { "city": { "type": "string" } } });
    json!({ "name": "weather", "parameters": schema, "input_schema": schema })
}

#[rstest]
#[case(
    "/api/chat",
    "/message/tool_calls/0/function/name",
    "/done_reason",
    "stop"
)]
#[case(
    "/v1/chat/completions",
    "/choices/0/message/tool_calls/0/function/name",
    "/choices/0/finish_reason",
    "tool_calls"
)]
#[case("/v1/messages", "/content/0/name", "/stop_reason", "tool_use")]
#[tokio::test]
async fn offered_tool_is_called_and_its_result_is_answered_in_words(
    #[case] path: &str,
    #[case] name: &str,
    #[case] reason: &str,
    #[case] expected: &str,
) {
    let runtime = runtime().await;
    let tool = if path == "/v1/messages" {
        weather_tool()
    } else {
        json!({ "type": "function", "function": weather_tool() })
    };
    let mut body = messages(json!({ "tools": [tool], "stream": false }));

    let call = post(runtime.addr(), path, body.clone()).await.json().await;

    assert_eq!(call.pointer(name).unwrap(), "weather", "{call}");
    assert_eq!(call.pointer(reason).unwrap(), expected);
    let result = if path == "/v1/messages" {
        json!({ "role": "user", "content": [
            { "type": "tool_result", "tool_use_id": "1", "content": "22 degrees" },
        ] })
    } else {
        json!({ "role": "tool", "content": "22 degrees" })
    };
    body["messages"].as_array_mut().unwrap().push(result);
    let said = post(runtime.addr(), path, body).await.json().await;
    assert!(said.pointer(name).is_none_or(Value::is_null), "{said}");
    assert_eq!(
        said.pointer("/content/0/type").unwrap_or(&json!("text")),
        "text"
    );
}

#[rstest]
#[case("/api/chat", "tool_calls")]
#[case("/v1/chat/completions", "tool_calls")]
#[case("/v1/messages", "input_json_delta")]
#[tokio::test]
async fn call_of_a_tool_is_streamed(#[case] path: &str, #[case] sign: &str) {
    let runtime = runtime().await;
    let tools = json!([{ "type": "function", "name": "weather", "function": weather_tool(),
        "input_schema": {} }]);

    let body = messages(json!({ "tools": tools, "stream": true }));
    let text = post(runtime.addr(), path, body).await.text().await;

    assert_eq!(
        text.matches(sign).count() > 0,
        text.contains("weather"),
        "{text}"
    );
    assert!(text.contains(sign), "{text}");
}

#[tokio::test]
async fn response_calls_an_offered_tool() {
    let runtime = runtime().await;
    let mut tool = weather_tool();
    tool["type"] = json!("function");
    let mut body = json!({ "model": MODEL, "input": "hi", "tools": [tool], "stream": true });

    let mut answer = post(runtime.addr(), "/v1/responses", body.clone()).await;
    let events = named_events(&mut answer).await;

    let kinds = kinds(&events);
    assert!(
        kinds.contains(&"response.function_call_arguments.done"),
        "{kinds:?}"
    );
    let output = &events.last().unwrap()["response"]["output"][0];
    assert_eq!(
        (&output["type"], &output["name"]),
        (&json!("function_call"), &json!("weather"))
    );
    body["stream"] = json!(false);
    body["input"] = json!([{ "role": "user", "content": "hi" }, output,
        { "type": "function_call_output", "call_id": output["call_id"], "output": "22" }]);
    let said = post(runtime.addr(), "/v1/responses", body)
        .await
        .json()
        .await;
    assert_eq!(said["output"][0]["type"], "message");
}

#[rstest]
#[case("/api/chat", "/message/thinking")]
#[case("/v1/chat/completions", "/choices/0/message/reasoning")]
#[case("/v1/messages", "/content/0/thinking")]
#[case("/v1/responses", "/output/0/summary/0/text")]
#[tokio::test]
async fn model_that_thinks_says_so_before_it_answers(#[case] path: &str, #[case] thoughts: &str) {
    let runtime = runtime().await;
    let body = |think| {
        let kind = if think { "enabled" } else { "disabled" };
        let effort = if think { "high" } else { "none" };
        messages(json!({
            "model": "thinker", "stream": false, "input": "hi", "think": think,
            "reasoning_effort": effort, "reasoning": { "effort": effort },
            "thinking": { "type": kind },
        }))
    };

    let thinking = post(runtime.addr(), path, body(true)).await.json().await;
    let silent = post(runtime.addr(), path, body(false)).await.json().await;

    let thought = thinking.pointer(thoughts).and_then(Value::as_str).unwrap();
    assert_eq!(thought.split(' ').count(), 6, "{thought}");
    assert!(silent.pointer(thoughts).is_none(), "{silent}");
}

#[tokio::test]
async fn thoughts_and_text_are_streamed_one_after_the_other() {
    let runtime = runtime().await;
    let thinker = |extra: Value| {
        let mut body = messages(extra);
        body["model"] = json!("thinker");
        body
    };

    let body = thinker(json!({ "stream": true }));
    let mut answer = post(runtime.addr(), "/v1/messages", body).await;
    let blocks: Vec<_> = named_events(&mut answer)
        .await
        .into_iter()
        .filter(|event| event["type"] == "content_block_start")
        .map(|event| {
            (
                event["index"].clone(),
                event["content_block"]["type"].clone(),
            )
        })
        .collect();
    let lines = post(runtime.addr(), "/api/chat", thinker(json!({})))
        .await
        .lines()
        .await;

    assert_eq!(
        blocks,
        [(json!(0), json!("thinking")), (json!(1), json!("text"))]
    );
    assert!(lines[0]["message"]["thinking"].is_string());
    assert_eq!(lines[0]["message"]["content"], "");
    assert!(lines[7]["message"]["thinking"].is_null());
}

#[tokio::test]
async fn picture_changes_the_answer_and_an_unreadable_one_is_refused() {
    let runtime = runtime().await;
    let look = |image: &str| {
        let message = json!({ "role": "user", "content": "look", "images": [image] });
        json!({ "model": MODEL, "stream": false, "messages": [message] })
    };

    let one = post(runtime.addr(), "/api/chat", look("aGVsbG8h"))
        .await
        .json()
        .await;
    let other = post(runtime.addr(), "/api/chat", look("aGVsbG8/"))
        .await
        .json()
        .await;
    let broken = post(runtime.addr(), "/api/chat", look("not base64")).await;

    assert_ne!(one["message"]["content"], other["message"]["content"]);
    assert_eq!(broken.status, StatusCode::BAD_REQUEST);
}

#[rstest]
#[case(json!({ "max_tokens": 0 }), 400, "invalid_request_error", "max_tokens is required and must be positive")]
#[case(json!({ "messages": [] }), 400, "invalid_request_error", "messages is required")]
#[case(json!({ "model": "nope" }), 404, "not_found_error", "model 'nope' not found")]
#[tokio::test]
async fn anthropic_errors_have_their_own_shape(
    #[case] extra: Value,
    #[case] status: u16,
    #[case] kind: &str,
    #[case] message: &str,
) {
    let runtime = runtime().await;

    let mut answer = post(runtime.addr(), "/v1/messages", messages(extra)).await;

    assert_eq!(answer.status.as_u16(), status);
    let mut error = answer.json().await;
    let request_id = error["request_id"].take();
    assert!(request_id.as_str().unwrap().starts_with("req_"));
    let expected = json!({ "type": kind, "message": message });
    assert_eq!(
        error,
        json!({ "type": "error", "error": expected, "request_id": null })
    );
}

#[tokio::test]
async fn tokens_of_messages_are_counted_as_the_answer_counts_them() {
    let runtime = runtime().await;

    let path = "/v1/messages/count_tokens";
    let counted = post(runtime.addr(), path, messages(json!({})))
        .await
        .json()
        .await;

    assert_eq!(counted, json!({ "input_tokens": 2 }));
}

#[rstest]
#[case("/v1/messages", "message_stop")]
#[case("/v1/responses", "response.completed")]
#[tokio::test]
async fn stream_that_breaks_off_never_says_that_it_is_done(#[case] path: &str, #[case] end: &str) {
    let runtime = runtime().await;
    let body = || messages(json!({ "stream": true, "input": "hi" }));
    runtime
        .set_failure(FailureMode::ErrorLine { after_tokens: 2 })
        .await;

    let text = post(runtime.addr(), path, body()).await.text().await;

    assert_eq!(text.matches(r#""delta":"#).count(), 2, "{text}");
    assert!(!text.contains(end), "{text}");
    let status = StatusCode::SERVICE_UNAVAILABLE;
    runtime.set_failure(FailureMode::Status(status)).await;
    assert_eq!(post(runtime.addr(), path, body()).await.status, status);
}

const FORM: &str = "multipart/form-data; boundary=b";

#[rstest]
#[case(&[("model", MODEL), ("file", "sound")], FORM, 200)]
#[case(&[("model", MODEL), ("file", "sound"), ("response_format", "text")], FORM, 200)]
#[case(&[("model", MODEL)], FORM, 400)]
#[case(&[("file", "sound")], FORM, 400)]
#[case(&[("model", "nope"), ("file", "sound")], FORM, 404)]
#[case(&[], "application/json", 400)]
#[tokio::test]
async fn recording_is_transcribed(
    #[case] fields: &[(&str, &str)],
    #[case] kind: &str,
    #[case] status: u16,
) {
    let runtime = runtime().await;
    let parts = fields.iter().map(|(name, value)| {
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    });
    let body = format!("{}--b--\r\n", parts.collect::<String>());
    let headers = [("content-type", kind)];
    let path = "/v1/audio/transcriptions";

    let mut answer = send_with(
        runtime.addr(),
        Method::POST,
        path,
        &headers,
        body.as_bytes(),
    )
    .await
    .unwrap();

    assert_eq!(answer.status.as_u16(), status);
    let is_text = fields.iter().any(|(_, value)| *value == "text");
    assert_eq!(answer.content_type().starts_with("text/plain"), is_text);
    let text = answer.text().await;
    assert_eq!(
        text.contains(' '),
        status != 400 || text.contains("error"),
        "{text}"
    );
}

#[tokio::test]
async fn routes_of_an_account_ask_to_sign_in() {
    let runtime = runtime().await;
    let calls = [
        (Method::POST, "/api/me"),
        (Method::POST, "/api/signout"),
        (Method::DELETE, "/api/user/keys/abc"),
        (Method::POST, "/api/experimental/web_search"),
        (Method::POST, "/api/experimental/web_fetch"),
    ];

    for (method, path) in calls {
        let mut answer = send(runtime.addr(), method, path, "{}").await.unwrap();

        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
        let answer = answer.json().await;
        assert_eq!(answer["error"], "unauthorized", "{path}");
        assert!(answer["signin_url"].is_string(), "{path}");
    }
    let status = get(runtime.addr(), "/api/status").await.json().await;
    assert_eq!(
        status,
        json!({ "cloud": { "disabled": false, "source": "none" } })
    );
}

#[tokio::test]
async fn cloud_can_be_forbidden() {
    let runtime = runtime().await;
    runtime.change(|script| script.cloud_disabled = true).await;

    let search = post(runtime.addr(), "/api/experimental/web_search", json!({})).await;

    assert_eq!(search.status, StatusCode::FORBIDDEN);
    let status = get(runtime.addr(), "/api/status").await.json().await;
    assert_eq!(status["cloud"]["disabled"], true);
}

#[tokio::test]
async fn models_are_recommended() {
    let runtime = runtime().await;

    let path = "/api/experimental/model-recommendations";
    let answer = get(runtime.addr(), path).await.json().await;

    assert_eq!(
        answer["recommendations"][0]["model"],
        "simulated-small:latest"
    );
}

#[rstest]
#[case(Method::GET, "/api/tags/?x=1", 301, Some("/api/tags?x=1"))]
#[case(Method::POST, "/api/chat/", 307, Some("/api/chat"))]
#[case(Method::POST, "/v1/images/generations", 404, None)]
#[case(Method::GET, "/api/pull", 405, None)]
#[tokio::test]
async fn slash_at_the_end_is_sent_away_and_what_is_unknown_refused(
    #[case] method: Method,
    #[case] path: &str,
    #[case] status: u16,
    #[case] location: Option<&str>,
) {
    let runtime = runtime().await;

    let answer = send(runtime.addr(), method, path, "{}").await.unwrap();

    assert_eq!(answer.status.as_u16(), status);
    let seen = answer
        .headers
        .get("location")
        .map(|to| to.to_str().unwrap());
    assert_eq!(seen, location);
}

#[rstest]
#[case("/api/chat")]
#[case("/api/generate")]
#[case("/api/embed")]
#[case("/v1/chat/completions")]
#[case("/v1/completions")]
#[case("/v1/embeddings")]
#[case("/v1/responses")]
#[case("/v1/messages")]
#[tokio::test]
async fn equal_requests_get_equal_bytes_while_the_clock_stands_still(#[case] path: &str) {
    let runtime = runtime().await;
    for stream in [false, true] {
        let body = || messages(json!({ "stream": stream, "input": "hi", "prompt": "hi" }));

        let first = post(runtime.addr(), path, body()).await.text().await;
        let second = post(runtime.addr(), path, body()).await.text().await;

        assert_eq!(first, second);
    }
}

#[tokio::test]
async fn record_is_told_to_other_processes_without_counting_itself() {
    let runtime = runtime().await;
    post(runtime.addr(), "/api/show?x=1", json!({ "model": MODEL })).await;

    let record = get(runtime.addr(), "/simulated/record").await.json().await;

    assert_eq!(
        (&record["requests"], &record["in_flight"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(record["recent"][0]["uri"], "/api/show?x=1");
    assert_eq!(runtime.requests(), 1);
}
