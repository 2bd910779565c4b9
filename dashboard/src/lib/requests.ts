/** What a request's record means. Pure. */

import type { Request } from "./api/shapes";

/** One stretch of a request's time. */
export interface Stretch {
  kind: "queue" | "wait" | "failed" | "answer";
  label: string;
  /** Milliseconds since the request arrived. */
  from: number;
  to: number;
}

export function isLive(request: Request): boolean {
  return request.state !== "ended";
}

/**
 * A key for each request of a list, the newest of which comes first. Clients may give several the same
 * id, and when one began is told a little differently each time: those of one id are numbered.
 */
export function keyed(requests: readonly Request[]): { key: string; request: Request }[] {
  const seen = new Map<string, number>();
  const oldestFirst = [...requests].reverse().map((request) => {
    const number = seen.get(request.id) ?? 0;
    seen.set(request.id, number + 1);
    return { key: `${request.id} ${number}`, request };
  });
  return oldestFirst.reverse();
}

export function agentOf(request: Request): { id: string; name: string } | undefined {
  const last = request.attempts.at(-1);
  return last && { id: last.agent_id, name: last.agent_name };
}

/** Tokens of the answer per second, from its first byte on. */
export function speedOf(request: Request): number | undefined {
  const { completion_tokens: tokens, first_byte_ms: first, duration_ms: all } = request;
  if (tokens == null || first == null) return undefined;
  const seconds = (request.streamed ? all - first : all) / 1000;
  return seconds > 0 ? tokens / seconds : undefined;
}

/** The time of a request, piece by piece, without what took none. */
export function timeline(request: Request): Omit<Stretch, "label">[] {
  const pieces: Omit<Stretch, "label">[] = [];
  let at = 0;
  for (const attempt of request.attempts) {
    const start = attempt.started_after_ms;
    if (start > at) pieces.push({ kind: "queue", from: at, to: start });
    const isLast = attempt === request.attempts.at(-1);
    const end = start + attempt.duration_ms;
    const first = request.first_byte_ms;
    if (isLast && first != null) {
      pieces.push({ kind: "wait", from: start, to: first });
      pieces.push({ kind: "answer", from: first, to: request.duration_ms });
      at = request.duration_ms;
    } else {
      pieces.push({ kind: attempt.outcome ? "failed" : "wait", from: start, to: end });
      at = end;
    }
  }
  if (request.duration_ms > at) pieces.push({ kind: "queue", from: at, to: request.duration_ms });
  return pieces;
}
