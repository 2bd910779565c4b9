"""The `ollama` package of Python."""

import time

import httpx
import ollama

from checks import expect, wait_for

QUESTION = [{"role": "user", "content": "Why is the sky blue?"}]


def ollama_lists_the_models_of_every_machine(fleet):
    names = [model.model for model in _client(fleet).list().models]
    expect(names == ["endless:latest", "steady:latest"], names)


def ollama_chat_is_answered(fleet):
    answer = _client(fleet).chat("steady", QUESTION)
    expect(answer.done and answer.done_reason, answer)
    expect(answer.message.content.strip(), answer)
    expect(answer.eval_count == 20, answer)


def ollama_chat_streams_each_piece_as_it_is_made(fleet):
    whole = _client(fleet).chat("steady", QUESTION).message.content
    times, text = [], ""
    for part in _client(fleet).chat("steady", QUESTION, stream=True):
        times.append(time.monotonic())
        text += part.message.content
    expect(part.done, part)
    expect(text == whole, text, whole)
    expect(len(times) >= 20, len(times))
    # The runtime takes a second for it: collected on the way, it would all arrive at once.
    expect(times[-1] - times[0] > 0.5, times[-1] - times[0])


def ollama_generate_is_answered_whole_and_streamed(fleet):
    whole = _client(fleet).generate("steady", "Why is the sky blue?")
    parts = list(_client(fleet).generate("steady", "Why is the sky blue?", stream=True))
    expect(whole.response.strip(), whole)
    expect("".join(part.response for part in parts) == whole.response, parts)
    expect(parts[-1].done and len(parts) >= 20, len(parts))


def ollama_is_told_that_a_model_is_unknown(fleet):
    for stream in (False, True):
        try:
            list(_client(fleet).chat("missing", QUESTION, stream=stream))
        except ollama.ResponseError as error:
            expect(error.status_code == 404, error.status_code)
            expect(error.error == "model 'missing' not found", error.error)
        else:
            raise AssertionError("an unknown model was answered for")


def ollama_client_that_leaves_frees_the_runtime(fleet):
    stream = _client(fleet).chat("endless", QUESTION, stream=True)
    for _ in range(3):
        next(stream)
    expect(fleet.agent("endless")["in_flight"] == 1, fleet.agent("endless"))
    # The runtime has one slot, so it serves nobody else until it sees that the client has left.
    try:
        _ask_runtime(fleet, seconds=1)
    except httpx.ReadTimeout:
        pass
    else:
        raise AssertionError("the runtime was not busy")

    stream.close()

    _ask_runtime(fleet, seconds=20)
    wait_for("no request in flight", lambda: fleet.agent("endless")["in_flight"] == 0)


def _client(fleet):
    return ollama.Client(host=fleet.url, timeout=30)


def _ask_runtime(fleet, seconds):
    runtime = ollama.Client(host=fleet.runtimes["endless"], timeout=seconds)
    runtime.generate("endless", "Are you free?", options={"num_predict": 1})


CHECKS = [
    ollama_lists_the_models_of_every_machine,
    ollama_chat_is_answered,
    ollama_chat_streams_each_piece_as_it_is_made,
    ollama_generate_is_answered_whole_and_streamed,
    ollama_is_told_that_a_model_is_unknown,
    ollama_client_that_leaves_frees_the_runtime,
]
