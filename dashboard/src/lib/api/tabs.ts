/**
 * How many tabs of this browser have a stream open. A browser makes six connections to one address,
 * and all tabs share them: with a stream in each of six, a seventh could load nothing.
 */

const NAME = "ollama-coordinator-streams";
const SAY_EVERY = 5_000;
const FORGET_AFTER = 15_000;

interface Said {
  tab: number;
  /** When its stream was opened; 0: it has none. */
  since: number;
  /** Others are to say the same. */
  asks: boolean;
}

export class Tabs {
  #tab = crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
  #since = 0;
  #others = new Map<number, { since: number; heard: number }>();
  #channel = new BroadcastChannel(NAME);

  /** `changed` is called when others may have opened a stream. */
  constructor(changed: () => void) {
    this.#channel.onmessage = ({ data }: MessageEvent<Said>) => {
      if (data.since > 0) this.#others.set(data.tab, { since: data.since, heard: Date.now() });
      else this.#others.delete(data.tab);
      if (data.asks) this.#say(false);
      changed();
    };
    setInterval(() => this.#say(false), SAY_EVERY);
  }

  opened(): void {
    this.#since = Date.now();
    this.#say(true);
  }

  closed(): void {
    if (this.#since === 0) return;
    this.#since = 0;
    this.#say(false);
  }

  /** Returns how many streams were opened before this tab's, or would be. */
  get before(): number {
    const now = Date.now();
    const since = this.#since || now;
    let before = 0;
    for (const [tab, other] of this.#others) {
      const isGone = now - other.heard > FORGET_AFTER;
      const isBefore = other.since < since || (other.since === since && tab < this.#tab);
      if (!isGone && isBefore) before += 1;
    }
    return before;
  }

  #say(asks: boolean): void {
    if (this.#since === 0 && !asks && this.#others.size === 0) return;
    this.#channel.postMessage({ tab: this.#tab, since: this.#since, asks } satisfies Said);
  }
}
