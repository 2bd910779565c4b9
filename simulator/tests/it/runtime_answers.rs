//! What a scripted runtime answers when nothing is wrong.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use http::{Method, StatusCode};
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::{RuntimeScript, chat_prompt, simulated_model};
use ollama_simulator::wait::{PATIENCE, wait_for};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{get, post, send};

const MODEL: &str = "simulated-small";

fn chat(extra: Value) -> Value {
    let mut body = json!({ "model": MODEL, "messages": [{ "role": "user", "content": "hi" }] });
    for (key, value) in extra.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    body
}

fn expected_chat(runtime: &ScriptedRuntime, limit: u32) -> String {
    let prompt = chat_prompt([("user", "hi")]);
    runtime
        .script()
        .answer(MODEL, &prompt, NonZeroU32::new(limit))
}

#[tokio::test]
async fn native_stream_is_ndjson_and_adds_up_to_the_whole_answer() {
    let runtime = ScriptedRuntime::start(RuntimeScript::default())
        .await
        .unwrap();
    let body = chat(json!({ "options": { "num_predict": 5 } }));

    let mut answer = post(runtime.addr(), "/api/chat", body).await;

    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.content_type(), "application/x-ndjson");
    assert_eq!(answer.headers["x-simulated-runtime"], "simulated");
    let lines = answer.lines().await;
    let text: String = lines
        .iter()
        .map(|l| l["message"]["content"].as_str().unwrap())
        .collect();
    assert_eq!(text, expected_chat(&runtime, 5));
    let (last, tokens) = lines.split_last().unwrap();
    assert_eq!(tokens.len(), 5);
    assert!(tokens.iter().all(|line| line["done"] == false));
    assert_eq!(
        (&last["done"], &last["done_reason"]),
        (&json!(true), &json!("length"))
    );
    assert_eq!(last["eval_count"], 5);
    assert!(last["total_duration"].as_u64() >= last["eval_duration"].as_u64());
}

#[tokio::test]
async fn openai_stream_ends_with_usage_and_done() {
    let runtime = ScriptedRuntime::start(RuntimeScript::default())
        .await
        .unwrap();
    let body = chat(json!({
        "stream": true, "max_tokens": 4, "stream_options": { "include_usage": true },
    }));

    let mut answer = post(runtime.addr(), "/v1/chat/completions", body).await;

    assert_eq!(answer.content_type(), "text/event-stream");
    let text = answer.text().await;
    let events: Vec<_> = text.split_terminator("\n\n").collect();
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(*done, "data: [DONE]");
    let chunks: Vec<Value> = chunks
        .iter()
        .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
        .collect();
    let content = |chunk: &Value| {
        chunk["choices"][0]["delta"]["content"]
            .as_str()
            .map(str::to_owned)
    };
    assert_eq!(
        chunks.iter().filter_map(content).collect::<String>(),
        expected_chat(&runtime, 4)
    );
    let (usage, chunks) = chunks.split_last().unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["completion_tokens"], 4);
    assert_eq!(
        chunks.last().unwrap()["choices"][0]["finish_reason"],
        "length"
    );
}

#[rstest]
#[case("/api/chat", "/message/content")]
#[case("/v1/chat/completions", "/choices/0/message/content")]
#[tokio::test]
async fn answer_in_one_piece_has_the_same_text(#[case] path: &str, #[case] pointer: &str) {
    let runtime = ScriptedRuntime::start(RuntimeScript::default())
        .await
        .unwrap();
    let limit = json!({ "stream": false, "max_tokens": 6, "options": { "num_predict": 6 } });

    let answer = post(runtime.addr(), path, chat(limit)).await.json().await;

    assert_eq!(
        answer.pointer(pointer).unwrap(),
        &json!(expected_chat(&runtime, 6))
    );
}

#[tokio::test]
async fn runtimes_with_different_seeds_answer_differently() {
    let one = ScriptedRuntime::start(RuntimeScript::default())
        .await
        .unwrap();
    let other = RuntimeScript {
        seed: 1,
        ..RuntimeScript::default()
    };
    let other = ScriptedRuntime::start(other).await.unwrap();

    assert_ne!(expected_chat(&one, 8), expected_chat(&other, 8));
}

