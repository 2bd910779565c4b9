/** The same question for a terminal or a program. Pure. */

import type { ChatMessage } from "./api/client";

export const SNIPPETS = ["curl", "Python", "JavaScript"] as const;
export type Snippet = (typeof SNIPPETS)[number];

export function snippet(
  kind: Snippet,
  base: string,
  model: string,
  messages: readonly ChatMessage[],
): string {
  const body = JSON.stringify({ model, messages: messages.map(plain) }, null, 2);
  switch (kind) {
    case "curl":
      return `curl ${base}/v1/chat/completions -H 'content-type: application/json' -d '${body.replaceAll("'", "'\\''")}'`;
    case "Python":
      return [
        "from openai import OpenAI",
        "",
        `client = OpenAI(base_url=${JSON.stringify(`${base}/v1`)}, api_key="none")`,
        "answer = client.chat.completions.create(",
        `    model=${JSON.stringify(model)},`,
        `    messages=${JSON.stringify(messages.map(plain))},`,
        ")",
        "print(answer.choices[0].message.content)",
      ].join("\n");
    case "JavaScript":
      return [
        `const answer = await fetch(${JSON.stringify(`${base}/v1/chat/completions`)}, {`,
        '  method: "POST",',
        '  headers: { "content-type": "application/json" },',
        `  body: JSON.stringify(${body.replaceAll("\n", "\n  ")}),`,
        "});",
        "console.log((await answer.json()).choices[0].message.content);",
      ].join("\n");
  }
}

const plain = ({ role, content }: ChatMessage): ChatMessage => ({ role, content });
