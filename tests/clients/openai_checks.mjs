// The `openai` package of JavaScript.

import OpenAI from "openai";

import { FUNCTION, LIMIT, PICTURE, QUESTION, expect, expectAbort, thrownBy } from "./checks.mjs";

const chat = { model: "talker", messages: QUESTION, max_tokens: LIMIT };

async function openai_js_lists_every_model(target) {
  const names = [];
  for await (const model of client(target).models.list()) names.push(model.id);
  expect(names.includes("talker:latest") && names.includes("thinker:latest"), names);
  expect((await client(target).models.retrieve("talker:latest")).id === "talker:latest");
  return names.sort();
}

async function openai_js_chat_completion_is_answered(target) {
  const answer = await client(target).chat.completions.create(chat);
  expect(answer.choices[0].message.content.trim(), answer);
  expect(answer.usage.completion_tokens === LIMIT, answer.usage);
  return answer;
}

async function openai_js_stream_brings_piece_by_piece(target) {
  const pieces = [];
  let usage;
  const options = { ...chat, stream: true, stream_options: { include_usage: true } };
  for await (const chunk of await client(target).chat.completions.create(options)) {
    pieces.push(chunk.choices[0]?.delta.content ?? "");
    usage = chunk.usage ?? usage;
  }
  const whole = await client(target).chat.completions.create(chat);
  expect(pieces.length >= LIMIT, pieces);
  expect(pieces.join("") === whole.choices[0].message.content, pieces);
  expect(usage.completion_tokens === LIMIT, usage);
  return pieces;
}

async function openai_js_calls_a_tool(target) {
  const create = (request) => client(target).chat.completions.create(request);
  const called = (await create({ ...chat, tools: [FUNCTION] })).choices[0];
  const [call] = called.message.tool_calls;
  expect(called.finish_reason === "tool_calls" && call.function.name === "weather", called);
  expect(JSON.parse(call.function.arguments).city, call);
  const result = { role: "tool", tool_call_id: call.id, content: "22 degrees" };
  const messages = [...QUESTION, called.message, result];
  const said = (await create({ ...chat, messages, tools: [FUNCTION] })).choices[0].message;
  expect(said.content && !said.tool_calls, said);
  return [call, said.content];
}

async function openai_js_looks_at_a_picture(target) {
  const answer = async (...parts) => {
    const content = [{ type: "text", text: "What is this?" }, ...parts];
    const request = { ...chat, model: "seer", messages: [{ role: "user", content }] };
    return (await client(target).chat.completions.create(request)).choices[0].message.content;
  };
  const picture = { type: "image_url", image_url: { url: `data:image/png;base64,${PICTURE}` } };
  const seen = await answer(picture);
  expect(seen !== (await answer()), "the picture was not seen");
  return seen;
}

async function openai_js_embeds(target) {
  const embed = async (extra) =>
    (await client(target).embeddings.create({ model: "embedder", input: ["one", "two"], ...extra })).data;
  const [floats, packed] = [await embed({ encoding_format: "float" }), await embed({})];
  expect(floats.length === 2, floats);
  const differences = floats[0].embedding.map((x, i) => Math.abs(x - packed[0].embedding[i]));
  expect(Math.max(...differences) < 1e-6, differences);
  return floats;
}

async function openai_js_response_is_answered_whole_and_streamed(target) {
  const request = { model: "talker", input: "Why is the sky blue?", max_output_tokens: LIMIT };
  const whole = await client(target).responses.create(request);
  let text = "";
  for await (const event of await client(target).responses.create({ ...request, stream: true })) {
    if (event.type === "response.output_text.delta") text += event.delta;
  }
  expect(text.trim() && text === whole.output_text, text, whole);
  return whole;
}

async function openai_js_is_told_that_a_model_is_unknown(target) {
  for (const stream of [false, true]) {
    const request = { ...chat, model: "missing", stream };
    const error = await thrownBy(() => client(target).chat.completions.create(request));
    expect(error.status === 404 && error.type === "not_found_error", error);
    expect(error.error.message === "model 'missing' not found", error);
  }
}

async function openai_js_client_that_leaves_a_chat_frees_the_runtime(target) {
  const { model, messages } = chat;
  await expectAbort(target, async () =>
    leaveAfter(await client(target).chat.completions.create({ model, messages, stream: true }), 3),
  );
}

async function openai_js_client_that_leaves_a_response_frees_the_runtime(target) {
  const request = { model: "talker", input: "Why is the sky blue?", stream: true };
  await expectAbort(target, async () => leaveAfter(await client(target).responses.create(request), 6));
}

async function leaveAfter(stream, pieces) {
  const iterator = stream[Symbol.asyncIterator]();
  for (let n = 0; n < pieces; n++) await iterator.next();
  return () => stream.controller.abort();
}

function client(target) {
  return new OpenAI({ baseURL: `${target.url}/v1`, apiKey: "unused", timeout: 30_000, maxRetries: 0 });
}

export const CHECKS = [
  openai_js_lists_every_model,
  openai_js_chat_completion_is_answered,
  openai_js_stream_brings_piece_by_piece,
  openai_js_calls_a_tool,
  openai_js_looks_at_a_picture,
  openai_js_embeds,
  openai_js_response_is_answered_whole_and_streamed,
  openai_js_is_told_that_a_model_is_unknown,
  openai_js_client_that_leaves_a_chat_frees_the_runtime,
  openai_js_client_that_leaves_a_response_frees_the_runtime,
];