#[tokio::test]
async fn chunks_arrive_one_by_one_while_the_answer_is_still_being_made() {
    let script = RuntimeScript {
        tokens_per_second: NonZeroU32::new(100),
        answer_tokens: NonZeroU32::new(100_000),
        ..RuntimeScript::default()
    };
    let runtime = ScriptedRuntime::start(script).await.unwrap();

    let mut answer = post(runtime.addr(), "/api/chat", chat(json!({}))).await;
    for _ in 0..5 {
        let frame = answer.next_frame().await.unwrap().unwrap();

        let ends = frame.split(|byte| *byte == b'\n').count();
        assert_eq!((ends, runtime.in_flight()), (2, 1), "{frame:?}");
    }
}

#[tokio::test]
async fn client_that_hangs_up_is_counted_and_its_slot_is_free_again() {
    let script = RuntimeScript {
        slots: NonZeroU32::MIN,
        tokens_per_second: NonZeroU32::new(1),
        answer_tokens: NonZeroU32::new(1_000),
        ..RuntimeScript::default()
    };
    let runtime = ScriptedRuntime::start(script).await.unwrap();
    let mut answer = post(runtime.addr(), "/api/chat", chat(json!({}))).await;
    answer.next_frame().await.unwrap();

    drop(answer);

    let seen = async || (runtime.cancelled(), runtime.in_flight());
    wait_for("the abort", PATIENCE, seen, |seen| *seen == (1, 0)).await;
    let mut next = post(runtime.addr(), "/api/chat", chat(json!({}))).await;
    assert!(next.next_frame().await.unwrap().is_some());
}

#[tokio::test]
async fn request_beyond_the_queue_is_told_that_the_server_is_busy() {
    let script = RuntimeScript {
        slots: NonZeroU32::MIN,
        max_queue: 1,
        tokens_per_second: NonZeroU32::new(1),
        answer_tokens: NonZeroU32::new(1_000),
        ..RuntimeScript::default()
    };
    let runtime = ScriptedRuntime::start(script).await.unwrap();
    let serving = post(runtime.addr(), "/api/chat", chat(json!({}))).await;
    let queued = post(runtime.addr(), "/api/chat", chat(json!({})));
    let refused = async {
        wait_for(
            "the queue",
            PATIENCE,
            async || runtime.queued(),
            |queued| *queued == 1,
        )
        .await;
        let mut refused = post(runtime.addr(), "/api/chat", chat(json!({}))).await;
        let error = refused.json().await;
        drop(serving);
        (refused.status, error)
    };

    let (queued, (status, error)) = tokio::join!(queued, refused);

    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let text = "server busy, please try again.  maximum pending requests exceeded";
    assert_eq!(error, json!({ "error": text }));
    assert_eq!(queued.status, StatusCode::OK);
}

#[tokio::test]
async fn cold_model_is_loaded_once_for_all_who_ask_and_shown_in_ps() {
    let script = RuntimeScript {
        cold_load: Duration::from_millis(60),
        ..RuntimeScript::default()
    };
    let runtime = ScriptedRuntime::start(script).await.unwrap();
    let ask = || async {
        let body = chat(json!({ "stream": false }));
        post(runtime.addr(), "/api/chat", body).await.json().await
    };
    let ps = get(runtime.addr(), "/api/ps").await.json().await;
    assert_eq!(ps, json!({ "models": [] }));

    let (one, other) = tokio::join!(ask(), ask());
    let warm = ask().await;

    assert_eq!(runtime.loads(), 1);
    assert!(one["load_duration"].as_u64().unwrap() > 0);
    assert!(other["load_duration"].as_u64().unwrap() > 0);
    assert_eq!(warm["load_duration"], 0);
    let ps = get(runtime.addr(), "/api/ps").await.json().await;
    assert_eq!(ps["models"][0]["name"], "simulated-small:latest");
    assert!(ps["models"][0]["expires_at"].is_string());
}

