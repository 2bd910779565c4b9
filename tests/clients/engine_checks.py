"""A real engine behind an agent: what it says reaches clients through the coordinator unchanged."""

import http.client
import json
import re
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import anthropic
import openai

from checks import Run, exit_on_sigterm, expect, wait_for
from fleet import Fleet

MODEL = "tiny"
QUESTION = [{"role": "user", "content": "Why is the sky blue?"}]
SAME_WORDS = {"model": MODEL, "temperature": 0, "seed": 1}
CHAT = {**SAME_WORDS, "messages": QUESTION, "max_tokens": 16}
COMPLETION = {**SAME_WORDS, "prompt": "Why is the sky blue?", "max_tokens": 16}
RESPONSE = {**SAME_WORDS, "input": "Why is the sky blue?", "max_output_tokens": 16}
EMBEDDING = {"model": MODEL, "input": ["one", "two"]}
# What an engine says differently each time it is asked the same.
VOLATILE = [
    rb'"(?:id|item_id|response_id)":"[^"]*"',
    rb'"(?:created|created_at|completed_at|cached_tokens|cache_read_input_tokens)":[\d.]+',
    rb'"timings":\{[^{}]*\}',
]


def engine_joins_as_a_runtime_with_the_openai_api(fleet):
    agent = fleet.agent("engine")
    expect(agent["runtime"]["kind"] == "openai", agent["runtime"])
    expect([model["name"] for model in agent["models"]] == [MODEL], agent["models"])


def engine_is_listed_by_the_coordinator(fleet):
    models = [model.id for model in _openai(fleet).models.list()]
    expect(models == [MODEL], models)


def engine_answers_chats_as_directly(fleet):
    _expect_the_same(fleet, "/v1/chat/completions", CHAT)
    _expect_the_same(fleet, "/v1/chat/completions", {**CHAT, "stream": True})
    _expect_the_same(fleet, "/v1/chat/completions", {
        **CHAT, "stream": True, "stream_options": {"include_usage": True}})


def engine_answers_completions_as_directly(fleet):
    _expect_the_same(fleet, "/v1/completions", COMPLETION)
    _expect_the_same(fleet, "/v1/completions", {**COMPLETION, "stream": True})


def engine_answers_embeddings_as_directly(fleet):
    _expect_the_same(fleet, "/v1/embeddings", EMBEDDING)
    _expect_the_same(fleet, "/v1/embeddings", {**EMBEDDING, "encoding_format": "base64"})


def engine_answers_messages_as_directly(fleet):
    _expect_the_same(fleet, "/v1/messages", CHAT)
    _expect_the_same(fleet, "/v1/messages", {**CHAT, "stream": True})
    _expect_the_same(fleet, "/v1/messages/count_tokens", CHAT)


def engine_answers_responses_as_directly(fleet):
    _expect_the_same(fleet, "/v1/responses", RESPONSE)
    _expect_the_same(fleet, "/v1/responses", {**RESPONSE, "stream": True})


def engine_refuses_as_directly(fleet):
    for path, body in [("/v1/chat/completions", {**CHAT, "messages": "not a list"}),
                       ("/v1/completions", {**COMPLETION, "prompt": None}),
                       ("/v1/embeddings", {"model": MODEL}),
                       ("/v1/messages", {"model": MODEL, "max_tokens": 1})]:
        expect(_expect_the_same(fleet, path, body) >= 400, path)


def engine_is_not_asked_for_a_model_that_nobody_has(fleet):
    try:
        _openai(fleet).chat.completions.create(model="missing", messages=QUESTION)
    except openai.NotFoundError as error:
        expect(error.body["type"] == "not_found_error", error.body)
    else:
        raise AssertionError("an unknown model was answered for")


def engine_streams_to_openai_clients(fleet):
    chunks = list(_openai(fleet).chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=64, temperature=0, stream=True,
        stream_options={"include_usage": True}))
    words = [chunk.choices[0].delta.content for chunk in chunks
             if chunk.choices and chunk.choices[0].delta.content]
    expect(len(words) == 64, words)
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    expect(usages and usages[-1].completion_tokens == 64, usages)


def engine_streams_to_anthropic_clients(fleet):
    client = anthropic.Anthropic(base_url=fleet.url, api_key="unused", timeout=30, max_retries=0)
    with client.messages.stream(model=MODEL, messages=QUESTION, max_tokens=64) as stream:
        text = "".join(stream.text_stream)
        usage = stream.get_final_message().usage
    expect(text.strip() and usage.output_tokens == 64, text, usage)


def engine_stops_when_its_client_leaves(fleet):
    stream = _openai(fleet).chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, stream=True)
    for _ in range(3):
        next(stream)
    expect(_busy_slots(fleet) == 1, _busy_slots(fleet))
    wait_for("the request in flight", lambda: fleet.agent("engine")["in_flight"] == 1)

    stream.close()

    wait_for("the engine to stop", lambda: _busy_slots(fleet) == 0)
    wait_for("no request in flight", lambda: fleet.agent("engine")["in_flight"] == 0)


def every_process_stops_cleanly_when_asked(fleet):
    codes = fleet.stop()
    expect(set(codes.values()) == {0}, codes)


def _expect_the_same(fleet, path, body):
    """Expects the same status, type and bytes in both places; returns the status."""
    engine = fleet.runtimes["engine"]
    # The first answer fills the engine's cache of prompts, which the others then find alike.
    _, direct, through = (_ask(url, path, body) for url in (engine, engine, fleet.url))
    expect(direct == through, path, body, direct, through)
    status, _, text = direct
    expect(text, path, direct)
    return status


def _ask(url, path, body):
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=30)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    for volatile in VOLATILE:
        text = re.sub(volatile, b"(volatile)", text)
    return answer.status, answer.headers.get_content_type(), text


def _busy_slots(fleet):
    with urllib.request.urlopen(f"{fleet.runtimes['engine']}/slots", timeout=10) as answer:
        return sum(slot["is_processing"] for slot in json.load(answer))


def _openai(fleet):
    return openai.OpenAI(base_url=f"{fleet.url}/v1", api_key="unused", timeout=30, max_retries=0)


CHECKS = [
    engine_joins_as_a_runtime_with_the_openai_api,
    engine_is_listed_by_the_coordinator,
    engine_answers_chats_as_directly,
    engine_answers_completions_as_directly,
    engine_answers_embeddings_as_directly,
    engine_answers_messages_as_directly,
    engine_answers_responses_as_directly,
    engine_refuses_as_directly,
    engine_is_not_asked_for_a_model_that_nobody_has,
    engine_streams_to_openai_clients,
    engine_streams_to_anthropic_clients,
    engine_stops_when_its_client_leaves,
    every_process_stops_cleanly_when_asked,
]


def main():
    exit_on_sigterm()
    run = Run()
    with Fleet() as fleet:
        script = Path(__file__).with_name("serve_model.py")
        fleet.add_engine("engine", script, fleet.home, MODEL)
        fleet.wait_until_routable()
        for check in CHECKS:
            run.check(check, fleet)
        return run.finish(fleet)


if __name__ == "__main__":
    sys.exit(main())
