"""The `anthropic` package of Python."""

import anthropic

from checks import expect
from target import LIMIT, PICTURE, QUESTION, TOOL_SCHEMA

TOOL = {"name": "weather", "description": "Tells the weather.", "input_schema": TOOL_SCHEMA}


def anthropic_message_is_answered(target):
    answer = _create(target)
    expect(answer.content[0].text.strip() and answer.stop_reason == "max_tokens", answer)
    expect(answer.usage.output_tokens == LIMIT, answer.usage)
    return answer.model_dump()


def anthropic_stream_brings_piece_by_piece(target):
    with _client(target).messages.stream(
            model="talker", max_tokens=LIMIT, messages=QUESTION) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    expect(len(pieces) == LIMIT and final.content[0].text == "".join(pieces), final, pieces)
    expect(final.content[0].text == _create(target).content[0].text, final)
    return final.model_dump()


def anthropic_system_text_is_heard(target):
    expect(_create(target, system="Be brief.").content != _create(target).content, "it was not")


def anthropic_calls_a_tool_and_is_answered_with_its_result(target):
    called = _create(target, tools=[TOOL])
    [call] = called.content
    expect(called.stop_reason == "tool_use" and call.name == "weather", called)
    expect(call.input["city"], call)
    with _client(target).messages.stream(
            model="talker", max_tokens=LIMIT, messages=QUESTION, tools=[TOOL]) as stream:
        [streamed] = stream.get_final_message().content
    expect(streamed.input == call.input, streamed)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "22 degrees"}
    said = _create(target, tools=[TOOL], messages=[
        *QUESTION, {"role": "assistant", "content": called.content},
        {"role": "user", "content": [result]}])
    expect(said.content[0].text, said)
    return called.model_dump(), said.model_dump()


def anthropic_looks_at_a_picture(target):
    def answer(*parts):
        content = [{"type": "text", "text": "What is this?"}, *parts]
        return _create(target, model="seer", messages=[{"role": "user", "content": content}]
                       ).content[0].text
    picture = {"type": "image", "source": {
        "type": "base64", "media_type": "image/png", "data": PICTURE}}
    expect(answer(picture) != answer(), "the picture was not seen")
    return answer(picture)


def anthropic_is_told_what_a_model_thinks(target):
    thinking = {"type": "enabled", "budget_tokens": 1024}
    thought, said = _create(target, model="thinker", thinking=thinking).content
    expect(thought.type == "thinking" and thought.thinking and said.text, thought, said)
    with _client(target).messages.stream(model="thinker", max_tokens=LIMIT, messages=QUESTION,
                                         thinking=thinking) as stream:
        streamed = stream.get_final_message().content
    expect(streamed[0].thinking == thought.thinking, streamed)
    return thought.model_dump(), said.model_dump()


def anthropic_counts_tokens(target):
    counted = _client(target).messages.count_tokens(model="talker", messages=QUESTION)
    expect(counted.input_tokens == _create(target).usage.input_tokens, counted)
    return counted.input_tokens


def anthropic_is_told_that_a_model_is_unknown(target):
    try:
        _create(target, model="missing")
    except anthropic.NotFoundError as error:
        expect(error.body["type"] == "error", error.body)
        expect(error.body["error"] == {"type": "not_found_error",
                                       "message": "model 'missing' not found"}, error.body)
    else:
        raise AssertionError("an unknown model was answered for")


def anthropic_is_told_that_a_limit_is_missing(target):
    try:
        _create(target, max_tokens=0)
    except anthropic.BadRequestError as error:
        expect(error.body["error"]["message"] == "max_tokens is required and must be positive",
               error.body)
    else:
        raise AssertionError("a request without a limit was answered")


def anthropic_client_that_leaves_frees_the_runtime(target):
    def begin():
        stream = _create(target, max_tokens=1_000_000, stream=True)
        for _ in range(5):
            next(stream)
        return stream.close
    target.expect_abort_of(begin)


def _create(target, **extra):
    request = {"model": "talker", "max_tokens": LIMIT, "messages": QUESTION, **extra}
    return _client(target).messages.create(**request)


def _client(target):
    return anthropic.Anthropic(base_url=target.url, api_key="unused", timeout=30, max_retries=0)


CHECKS = [
    anthropic_message_is_answered,
    anthropic_stream_brings_piece_by_piece,
    anthropic_system_text_is_heard,
    anthropic_calls_a_tool_and_is_answered_with_its_result,
    anthropic_looks_at_a_picture,
    anthropic_is_told_what_a_model_thinks,
    anthropic_counts_tokens,
    anthropic_is_told_that_a_model_is_unknown,
    anthropic_is_told_that_a_limit_is_missing,
    anthropic_client_that_leaves_frees_the_runtime,
]
