/** The conversation of the playground: kept while the tab is open, nowhere else. */

import { chat as ask, type ChatMessage } from "../api/client";
import { messageOf } from "./toasts.svelte";

export class Turn {
  question = $state("");
  answer = $state("");
  thinking = $state("");
  agent = $state("");
  request = $state("");
  tokens = $state<number>();
  firstMs = $state<number>();
  totalMs = $state<number>();
  error = $state("");
  state = $state<"waiting" | "answering" | "done" | "stopped">("waiting");

  constructor(
    question: string,
    readonly model: string,
  ) {
    this.question = question;
  }
}

class Chat {
  turns = $state<Turn[]>([]);
  #stop: AbortController | undefined;

  get isRunning(): boolean {
    const last = this.turns.at(-1);
    return last?.state === "waiting" || last?.state === "answering";
  }

  get messages(): ChatMessage[] {
    return this.turns.flatMap((turn) => [
      { role: "user" as const, content: turn.question },
      ...(turn.answer ? [{ role: "assistant" as const, content: turn.answer }] : []),
    ]);
  }

  async send(question: string, model: string, agent: string): Promise<void> {
    const turn = new Turn(question, model);
    this.turns.push(turn);
    const stop = new AbortController();
    this.#stop = stop;
    const began = performance.now();
    const passed = (): number => performance.now() - began;
    try {
      await ask(
        { model, agent, messages: this.messages },
        (said) => {
          if (said.started) {
            turn.agent = said.started.agent ?? "";
            turn.request = said.started.request ?? "";
          }
          if (said.text || said.thinking) {
            turn.firstMs ??= passed();
            turn.state = "answering";
          }
          turn.answer += said.text ?? "";
          turn.thinking += said.thinking ?? "";
          turn.tokens = said.tokens ?? turn.tokens;
        },
        stop.signal,
      );
      turn.state = "done";
    } catch (error) {
      turn.state = "stopped";
      if (!stop.signal.aborted) turn.error = messageOf(error);
    }
    turn.totalMs = passed();
  }

  /** Breaks off the answer, which ends the work on the machine too. */
  stop(): void {
    this.#stop?.abort();
  }

  clear(): void {
    this.stop();
    this.turns = [];
  }
}

export const chat = new Chat();
