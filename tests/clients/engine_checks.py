"""A real engine behind an agent: what it says reaches a real client through the coordinator."""

import sys
from pathlib import Path

import openai

from checks import exit_on_sigterm, expect, run_checks
from fleet import Fleet

MODEL = "tiny"
QUESTION = [{"role": "user", "content": "Why is the sky blue?"}]


def engine_joins_as_a_runtime_with_the_openai_api(fleet):
    agent = fleet.agent("engine")
    expect(agent["runtime"]["kind"] == "openai", agent["runtime"])
    expect([model["name"] for model in agent["models"]] == [MODEL], agent["models"])


def engine_is_listed_by_the_coordinator(fleet):
    models = [model.id for model in _client(fleet.url).models.list()]
    expect(models == [MODEL], models)


def engine_answers_through_the_coordinator_as_it_answers_directly(fleet):
    through, direct = (
        _client(url).chat.completions.create(
            model=MODEL, messages=QUESTION, max_tokens=16, temperature=0)
        for url in (fleet.url, fleet.runtimes["engine"]))
    expect(through.choices[0].message.content.strip(), through)
    expect(through.choices[0].message.content == direct.choices[0].message.content,
           through, direct)
    expect(through.usage.completion_tokens == 16, through.usage)


def engine_streams_through_the_coordinator(fleet):
    chunks = list(_client(fleet.url).chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=64, temperature=0, stream=True,
        stream_options={"include_usage": True}))
    words = [chunk.choices[0].delta.content for chunk in chunks
             if chunk.choices and chunk.choices[0].delta.content]
    expect(len(words) == 64, words)
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    expect(usages and usages[-1].completion_tokens == 64, usages)


def engine_rejects_a_request_in_its_own_words(fleet):
    errors = []
    for url in fleet.url, fleet.runtimes["engine"]:
        try:
            _client(url).chat.completions.create(model=MODEL, messages="not a list")
        except openai.APIStatusError as error:
            errors.append((error.status_code, error.body["message"]))
    expect(len(errors) == 2 and errors[0] == errors[1], errors)


def every_process_stops_cleanly_when_asked(fleet):
    codes = fleet.stop()
    expect(set(codes.values()) == {0}, codes)


def _client(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="unused", timeout=30, max_retries=0)


def main():
    exit_on_sigterm()
    with Fleet() as fleet:
        script = Path(__file__).with_name("serve_model.py")
        fleet.add_engine("engine", script, fleet.home, MODEL)
        fleet.wait_until_routable()
        return run_checks(fleet, [
            engine_joins_as_a_runtime_with_the_openai_api,
            engine_is_listed_by_the_coordinator,
            engine_answers_through_the_coordinator_as_it_answers_directly,
            engine_streams_through_the_coordinator,
            engine_rejects_a_request_in_its_own_words,
            every_process_stops_cleanly_when_asked,
        ])


if __name__ == "__main__":
    sys.exit(main())
