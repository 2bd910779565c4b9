/** The fleet as the page shows it: drawn from the model once a frame, behind one number that grows. */

import { EventFeed, type Link } from "../api/events";
import { listHappenings } from "../api/client";
import type { Counts } from "../agents";
import type { Agent, Figures, FleetEvent, Happening } from "../api/shapes";
import { Members, type Member } from "../members";
import { Model } from "../model";
import { Roster, type Wish } from "../roster";
import { settings } from "./settings.svelte";

/** How often the page moves for those who want it slowly. */
const SLOW = 5_000;
const BY_NAME: Wish = { query: "", column: "name", isDescending: false };

class Fleet {
  #model = new Model();
  #members = new Members();
  #byName = new Roster();
  /** How often the page was drawn, and the last time that more than load had changed. */
  #draws = $state(0);
  #edits = $state(0);
  #isDrawing = false;
  #isStale = false;
  #drawnAt = 0;
  #later: ReturnType<typeof setTimeout> | undefined;
  #feed = new EventFeed({
    event: (event) => this.#take(event),
    link: (link, retryAt) => this.#link(link, retryAt),
    unchanged: () => (this.heardAt = Date.now()),
  });

  link = $state<Link>("connecting");
  retryAt = $state(0);
  /** When something was heard last. */
  heardAt = $state(0);
  /** The version that this page was loaded with, and the one that runs by now. */
  loadedVersion = $state("");
  runningVersion = $state("");

  /** All agents by name: the same array while none of them moves. */
  members: readonly Member[] = $derived(this.list(this.#byName, BY_NAME));
  /** Their documents: made anew when more than load has changed, so load in it may be old. */
  documents: readonly Agent[] = $derived.by(() => {
    void this.#edits;
    return this.members.map((member) => member.document);
  });
  counts: Counts = $derived(this.#read(() => ({ ...this.#members.counts })));
  size: number = $derived(this.#read(() => this.#members.size));
  figures: Figures | undefined = $derived(this.#read(() => this.#model.figures));
  happenings: readonly Happening[] = $derived(this.#read(() => this.#model.happenings));
  isLoaded: boolean = $derived(this.#read(() => this.#model.instance !== ""));

  start(): void {
    this.#feed.start();
  }

  reconnect(): void {
    this.#feed.now();
  }

  agent(id: string): Agent | undefined {
    return this.#read(() => this.#members.get(id)?.agent);
  }

  /** Returns what some are like by now. */
  agentsOf(members: readonly Member[]): readonly Agent[] {
    return this.#read(() => members.map((member) => member.agent));
  }

  /** Returns who a roster has for a wish. */
  list(roster: Roster, wish: Wish): readonly Member[] {
    return this.#read(() => roster.list(this.#members, wish));
  }

  /** Makes what words are looked for in, so that the first letter of a word does not wait for it. */
  prepareSearch(): void {
    for (const member of this.#members) member.text("any");
  }

  /** Has whoever calls this run again with each draw. */
  follow(): void {
    void this.#draws;
  }

  /** The coordinator's clock, by which its times are told. */
  now(here: number): number {
    return here + this.#model.clockOffset;
  }

  /** Shows what has come while the page was paused. */
  draw(): void {
    clearTimeout(this.#later);
    this.#later = undefined;
    this.#drawnAt = Date.now();
    this.#isDrawing = false;
    this.#members.draw(this.#model.takeNews());
    this.#draws = this.#members.draws;
    this.#edits = this.#members.editedAt;
  }

  #read<T>(read: () => T): T {
    void this.#draws;
    return read();
  }

  #take(event: FleetEvent): boolean {
    const effect = this.#model.apply(event, Date.now());
    this.heardAt = Date.now();
    if (event.type === "snapshot") {
      this.loadedVersion ||= event.version;
      this.runningVersion = event.version;
      if (this.link !== "polling" && this.link !== "shared") this.link = "live";
      void this.#fetchHappenings();
    }
    if (effect === "changed") this.#changed(event.type === "snapshot");
    return effect !== "resync";
  }

  #link(link: Link, retryAt = 0): void {
    this.link = link;
    this.retryAt = retryAt;
  }

  #changed(isUrgent: boolean): void {
    if (settings.isPaused && !isUrgent) {
      this.#isStale = true;
      return;
    }
    const wait = isUrgent || settings.rate === "fast" ? 0 : this.#drawnAt + SLOW - Date.now();
    if (wait > 0) {
      this.#later ??= setTimeout(() => this.draw(), wait);
      return;
    }
    if (this.#isDrawing) return;
    this.#isDrawing = true;
    requestAnimationFrame(() => this.draw());
  }

  /** What happened before this page looked. */
  async #fetchHappenings(): Promise<void> {
    try {
      this.#model.addHappenings(await listHappenings());
      this.#changed(true);
    } catch {
      // The stream tells what happens from now on, and its end is shown.
    }
  }

  /** Goes on after a pause. */
  resume(): void {
    settings.isPaused = false;
    if (this.#isStale) this.draw();
    this.#isStale = false;
  }
}

export const fleet = new Fleet();
