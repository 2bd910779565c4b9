/** The conversation of the playground: kept while the tab is open, nowhere else. */

import { chat as ask, type ChatMessage } from "../api/client";
import { messageOf } from "./toasts.svelte";

/** Whom a question is for: a model, and a machine if it is to be a certain one. */
export interface Target {
  model: string;
  agent: string;
}

export class Answer {
  text = $state("");
  thinking = $state("");
  agent = $state("");
  request = $state("");
  tokens = $state<number>();
  firstMs = $state<number>();
  totalMs = $state<number>();
  error = $state("");
  state = $state<"waiting" | "answering" | "done" | "stopped">("waiting");

  constructor(readonly target: Target) {}

  get isRunning(): boolean {
    return this.state === "waiting" || this.state === "answering";
  }

  /** Asks, and takes what is said as it comes. */
  async ask(messages: readonly ChatMessage[], stop: AbortSignal): Promise<void> {
    const began = performance.now();
    const passed = (): number => performance.now() - began;
    try {
      await ask(
        { ...this.target, messages },
        (said) => {
          if (said.started) {
            this.agent = said.started.agent ?? "";
            this.request = said.started.request ?? "";
          }
          if (said.text || said.thinking) {
            this.firstMs ??= passed();
            this.state = "answering";
          }
          this.text += said.text ?? "";
          this.thinking += said.thinking ?? "";
          this.tokens = said.tokens ?? this.tokens;
        },
        stop,
      );
      this.state = "done";
    } catch (error) {
      this.state = "stopped";
      if (!stop.aborted) this.error = messageOf(error);
    }
    this.totalMs = passed();
  }
}

/** A question and its answers: two where two are compared. */
export interface Turn {
  question: string;
  answers: readonly Answer[];
}

class Chat {
  turns = $state.raw<readonly Turn[]>([]);
  #stop: AbortController | undefined;

  get isRunning(): boolean {
    return this.turns.at(-1)?.answers.some((answer) => answer.isRunning) ?? false;
  }

  /** Returns the conversation as one side has it: what only the other one has said is not in it. */
  messages(side = 0): ChatMessage[] {
    return this.turns.flatMap(({ question, answers }) => {
      const text = (answers[side] ?? answers[0])?.text;
      return [
        { role: "user" as const, content: question },
        ...(text ? [{ role: "assistant" as const, content: text }] : []),
      ];
    });
  }

  async send(question: string, targets: readonly Target[]): Promise<void> {
    const stop = new AbortController();
    this.#stop = stop;
    const answers = targets.map((target) => new Answer(target));
    this.turns = [...this.turns, { question, answers }];
    await Promise.all(answers.map((answer, side) => answer.ask(this.messages(side), stop.signal)));
  }

  /** Breaks off the answers, which ends the work on the machines too. */
  stop(): void {
    this.#stop?.abort();
  }

  clear(): void {
    this.stop();
    this.turns = [];
  }
}

export const chat = new Chat();
