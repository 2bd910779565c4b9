"""The `openai` package of Python."""

import json

import openai

from checks import expect
from target import FUNCTION, LIMIT, PICTURE, QUESTION, TOOL_SCHEMA


def openai_lists_every_model(target):
    names = sorted(model.id for model in _client(target).models.list())
    expect(names == [f"{name}:latest" for name in ("embedder", "seer", "talker", "thinker")], names)
    expect(_client(target).models.retrieve("talker:latest").id == "talker:latest", names)
    return names


def openai_chat_completion_is_answered(target):
    answer = _client(target).chat.completions.create(
        model="talker", messages=QUESTION, max_tokens=LIMIT)
    expect(answer.choices[0].message.content.strip(), answer)
    expect(answer.choices[0].finish_reason, answer)
    expect(answer.usage.completion_tokens == LIMIT, answer.usage)
    return answer.model_dump()


def openai_stream_brings_piece_by_piece_and_the_usage_when_asked(target):
    pieces, usage = [], None
    for chunk in _client(target).chat.completions.create(
            model="talker", messages=QUESTION, max_tokens=LIMIT, stream=True,
            stream_options={"include_usage": True}):
        if chunk.choices and chunk.choices[0].delta.content:
            pieces.append(chunk.choices[0].delta.content)
        usage = chunk.usage or usage
    expect("".join(pieces).strip() and len(pieces) == LIMIT, pieces)
    expect(usage and usage.completion_tokens == LIMIT, usage)
    return pieces


def openai_stream_has_no_usage_unless_asked(target):
    stream = _client(target).chat.completions.create(
        model="talker", messages=QUESTION, stream=True, max_tokens=3)
    usages = [chunk.usage for chunk in stream]
    expect(usages and not any(usages), usages)


def openai_completion_is_answered(target):
    answer = _client(target).completions.create(
        model="talker", prompt="Why is the sky blue?", max_tokens=LIMIT)
    parts = list(_client(target).completions.create(
        model="talker", prompt="Why is the sky blue?", max_tokens=LIMIT, stream=True))
    text = "".join(part.choices[0].text for part in parts)
    expect(text.strip() and text == answer.choices[0].text, answer, text)
    return answer.model_dump()


def openai_calls_a_tool_and_is_answered_with_its_result(target):
    create = _client(target).chat.completions.create
    choice = create(model="talker", messages=QUESTION, tools=[FUNCTION]).choices[0]
    [call] = choice.message.tool_calls
    expect(choice.finish_reason == "tool_calls" and call.function.name == "weather", choice)
    expect(json.loads(call.function.arguments)["city"], call)
    streamed = [delta for chunk in create(
        model="talker", messages=QUESTION, tools=[FUNCTION], stream=True)
        for delta in chunk.choices[0].delta.tool_calls or []]
    expect([delta.id for delta in streamed] == [call.id], streamed)
    result = {"role": "tool", "tool_call_id": call.id, "content": "22 degrees"}
    said = create(model="talker", messages=[*QUESTION, choice.message, result], tools=[FUNCTION],
                  max_tokens=LIMIT).choices[0]
    expect(said.message.content and not said.message.tool_calls, said)
    return call.model_dump(), said.message.content


def openai_looks_at_a_picture(target):
    def answer(*parts):
        content = [{"type": "text", "text": "What is this?"}, *parts]
        return _client(target).chat.completions.create(
            model="seer", messages=[{"role": "user", "content": content}],
            max_tokens=LIMIT).choices[0].message.content
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}
    expect(answer(picture) != answer(), "the picture was not seen")
    return answer(picture)


def openai_embeds(target):
    def embed(**extra):
        data = _client(target).embeddings.create(model="embedder", input=["one", "two"], **extra).data
        return [entry.embedding for entry in data]
    floats = embed(encoding_format="float")
    expect(len(floats) == 2 and floats[0] != floats[1], floats)
    close = all(abs(a - b) < 1e-6 for a, b in zip(floats[0], embed()[0]))
    expect(close, floats[0], embed()[0])
    return floats