#[tokio::test]
async fn loading_one_more_model_than_fits_evicts_the_idle_one() {
    let script = RuntimeScript {
        models: vec![
            simulated_model("a:latest", 1),
            simulated_model("b:latest", 1),
        ],
        max_loaded: NonZeroUsize::MIN,
        ..RuntimeScript::default()
    };
    let runtime = ScriptedRuntime::start(script).await.unwrap();

    for model in ["a", "b", "a"] {
        let body = json!({ "model": model, "prompt": "hi", "stream": false });
        post(runtime.addr(), "/api/generate", body)
            .await
            .text()
            .await;
    }

    assert_eq!(runtime.loads(), 3);
    assert_eq!(runtime.loaded_models(), ["a:latest"]);
}

#[tokio::test]
async fn empty_prompt_loads_and_keep_alive_zero_unloads() {
    let runtime = ScriptedRuntime::start(RuntimeScript::default())
        .await
        .unwrap();
    let load = json!({ "model": MODEL, "keep_alive": -1 });
    let unload = json!({ "name": MODEL, "keep_alive": 0 });

    let loaded = post(runtime.addr(), "/api/generate", load)
        .await
        .json()
        .await;
    assert_eq!(loaded["done_reason"], "load");
    assert_eq!(runtime.loaded_models(), ["simulated-small:latest"]);

    let unloaded = post(runtime.addr(), "/api/generate", unload)
        .await
        .json()
        .await;
    assert_eq!(unloaded["done_reason"], "unload");
    assert!(runtime.loaded_models().is_empty());
}

#[rstest]
#[case("/api/chat", json!({ "error": "model 'nope' not found" }))]
#[case("/v1/chat/completions", json!({ "error": {
    "message": "model 'nope' not found", "type": "not_found_error", "param": null, "code": null,
} }))]
#[tokio::test]
async fn unknown_model_is_404_in_the_shape_of_the_protocol(
    #[case] path: &str,
    #[case] expected: Value,
) {
    let runtime = ScriptedRuntime::start(RuntimeScript::default())
        .await
        .unwrap();

    let mut answer = post(runtime.addr(), path, chat(json!({ "model": "nope" }))).await;

    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(answer.content_type().starts_with("application/json"));
    assert_eq!(answer.json().await, expected);
}

#[rstest]
#[case(Method::POST, "/api/generate/api/show", 404, "404 page not found")]
#[case(Method::DELETE, "/api/chat", 405, "405 method not allowed")]
#[case(Method::GET, "/", 200, "Ollama is running")]
#[case(Method::HEAD, "/", 200, "")]
#[tokio::test]
async fn plain_routes_answer_in_plain_text(
    #[case] method: Method,
    #[case] path: &str,
    #[case] status: u16,
    #[case] text: &str,
) {
    let runtime = ScriptedRuntime::start(RuntimeScript::default())
        .await
        .unwrap();

    let mut answer = send(runtime.addr(), method, path, "").await.unwrap();

    assert_eq!(answer.status.as_u16(), status);
    assert!(answer.content_type().starts_with("text/plain"));
    assert_eq!(answer.text().await, text);
}

#[tokio::test]
async fn requests_are_recorded_as_they_arrived() {
    let runtime = ScriptedRuntime::start(RuntimeScript::default())
        .await
        .unwrap();

    post(
        runtime.addr(),
        "/api/show?x=1",
        json!({ "model": MODEL, "unknown": [1] }),
    )
    .await;

    let [seen] = &runtime.recent_requests()[..] else {
        panic!("one request was sent: {:?}", runtime.recent_requests());
    };
    assert_eq!(seen.uri, "/api/show?x=1");
    assert_eq!(
        seen.body,
        json!({ "model": MODEL, "unknown": [1] }).to_string()
    );
    assert_eq!(seen.headers["host"], runtime.addr().to_string());
    assert_eq!(
        (runtime.requests(), runtime.recent_requests_to("/api/show")),
        (1, 1)
    );
}
