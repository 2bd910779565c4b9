// The `ollama` package of JavaScript.

import { Ollama } from "ollama";

import { FUNCTION, LIMIT, PICTURE, QUESTION, expect, expectAbort, thrownBy, waitFor } from "./checks.mjs";

const options = { num_predict: LIMIT };

async function ollama_js_lists_every_model(target) {
  const names = await namesOf(client(target));
  expect(names.includes("talker:latest") && names.includes("thinker:latest"), names);
  return names;
}

async function ollama_js_shows_a_model_and_the_version(target) {
  const shown = await client(target).show({ model: "seer" });
  expect(shown.capabilities.includes("vision"), shown);
  const { version } = await client(target).version();
  expect(version, version);
  return shown;
}

async function ollama_js_chat_is_answered(target) {
  const answer = await client(target).chat({ model: "talker", messages: QUESTION, options });
  expect(answer.done && answer.message.content.trim() && answer.eval_count === LIMIT, answer);
  return answer;
}

async function ollama_js_chat_is_streamed(target) {
  const request = { model: "talker", messages: QUESTION, options };
  const whole = await client(target).chat(request);
  const parts = [];
  for await (const part of await client(target).chat({ ...request, stream: true })) parts.push(part);
  const text = parts.map((part) => part.message.content).join("");
  expect(parts.length >= LIMIT && text === whole.message.content, parts);
  return parts;
}

async function ollama_js_generate_is_answered_whole_and_streamed(target) {
  const request = { model: "talker", prompt: "Why is the sky blue?", options };
  const whole = await client(target).generate(request);
  let text = "";
  for await (const part of await client(target).generate({ ...request, stream: true })) {
    text += part.response;
  }
  expect(text.trim() && text === whole.response, text, whole);
  return text;
}

async function ollama_js_calls_a_tool(target) {
  const { message } = await client(target).chat({
    model: "talker", messages: QUESTION, tools: [FUNCTION], options,
  });
  const [call] = message.tool_calls;
  expect(call.function.name === "weather" && call.function.arguments.city, call);
  const said = await client(target).chat({
    model: "talker", tools: [FUNCTION], options,
    messages: [...QUESTION, message, { role: "tool", content: "22 degrees", tool_name: "weather" }],
  });
  expect(said.message.content && !said.message.tool_calls, said);
  return [call, said.message.content];
}

async function ollama_js_looks_at_a_picture(target) {
  const answer = async (extra) => {
    const message = { role: "user", content: "What is this?", ...extra };
    return (await client(target).chat({ model: "seer", messages: [message], options })).message.content;
  };
  const seen = await answer({ images: [PICTURE] });
  expect(seen !== (await answer({})), "the picture was not seen");
  return seen;
}

async function ollama_js_is_told_what_a_model_thinks(target) {
  const request = { model: "thinker", messages: QUESTION, think: true, options };
  const { message } = await client(target).chat(request);
  expect(message.thinking && message.content, message);
  return message;
}

async function ollama_js_embeds(target) {
  const { embeddings } = await client(target).embed({ model: "embedder", input: ["one", "two"] });
  const old = await client(target).embeddings({ model: "embedder", prompt: "one" });
  expect(embeddings.length === 2 && embeddings[0].join() === old.embedding.join(), embeddings, old);
  return embeddings;
}

async function ollama_js_pulls_with_progress_and_deletes(target) {
  const ollama = client(target);
  const model = "pulled-by-javascript:latest";
  const parts = [];
  for await (const part of await machine(target).pull({ model, stream: true })) parts.push(part);
  const done = parts.map((part) => part.completed).filter(Boolean);
  expect(parts.at(-1).status === "success" && done.length >= 5, parts);
  await waitFor("the model in the list", async () => (await namesOf(ollama)).includes(model));
  expect((await ollama.generate({ model, prompt: "hi", options })).response, model);
  await machine(target).delete({ model });
  await waitFor("the model gone", async () => !(await namesOf(ollama)).includes(model));
  return parts;
}

async function ollama_js_is_told_what_is_wrong(target) {
  const unknown = "model 'missing' not found";
  for (const stream of [false, true]) {
    const error = await thrownBy(async () => {
      const answer = await client(target).chat({ model: "missing", messages: QUESTION, stream });
      for await (const part of answer) expect(false, part);
    });
    expect(error.status_code === 404 && error.error === unknown, error);
  }
  const pull = await thrownBy(() => machine(target).pull({ model: "missing" }));
  expect(pull.error === "pull model manifest: file does not exist", pull);
}

async function ollama_js_client_that_leaves_frees_the_runtime(target) {
  await expectAbort(target, async () => {
    const ollama = client(target);
    const request = { model: "talker", messages: QUESTION, stream: true };
    return leaveAfter(await ollama.chat(request), 3);
  });
}

async function ollama_js_client_that_leaves_a_pull_ends_it(target) {
  await expectAbort(target, async () =>
    leaveAfter(await machine(target).pull({ model: "left-by-javascript", stream: true }), 3),
  );
  const names = await namesOf(client(target));
  expect(!names.includes("left-by-javascript:latest"), names);
}

async function leaveAfter(stream, pieces) {
  const iterator = stream[Symbol.asyncIterator]();
  for (let n = 0; n < pieces; n++) await iterator.next();
  return async () => {
    stream.abort();
    await iterator.next().catch((error) => expect(error.name === "AbortError", error));
  };
}

async function namesOf(ollama) {
  return (await ollama.list()).models.map((model) => model.name).sort();
}

function client(target) {
  return new Ollama({ host: target.url });
}

// A client that says which machine it changes, where there are several.
function machine(target) {
  return new Ollama({ host: target.url, headers: target.headers });
}

export const CHECKS = [
  ollama_js_lists_every_model,
  ollama_js_shows_a_model_and_the_version,
  ollama_js_chat_is_answered,
  ollama_js_chat_is_streamed,
  ollama_js_generate_is_answered_whole_and_streamed,
  ollama_js_calls_a_tool,
  ollama_js_looks_at_a_picture,
  ollama_js_is_told_what_a_model_thinks,
  ollama_js_embeds,
  ollama_js_pulls_with_progress_and_deletes,
  ollama_js_is_told_what_is_wrong,
  ollama_js_client_that_leaves_frees_the_runtime,
  ollama_js_client_that_leaves_a_pull_ends_it,
];
