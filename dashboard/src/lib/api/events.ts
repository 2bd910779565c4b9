/**
 * The only EventSource: one stream for the whole tab, and polling where a proxy holds streams back.
 *
 * A stream that says nothing is closed and opened again, and goes on where it was. One that never
 * began to tick is taken for buffered: then snapshots are fetched, and the stream is tried again every
 * minute. So they are when other tabs have streams enough.
 */

import { getSnapshot } from "./client";
import type { FleetEvent } from "./shapes";
import { Tabs } from "./tabs";

/** `polling`: something holds the stream back; `shared`: other tabs have streams enough. */
export type Link = "connecting" | "live" | "polling" | "shared" | "down" | "paused";

const FIRST_TICK_WITHIN = 4_000;
const SILENCE = 6_000;
const POLL_EVERY = 3_000;
const STREAM_AGAIN_AFTER = 60_000;
const HIDDEN_FOR = 30_000;
const MOST_STREAMS = 4;
const RETRY_FIRST = 500;
const RETRY_MOST = 8_000;

export interface Listener {
  /** Returns false when the stream must begin again. */
  event(event: FleetEvent): boolean;
  link(link: Link, retryAt?: number): void;
  /** What is known still holds. */
  unchanged(): void;
}

/** Half to one and a half times as long, so that viewers do not come all at once. */
const spread = (wait: number): number => wait * (0.5 + Math.random());

export class EventFeed {
  #source: EventSource | undefined;
  #watchdog: ReturnType<typeof setTimeout> | undefined;
  #next: ReturnType<typeof setTimeout> | undefined;
  #hiding: ReturnType<typeof setTimeout> | undefined;
  /** The id of the last event, after which a new stream goes on; empty: it begins anew. */
  #lastId = "";
  #hasTicked = false;
  #failures = 0;
  #streamAgainAt = 0;
  #isStopped = false;
  #tabs = new Tabs(() => this.#makeRoom());

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
    this.#hiding = setTimeout(() => this.#hide(), HIDDEN_FOR);
  }

  #close(): void {
    clearTimeout(this.#watchdog);
    clearTimeout(this.#next);
    this.#source?.close();
    this.#source = undefined;
    this.#tabs.closed();
  }

  /** Leaves the connections to other tabs: those that are seen, or came first. */
  #makeRoom(): void {
    if (!this.#source) return;
    if (document.visibilityState === "hidden") this.#hide();
    else if (this.#tabs.before >= MOST_STREAMS) this.#poll("shared");
  }

  #hide(): void {
    this.#isStopped = true;
    this.#close();
    this.listener.link("paused");
  }

  #stream(): void {
    this.#close();
    this.#hasTicked = false;
    if (this.#tabs.before >= MOST_STREAMS) {
      this.#poll("shared");
      return;
    }
    this.#tabs.opened();
    const since = this.#lastId ? `&since=${encodeURIComponent(this.#lastId)}` : "";
    const source = new EventSource(`api/events?brief=true${since}`);
    this.#source = source;
    source.onmessage = (message: MessageEvent<string>) => this.#take(message);
    source.onerror = () => this.#again();
    this.#watch(FIRST_TICK_WITHIN);
  }

  #take({ data, lastEventId }: MessageEvent<string>): void {
    const event = JSON.parse(data) as FleetEvent;
    if (event.type === "tick") {
      this.#hasTicked = true;
      this.#failures = 0;
      this.listener.link("live");
    }
    if (!this.listener.event(event)) {
      this.#lastId = "";
      this.#again();
      return;
    }
    this.#lastId = lastEventId || this.#lastId;
    this.#watch(this.#hasTicked ? SILENCE : FIRST_TICK_WITHIN);
  }

  #watch(within: number): void {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => {
      if (this.#hasTicked) this.#again();
      else this.#poll("polling");
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

  #poll(why: Link): void {
    this.#close();
    this.#lastId = "";
    this.#streamAgainAt = why === "shared" ? 0 : Date.now() + STREAM_AGAIN_AFTER;
    void this.#pollOnce(why, "");
  }

  /** Asks for what there is, if it is not what `known` names, and again a little later. */
  async #pollOnce(why: Link, known: string): Promise<void> {
    let tag = "";
    try {
      const answer = await getSnapshot(known);
      if (answer.told) this.listener.event(answer.told);
      else this.listener.unchanged();
      tag = answer.tag;
      this.#failures = 0;
      this.listener.link(why);
    } catch {
      this.#again();
      return;
    }
    if (this.#isStopped || this.#source) return;
    const hasRoom = this.#tabs.before < MOST_STREAMS;
    const isDue = hasRoom && Date.now() >= this.#streamAgainAt;
    const next = (): void => (isDue ? this.#stream() : void this.#pollOnce(why, tag));
    this.#next = setTimeout(next, spread(POLL_EVERY));
  }
}
