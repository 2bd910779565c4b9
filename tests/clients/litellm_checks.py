"""The `litellm` package, by its two providers for Ollama."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm  # noqa: E402

from checks import expect  # noqa: E402
from target import FUNCTION, LIMIT, PICTURE, QUESTION  # noqa: E402

litellm.telemetry = False
litellm.suppress_debug_info = True


def litellm_chat_is_answered(target):
    answers = [_complete(target, f"{provider}/talker") for provider in ("ollama_chat", "ollama")]
    texts = [answer.choices[0].message.content for answer in answers]
    expect(all(text.strip() for text in texts), answers)
    expect(answers[0].usage.completion_tokens == LIMIT, answers[0])
    return texts


def litellm_chat_is_streamed(target):
    texts = []
    for provider in "ollama_chat", "ollama":
        parts = list(_complete(target, f"{provider}/talker", stream=True))
        texts.append("".join(part.choices[0].delta.content or "" for part in parts))
        expect(len(parts) >= 10, parts)
    expect(texts[0] == _complete(target, "ollama_chat/talker").choices[0].message.content, texts)
    return texts


def litellm_calls_a_tool(target):
    choice = _complete(target, "ollama_chat/talker", tools=[FUNCTION]).choices[0]
    [call] = choice.message.tool_calls
    expect(call.function.name == "weather" and "city" in call.function.arguments, call)
    return call.function.model_dump()


def litellm_looks_at_a_picture(target):
    def answer(*parts):
        content = [{"type": "text", "text": "What is this?"}, *parts]
        return _complete(target, "ollama_chat/seer", messages=[
            {"role": "user", "content": content}]).choices[0].message.content
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}
    expect(answer(picture) != answer(), "the picture was not seen")
    return answer(picture)


def litellm_embeds(target):
    answer = litellm.embedding(model="ollama/embedder", input=["one", "two"], api_base=target.url)
    vectors = [entry["embedding"] for entry in answer.data]
    expect(len(vectors) == 2 and vectors[0] != vectors[1], answer)
    return vectors


def litellm_speaks_the_openai_protocol_too(target):
    answer = litellm.completion(
        model="openai/talker", messages=QUESTION, max_tokens=LIMIT, api_base=f"{target.url}/v1",
        api_key="unused", timeout=30, max_retries=0)
    expect(answer.choices[0].message.content.strip(), answer)
    return answer.choices[0].message.content


def litellm_is_told_that_a_model_is_unknown(target):
    try:
        _complete(target, "ollama_chat/missing")
    except litellm.exceptions.APIConnectionError as error:
        expect("model 'missing' not found" in str(error), error)
    except litellm.exceptions.APIError as error:
        expect("model 'missing' not found" in str(error), error)
    else:
        raise AssertionError("an unknown model was answered for")


def litellm_client_that_leaves_frees_the_runtime(target):
    def begin():
        stream = _complete(target, "ollama_chat/talker", stream=True, max_tokens=None)
        for _ in range(3):
            next(stream)
        return stream.completion_stream.response_iterator.close
    target.expect_abort_of(begin)


def _complete(target, model, **extra):
    request = {"model": model, "messages": QUESTION, "max_tokens": LIMIT, **extra}
    return litellm.completion(api_base=target.url, timeout=30, **request)


CHECKS = [
    litellm_chat_is_answered,
    litellm_chat_is_streamed,
    litellm_calls_a_tool,
    litellm_looks_at_a_picture,
    litellm_embeds,
    litellm_speaks_the_openai_protocol_too,
    litellm_is_told_that_a_model_is_unknown,
    litellm_client_that_leaves_frees_the_runtime,
]
