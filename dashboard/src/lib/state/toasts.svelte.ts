/** Short messages: what was done goes away by itself, what failed stays until it is closed. */

import { ApiError } from "../api/client";

export interface Toast {
  id: number;
  text: string;
  isError: boolean;
  undo?: (() => Promise<void>) | undefined;
}

const SHOWN_FOR = 4_000;
const UNDO_FOR = 8_000;

class Toasts {
  list = $state<Toast[]>([]);
  #next = 0;

  done(text: string, undo?: () => Promise<void>): void {
    const id = this.#add({ text, isError: false, undo });
    setTimeout(() => this.close(id), undo ? UNDO_FOR : SHOWN_FOR);
  }

  failed(text: string): void {
    this.#add({ text, isError: true });
  }

  /** Does something and says what came of it. */
  async attempt(
    action: () => Promise<void>,
    done?: string,
    undo?: () => Promise<void>,
  ): Promise<boolean> {
    try {
      await action();
      if (done) this.done(done, undo);
      return true;
    } catch (error) {
      this.failed(messageOf(error));
      return false;
    }
  }

  close(id: number): void {
    this.list = this.list.filter((toast) => toast.id !== id);
  }

  #add(toast: Omit<Toast, "id">): number {
    const id = this.#next++;
    this.list.push({ ...toast, id });
    return id;
  }
}

export function messageOf(error: unknown): string {
  if (error instanceof ApiError) return error.message;
  return error instanceof Error ? error.message : String(error);
}

export const toasts = new Toasts();
