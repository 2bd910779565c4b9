"""The `openai` package of Python."""

import time

import openai

from checks import expect

QUESTION = [{"role": "user", "content": "Why is the sky blue?"}]


def openai_lists_the_models_of_every_machine(fleet):
    models = list(_client(fleet).models.list())
    expect([model.id for model in models] == ["endless:latest", "steady:latest"], models)


def openai_chat_completion_is_answered(fleet):
    answer = _client(fleet).chat.completions.create(model="steady", messages=QUESTION)
    expect(answer.choices[0].message.content.strip(), answer)
    expect(answer.choices[0].finish_reason, answer)
    expect(answer.usage.completion_tokens == 20, answer.usage)


def openai_stream_brings_each_piece_as_it_is_made_and_the_usage_when_asked(fleet):
    times, text, usage = [], "", None
    for chunk in _client(fleet).chat.completions.create(
            model="steady", messages=QUESTION, stream=True,
            stream_options={"include_usage": True}):
        if chunk.choices and chunk.choices[0].delta.content:
            times.append(time.monotonic())
            text += chunk.choices[0].delta.content
        usage = chunk.usage or usage
    expect(text.strip() and len(times) >= 10, len(times), text)
    expect(times[-1] - times[0] > 0.5, times[-1] - times[0])
    expect(usage and usage.completion_tokens == 20, usage)


def openai_stream_has_no_usage_unless_asked(fleet):
    stream = _client(fleet).chat.completions.create(
        model="steady", messages=QUESTION, stream=True, max_tokens=3)
    usages = [chunk.usage for chunk in stream]
    expect(usages and not any(usages), usages)


def openai_is_told_that_a_model_is_unknown(fleet):
    for stream in (False, True):
        try:
            _client(fleet).chat.completions.create(
                model="missing", messages=QUESTION, stream=stream)
        except openai.NotFoundError as error:
            expect(error.body["message"] == "model 'missing' not found", error.body)
            expect(error.body["type"] == "not_found_error", error.body)
        else:
            raise AssertionError("an unknown model was answered for")


def _client(fleet):
    return openai.OpenAI(base_url=f"{fleet.url}/v1", api_key="unused", timeout=30, max_retries=0)


CHECKS = [
    openai_lists_the_models_of_every_machine,
    openai_chat_completion_is_answered,
    openai_stream_brings_each_piece_as_it_is_made_and_the_usage_when_asked,
    openai_stream_has_no_usage_unless_asked,
    openai_is_told_that_a_model_is_unknown,
]
