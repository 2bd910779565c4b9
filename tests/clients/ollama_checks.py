"""The `ollama` package of Python."""

import ollama

from checks import expect, wait_for
from target import FUNCTION, LIMIT, PICTURE, QUESTION

OPTIONS = {"num_predict": LIMIT}


def ollama_lists_every_model(target):
    names = [model.model for model in _client(target).list().models]
    expect(sorted(names) == [f"{name}:latest" for name in
                             ("embedder", "seer", "talker", "thinker")], names)
    return sorted(names)


def ollama_shows_a_model(target):
    shown = _client(target).show("seer")
    expect("vision" in shown.capabilities, shown)
    expect(shown.modelinfo["simulated.context_length"], shown)
    return shown.model_dump(mode="json")


def ollama_chat_is_answered(target):
    answer = _client(target).chat("talker", QUESTION, options=OPTIONS)
    expect(answer.done and answer.done_reason, answer)
    expect(answer.message.content.strip(), answer)
    expect(answer.eval_count == LIMIT, answer)
    return answer.model_dump()


def ollama_chat_is_streamed(target):
    whole = _client(target).chat("talker", QUESTION, options=OPTIONS).message.content
    parts = list(_client(target).chat("talker", QUESTION, options=OPTIONS, stream=True))
    expect(parts[-1].done and len(parts) >= LIMIT, parts)
    expect("".join(part.message.content for part in parts) == whole, parts, whole)
    return [part.model_dump() for part in parts]


def ollama_generate_is_answered_whole_and_streamed(target):
    prompt = "Why is the sky blue?"
    whole = _client(target).generate("talker", prompt, options=OPTIONS)
    parts = list(_client(target).generate("talker", prompt, options=OPTIONS, stream=True))
    expect(whole.response.strip(), whole)
    expect("".join(part.response for part in parts) == whole.response, parts)
    expect(parts[-1].done and len(parts) >= LIMIT, len(parts))
    return whole.response


def ollama_calls_a_tool_and_is_answered_with_its_result(target):
    client = _client(target)
    called = client.chat("talker", QUESTION, tools=[FUNCTION], options=OPTIONS).message
    [call] = called.tool_calls
    expect(call.function.name == "weather" and call.function.arguments["city"], call)
    streamed = [call for part in client.chat("talker", QUESTION, tools=[FUNCTION], stream=True)
                for call in part.message.tool_calls or []]
    expect(streamed == [call], streamed)
    messages = [*QUESTION, called, {"role": "tool", "content": "22 degrees", "tool_name": "weather"}]
    said = client.chat("talker", messages, tools=[FUNCTION], options=OPTIONS).message
    expect(said.content and not said.tool_calls, said)
    return call.model_dump(), said.content


def ollama_looks_at_a_picture(target):
    def answer(**extra):
        message = {"role": "user", "content": "What is this?", **extra}
        return _client(target).chat("seer", [message], options=OPTIONS).message.content
    expect(answer(images=[PICTURE]) != answer(), "the picture was not seen")
    return answer(images=[PICTURE])


def ollama_is_told_what_a_model_thinks(target):
    answer = _client(target).chat("thinker", QUESTION, think=True, options=OPTIONS).message
    expect(answer.thinking and answer.content, answer)
    parts = list(_client(target).chat("thinker", QUESTION, think=True, options=OPTIONS, stream=True))
    expect("".join(part.message.thinking or "" for part in parts) == answer.thinking, parts)
    silent = _client(target).chat("thinker", QUESTION, think=False, options=OPTIONS).message
    expect(not silent.thinking and silent.content == answer.content, silent)
    return answer.model_dump()


def ollama_embeds(target):
    many = _client(target).embed("embedder", ["one", "two"])
    expect(len(many.embeddings) == 2 and many.embeddings[0] != many.embeddings[1], many)
    old = _client(target).embeddings("embedder", "one")
    expect(list(old.embedding) == list(many.embeddings[0]), old)
    return many.model_dump()


def ollama_loads_sees_and_unloads_a_model(target):
    client = _client(target)
    client.generate("embedder", keep_alive=-1)
    wait_for("the model in memory", lambda: "embedder:latest" in _loaded(client))
    client.generate("embedder", keep_alive=0)
    wait_for("the model gone", lambda: "embedder:latest" not in _loaded(client))


