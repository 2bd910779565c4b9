"""The `langchain-ollama` package."""

import ollama
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM

from checks import expect
from target import FUNCTION, LIMIT, PICTURE

QUESTION = "Why is the sky blue?"


def langchain_chat_is_answered(target):
    answer = _chat(target, validate_model_on_init=True).invoke(QUESTION)
    expect(answer.content.strip(), answer)
    expect(answer.usage_metadata["output_tokens"] == LIMIT, answer)
    return answer.content, answer.response_metadata


def langchain_chat_is_streamed(target):
    parts = list(_chat(target).stream(QUESTION))
    text = "".join(part.content for part in parts)
    expect(len(parts) >= LIMIT and text == _chat(target).invoke(QUESTION).content, parts)
    return text


def langchain_completion_is_answered(target):
    model = OllamaLLM(model="talker", base_url=target.url, num_predict=LIMIT)
    text = model.invoke(QUESTION)
    expect(text.strip(), text)
    return text


def langchain_calls_a_tool_and_is_answered_with_its_result(target):
    chat = _chat(target).bind_tools([FUNCTION])
    called = chat.invoke(QUESTION)
    [call] = called.tool_calls
    expect(call["name"] == "weather" and call["args"]["city"], call)
    said = chat.invoke([HumanMessage(QUESTION), AIMessage("", tool_calls=[call]),
                        ToolMessage("22 degrees", tool_call_id=call["id"])])
    expect(said.content and not said.tool_calls, said)
    return call["args"], said.content


def langchain_looks_at_a_picture(target):
    def answer(*parts):
        content = [{"type": "text", "text": "What is this?"}, *parts]
        return _chat(target, model="seer").invoke([HumanMessage(content)]).content
    picture = {"type": "image_url", "image_url": f"data:image/png;base64,{PICTURE}"}
    expect(answer(picture) != answer(), "the picture was not seen")
    return answer(picture)


def langchain_is_told_what_a_model_thinks(target):
    answer = _chat(target, model="thinker", reasoning=True).invoke(QUESTION)
    expect(answer.additional_kwargs["reasoning_content"] and answer.content, answer)
    return answer.additional_kwargs["reasoning_content"]


def langchain_embeds(target):
    vectors = OllamaEmbeddings(model="embedder", base_url=target.url).embed_documents(["one", "two"])
    expect(len(vectors) == 2 and vectors[0] != vectors[1], vectors)
    return vectors


def langchain_is_told_that_a_model_is_unknown(target):
    try:
        _chat(target, model="missing").invoke(QUESTION)
    except ollama.ResponseError as error:
        expect(error.status_code == 404, error.status_code)
        expect("model 'missing' not found" in error.error, error.error)
    else:
        raise AssertionError("an unknown model was answered for")


def langchain_client_that_leaves_frees_the_runtime(target):
    def begin():
        stream = _chat(target, num_predict=None).stream(QUESTION)
        for _ in range(3):
            next(stream)
        return stream.close
    target.expect_abort_of(begin)


def _chat(target, **extra):
    return ChatOllama(base_url=target.url, **{"model": "talker", "num_predict": LIMIT, **extra})


CHECKS = [
    langchain_chat_is_answered,
    langchain_chat_is_streamed,
    langchain_completion_is_answered,
    langchain_calls_a_tool_and_is_answered_with_its_result,
    langchain_looks_at_a_picture,
    langchain_is_told_what_a_model_thinks,
    langchain_embeds,
    langchain_is_told_that_a_model_is_unknown,
    langchain_client_that_leaves_frees_the_runtime,
]
