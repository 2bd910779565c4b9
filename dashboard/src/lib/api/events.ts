/**
 * The only EventSource: one stream for the whole tab, and polling where a proxy holds streams back.
 *
 * A stream that says nothing is closed and opened again. One that never began to tick is taken for
 * buffered: then snapshots are fetched, and the stream is tried again every minute.
 */

import { getSnapshot } from "./client";
import type { FleetEvent } from "./shapes";

export type Link = "connecting" | "live" | "polling" | "down" | "paused";

const FIRST_TICK_WITHIN = 4_000;
const SILENCE = 6_000;
const POLL_EVERY = 3_000;
const STREAM_AGAIN_AFTER = 60_000;
const HIDDEN_FOR = 30_000;
const RETRY_FIRST = 500;
const RETRY_MOST = 8_000;

export interface Listener {
  /** Returns false when the stream must begin again. */
  event(event: FleetEvent): boolean;
  link(link: Link, retryAt?: number): void;
}

/** Half to one and a half times as long, so that viewers do not come all at once. */
const spread = (wait: number): number => wait * (0.5 + Math.random());

export class EventFeed {
  #source: EventSource | undefined;
  #watchdog: ReturnType<typeof setTimeout> | undefined;
  #next: ReturnType<typeof setTimeout> | undefined;
  #hiding: ReturnType<typeof setTimeout> | undefined;
  #hasTicked = false;
  #failures = 0;
  #streamAgainAt = 0;
  #isStopped = false;

  constructor(private readonly listener: Listener) {}

  start(): void {
    document.addEventListener("visibilitychange", () => this.#seen());
    window.addEventListener("pagehide", () => this.#close());
    window.addEventListener("pageshow", (event) => {
      if (event.persisted) this.now();
    });
    this.#stream();
  }

  /** Connects now, whatever was planned. */
  now(): void {
    this.#isStopped = false;
    this.#failures = 0;
    this.#streamAgainAt = 0;
    this.#stream();
  }

  #seen(): void {
    clearTimeout(this.#hiding);
    if (document.visibilityState === "visible") {
      if (this.#isStopped) this.now();
      return;
    }
    this.#hiding = setTimeout(() => {
      this.#isStopped = true;
      this.#close();
      this.listener.link("paused");
    }, HIDDEN_FOR);
  }

  #close(): void {
    clearTimeout(this.#watchdog);
    clearTimeout(this.#next);
    this.#source?.close();
    this.#source = undefined;
  }

  #stream(): void {
    this.#close();
    this.#hasTicked = false;
    const source = new EventSource("api/events?brief=true");
    this.#source = source;
    source.onmessage = (message: MessageEvent<string>) => this.#take(message.data);
    source.onerror = () => this.#again();
    this.#watch(FIRST_TICK_WITHIN);
  }

  #take(data: string): void {
    const event = JSON.parse(data) as FleetEvent;
    if (event.type === "tick") {
      this.#hasTicked = true;
      this.#failures = 0;
      this.listener.link("live");
    }
    if (!this.listener.event(event)) {
      this.#again();
      return;
    }
    this.#watch(this.#hasTicked ? SILENCE : FIRST_TICK_WITHIN);
  }

  #watch(within: number): void {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => {
      if (this.#hasTicked) this.#again();
      else this.#poll();
    }, within);
  }

  /** Connects again, later each time. */
  #again(): void {
    this.#close();
    if (this.#isStopped) return;
    this.#failures += 1;
    const wait = spread(Math.min(RETRY_FIRST * 2 ** (this.#failures - 1), RETRY_MOST));
    this.listener.link(this.#failures > 1 ? "down" : "connecting", Date.now() + wait);
    this.#next = setTimeout(() => this.#stream(), wait);
  }

  #poll(): void {
    this.#close();
    this.#streamAgainAt = Date.now() + STREAM_AGAIN_AFTER;
    void this.#pollOnce();
  }

  async #pollOnce(): Promise<void> {
    try {
      this.listener.event(await getSnapshot());
      this.#failures = 0;
      this.listener.link("polling");
    } catch {
      this.#again();
      return;
    }
    if (this.#isStopped || this.#source) return;
    const isDue = Date.now() >= this.#streamAgainAt;
    this.#next = setTimeout(
      () => (isDue ? this.#stream() : void this.#pollOnce()),
      spread(POLL_EVERY),
    );
  }
}