def ollama_pulls_with_progress_and_deletes(target):
    client, machine, name = _client(target), _machine(target), "pulled-by-python:latest"
    parts = list(machine.pull(name, stream=True))
    expect(parts[-1].status == "success", parts)
    done = [part.completed for part in parts if part.completed]
    expect(len(done) >= 5 and done == sorted(done) and done[-1] == parts[2].total, parts)
    wait_for("the model in the list", lambda: name in _names(client))
    expect(client.generate(name, "hi", options=OPTIONS).response, name)
    expect(machine.pull(name).status == "success", name)
    expect(machine.delete(name).status == "success", name)
    wait_for("the model gone from the list", lambda: name not in _names(client))
    return [part.model_dump() for part in parts]


def ollama_creates_copies_and_pushes_a_model(target):
    client, machine = _client(target), _machine(target)
    mine, copied = "made-by-python:latest", "team/copied-by-python:v1"
    digest = machine.create_blob(__file__)
    expect(digest.startswith("sha256:"), digest)
    parts = list(machine.create(mine, files={"model.gguf": digest}, stream=True))
    expect(parts[-1].status == "success", parts)
    wait_for("the model in the list", lambda: mine in _names(client))
    expect(machine.copy(mine, copied).status == "success", copied)
    wait_for("the copy in the list", lambda: copied in _names(client))
    pushed = list(machine.push(copied, stream=True))
    expect(pushed[-1].status == "success", pushed)
    for name in mine, copied:
        machine.delete(name)
    wait_for("both gone", lambda: not {mine, copied} & _names(client))


def ollama_is_told_what_cannot_be_pulled_or_deleted(target):
    _expect_error(500, "pull model manifest: file does not exist",
                  lambda: _machine(target).pull("missing"))
    _expect_error(500, "pull model manifest: file does not exist",
                  lambda: list(_machine(target).pull("missing", stream=True)))
    _expect_error(-1, "simulated failure", lambda: list(_machine(target).pull("broken", stream=True)))
    _expect_error(404, "model 'missing' not found", lambda: _machine(target).delete("missing"))


def ollama_is_told_that_a_model_is_unknown(target):
    for stream in (False, True):
        _expect_error(404, "model 'missing' not found", lambda: list(
            _client(target).chat("missing", QUESTION, stream=stream)))
    _expect_error(404, "model 'missing' not found", lambda: _client(target).show("missing"))
    _expect_error(404, "model 'missing' not found", lambda: _client(target).embed("missing", "hi"))


def ollama_client_that_leaves_frees_the_runtime(target):
    target.expect_abort_of(lambda: _begun(_client(target).chat("talker", QUESTION, stream=True)))


def ollama_client_that_leaves_a_pull_ends_it(target):
    def begin():
        return _begun(_machine(target).pull("left-by-python", stream=True))
    target.expect_abort_of(begin)
    expect("left-by-python:latest" not in _names(_client(target)), "it was pulled")


def _begun(stream, pieces=3):
    for _ in range(pieces):
        next(stream)
    return stream.close


def _expect_error(status, text, call):
    try:
        call()
    except ollama.ResponseError as error:
        expect((error.status_code, error.error) == (status, text), error.status_code, error.error)
    else:
        raise AssertionError(f"no error, but {text!r} was expected")


def _names(client):
    return {model.model for model in client.list().models}


def _loaded(client):
    return {model.model for model in client.ps().models}


def _client(target):
    return ollama.Client(host=target.url, timeout=30)


def _machine(target):
    """Returns a client that says which machine it changes, where there are several."""
    return ollama.Client(host=target.url, headers=target.headers, timeout=30)


CHECKS = [
    ollama_lists_every_model,
    ollama_shows_a_model,
    ollama_chat_is_answered,
    ollama_chat_is_streamed,
    ollama_generate_is_answered_whole_and_streamed,
    ollama_calls_a_tool_and_is_answered_with_its_result,
    ollama_looks_at_a_picture,
    ollama_is_told_what_a_model_thinks,
    ollama_embeds,
    ollama_loads_sees_and_unloads_a_model,
    ollama_pulls_with_progress_and_deletes,
    ollama_creates_copies_and_pushes_a_model,
    ollama_is_told_what_cannot_be_pulled_or_deleted,
    ollama_is_told_that_a_model_is_unknown,
    ollama_client_that_leaves_frees_the_runtime,
    ollama_client_that_leaves_a_pull_ends_it,
]