def openai_response_is_answered_whole_and_streamed(target):
    create = _client(target).responses.create
    whole = create(model="talker", input="Why is the sky blue?", max_output_tokens=LIMIT)
    expect(whole.output_text and whole.usage.output_tokens == LIMIT, whole)
    events = list(create(model="talker", input="Why is the sky blue?", max_output_tokens=LIMIT,
                         stream=True))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    expect(text == whole.output_text, text, whole)
    expect(events[0].type == "response.created", events[0])
    expect(events[-1].response.output_text == text, events[-1])
    return whole.model_dump()


def openai_response_calls_a_tool(target):
    tool = {"type": "function", "name": "weather", "parameters": TOOL_SCHEMA, "strict": False}
    create = _client(target).responses.create
    question = {"role": "user", "content": "Will it rain?"}
    [call] = create(model="talker", input=[question], tools=[tool]).output
    expect(call.type == "function_call" and json.loads(call.arguments)["city"], call)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "22 degrees"}
    said = create(model="talker", input=[question, call.model_dump(), result], tools=[tool],
                  max_output_tokens=LIMIT)
    expect(said.output_text, said)
    return call.model_dump(), said.output_text


def openai_transcribes(target):
    spoken = _client(target).audio.transcriptions.create(
        model="talker", file=("sound.wav", b"RIFF sound"))
    expect(spoken.text.strip(), spoken)
    return spoken.text


def openai_is_told_that_a_model_is_unknown(target):
    client = _client(target)
    calls = [
        lambda: client.chat.completions.create(model="missing", messages=QUESTION),
        lambda: client.chat.completions.create(model="missing", messages=QUESTION, stream=True),
        lambda: client.embeddings.create(model="missing", input="hi"),
        lambda: client.responses.create(model="missing", input="hi"),
        lambda: client.models.retrieve("missing"),
    ]
    for call in calls:
        try:
            call()
        except openai.NotFoundError as error:
            expect(error.body["message"] == "model 'missing' not found", error.body)
            expect(error.body["type"] == "not_found_error", error.body)
        else:
            raise AssertionError("an unknown model was answered for")


def openai_is_told_that_a_chat_is_empty(target):
    try:
        _client(target).chat.completions.create(model="talker", messages=[])
    except openai.BadRequestError as error:
        expect(error.body["message"] == "[] is too short - 'messages'", error.body)
    else:
        raise AssertionError("an empty chat was answered")


def openai_client_that_leaves_a_chat_frees_the_runtime(target):
    target.expect_abort_of(lambda: _begun(_client(target).chat.completions.create(
        model="talker", messages=QUESTION, stream=True)))


def openai_client_that_leaves_a_response_frees_the_runtime(target):
    target.expect_abort_of(lambda: _begun(_client(target).responses.create(
        model="talker", input="Why is the sky blue?", stream=True)))


def _begun(stream):
    for _ in range(5):
        next(stream)
    return stream.close


def _client(target):
    return openai.OpenAI(base_url=f"{target.url}/v1", api_key="unused", timeout=30, max_retries=0)


CHECKS = [
    openai_lists_every_model,
    openai_chat_completion_is_answered,
    openai_stream_brings_piece_by_piece_and_the_usage_when_asked,
    openai_stream_has_no_usage_unless_asked,
    openai_completion_is_answered,
    openai_calls_a_tool_and_is_answered_with_its_result,
    openai_looks_at_a_picture,
    openai_embeds,
    openai_response_is_answered_whole_and_streamed,
    openai_response_calls_a_tool,
    openai_transcribes,
    openai_is_told_that_a_model_is_unknown,
    openai_is_told_that_a_chat_is_empty,
    openai_client_that_leaves_a_chat_frees_the_runtime,
    openai_client_that_leaves_a_response_frees_the_runtime,
]
