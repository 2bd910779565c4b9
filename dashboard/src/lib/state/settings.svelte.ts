/** What this browser remembers of how somebody likes the page. */

export type Theme = "system" | "light" | "dark";
/** How often the page moves. */
export type Rate = "fast" | "slow";
export type Layout = "auto" | "cards" | "table" | "map";

const KEY = "ollama-coordinator";

interface Kept {
  theme: Theme;
  layout: Layout;
  shortcuts: boolean;
  rate: Rate;
}

function load(): Partial<Kept> {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? "{}") as Partial<Kept>;
  } catch {
    return {};
  }
}

class Settings {
  #kept = $state<Kept>({
    theme: "system",
    layout: "auto",
    shortcuts: true,
    rate: "fast",
    ...load(),
  });
  isPaused = $state(false);

  get theme(): Theme {
    return this.#kept.theme;
  }

  set theme(theme: Theme) {
    this.#kept.theme = theme;
    this.#save();
    this.applyTheme();
  }

  get layout(): Layout {
    return this.#kept.layout;
  }

  set layout(layout: Layout) {
    this.#kept.layout = layout;
    this.#save();
  }

  get shortcuts(): boolean {
    return this.#kept.shortcuts;
  }

  set shortcuts(areOn: boolean) {
    this.#kept.shortcuts = areOn;
    this.#save();
  }

  get rate(): Rate {
    return this.#kept.rate;
  }

  set rate(rate: Rate) {
    this.#kept.rate = rate;
    this.#save();
  }

  applyTheme(): void {
    const root = document.documentElement;
    if (this.theme === "system") delete root.dataset["theme"];
    else root.dataset["theme"] = this.theme;
  }

  #save(): void {
    try {
      localStorage.setItem(KEY, JSON.stringify(this.#kept));
    } catch {
      // Without storage it holds until the page is closed.
    }
  }
}

export const settings = new Settings();
