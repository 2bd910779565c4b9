/** The only fetch: the management API, and what models are asked. Paths are relative to the page. */

import { t } from "../text";
import type {
  About,
  Agent,
  Happening,
  History,
  Patch,
  Problem,
  Request as RequestView,
  Snapshot,
} from "./shapes";

/** The coordinator said no, or said nothing. */
export class ApiError extends Error {
  constructor(
    message: string,
    /** 0: nobody answered. */
    readonly status: number,
    readonly code: string,
  ) {
    super(message);
  }
}

/** What was asked for is as it was. */
const UNCHANGED = 304;

async function send(path: string, init: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, { cache: "no-store", ...init });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(t.errors.unreachable, 0, "unreachable");
  }
  if (response.ok || response.status === UNCHANGED) return response;
  throw await refusal(response);
}

/** Reads an error in whichever shape the route has. */
async function refusal(response: Response): Promise<ApiError> {
  const text = await response.text();
  try {
    const body = JSON.parse(text) as Partial<Problem> & {
      error?: string | { message?: string };
    };
    if (isForbidden(response) && !body.code && !body.error) return forbidden(response);
    const details = body.errors?.map((field) => `${field.field}: ${field.detail}`).join("; ");
    const error = typeof body.error === "object" ? body.error.message : body.error;
    const message = details ?? body.detail ?? body.title ?? error ?? text;
    return new ApiError(message, response.status, body.code ?? `${response.status}`);
  } catch {
    if (isForbidden(response)) return forbidden(response);
    return new ApiError(text.slice(0, 300), response.status, `${response.status}`);
  }
}

/** The coordinator itself lets everybody do everything; what stands before it may not. */
const isForbidden = ({ status }: Response): boolean => [401, 403, 405, 407].includes(status);

const forbidden = ({ status }: Response): ApiError =>
  new ApiError(t.errors.forbidden, status, `${status}`);

async function read<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await send(path, signal ? { signal } : {});
  return (await response.json()) as T;
}

function json(method: string, body: unknown): RequestInit {
  return { method, body: JSON.stringify(body), headers: { "content-type": "application/json" } };
}

const query = (params: Record<string, string>): string => {
  const search = new URLSearchParams(Object.entries(params).filter(([, value]) => value !== ""));
  return search.size > 0 ? `?${search}` : "";
};

const segment = encodeURIComponent;

/** Returns the fleet as it is, unless that is what `tag` names, and the name of what there is. */
export async function getSnapshot(tag: string): Promise<{ told?: Snapshot; tag: string }> {
  const headers = { "if-none-match": tag };
  const response = await send("api/events/snapshot?brief=true", tag ? { headers } : {});
  if (response.status === UNCHANGED) return { tag };
  return { told: (await response.json()) as Snapshot, tag: response.headers.get("etag") ?? "" };
}

export const getAbout = (): Promise<About> => read("api/about");
export const listHappenings = (): Promise<Happening[]> => read("api/events/log?limit=500");
export const getAgent = (id: string): Promise<Agent> => read(`api/agents/${segment(id)}`);
export const getRequest = (id: string): Promise<RequestView> => read(`api/requests/${segment(id)}`);

export const listRequests = (params: Record<string, string>): Promise<RequestView[]> =>
  read(`api/requests${query(params)}`);

/** Has a request that runs end. */
export async function cancelRequest(id: string): Promise<void> {
  await send(`api/requests/${segment(id)}/cancel`, { method: "POST" });
}

export const getHistory = (agent: string, resolution: "fine" | "coarse"): Promise<History> =>
  read(`api/history${query({ agent, resolution })}`);

export async function patchAgent(id: string, patch: Patch): Promise<void> {
  await send(`api/agents/${segment(id)}`, json("PATCH", patch));
}

export async function forgetAgent(id: string): Promise<void> {
  await send(`api/agents/${segment(id)}`, { method: "DELETE" });
}

export async function deleteModel(agent: string, model: string): Promise<void> {
  await send(`api/delete${query({ agent })}`, json("DELETE", { model }));
}

/** One line of a pull's progress. */
export interface Progress {
  status?: string;
  error?: string;
  total?: number;
  completed?: number;
}

/** Pulls a model onto one machine; ends when it is there, throws when it is not. */
export async function pullModel(
  agent: string,
  model: string,
  told: (progress: Progress) => void,
  signal: AbortSignal,
): Promise<void> {
  const init = { ...json("POST", { model, stream: true }), signal };
  const response = await send(`api/pull${query({ agent })}`, init);
  let isDone = false;
  for await (const line of lines(response)) {
    const progress = JSON.parse(line) as Progress;
    if (progress.error) throw new ApiError(progress.error, 502, "pull_failed");
    isDone = progress.status === "success";
    told(progress);
  }
  if (!isDone) throw new ApiError(t.errors.brokeOff, 502, "pull_failed");
}

export interface ChatMessage {
  role: "user" | "assistant" | "system";
  content: string;
}

/** What a chat says as it goes. */
export interface ChatTold {
  started?: { agent: string | undefined; request: string | undefined };
  text?: string;
  thinking?: string;
  tokens?: number;
}

interface ChatChunk {
  error?: { message?: string };
  usage?: { completion_tokens?: number } | null;
  choices?: { delta?: { content?: string; reasoning?: string; reasoning_content?: string } }[];
}

/** Asks a model over the OpenAI API, which every runtime speaks. */
export async function chat(
  question: { model: string; agent: string; messages: readonly ChatMessage[] },
  told: (said: ChatTold) => void,
  signal: AbortSignal,
): Promise<void> {
  const { model, agent, messages } = question;
  const body = { model, messages, stream: true, stream_options: { include_usage: true } };
  const init = { ...json("POST", body), signal };
  const response = await send(`v1/chat/completions${query({ agent })}`, init);
  const header = (name: string): string | undefined => response.headers.get(name) ?? undefined;
  told({
    started: { agent: header("x-coordinator-agent"), request: header("x-coordinator-request") },
  });
  for await (const line of lines(response)) {
    if (!line.startsWith("data:")) continue;
    const data = line.slice(5).trim();
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data) as ChatChunk;
    if (chunk.error) throw new ApiError(chunk.error.message ?? data, 502, "stream_failed");
    const delta = chunk.choices?.[0]?.delta;
    const thinking = delta?.reasoning ?? delta?.reasoning_content;
    const tokens = chunk.usage?.completion_tokens;
    if (delta?.content) told({ text: delta.content });
    if (thinking) told({ thinking });
    if (tokens != null) told({ tokens });
  }
}

async function* lines(response: Response): AsyncGenerator<string> {
  if (!response.body) return;
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    rest += done ? decoder.decode() : decoder.decode(value, { stream: true });
    const split = rest.split("\n");
    rest = split.pop() ?? "";
    for (const line of split) if (line.trim()) yield line;
    if (done) break;
  }
  if (rest.trim()) yield rest;
}
