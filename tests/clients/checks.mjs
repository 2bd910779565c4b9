// What the checks share.

export const LIMIT = 20;
export const QUESTION = [{ role: "user", content: "Why is the sky blue?" }];
// A picture of one white dot.
export const PICTURE =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==";
export const FUNCTION = {
  type: "function",
  function: {
    name: "weather",
    description: "Tells the weather of a city.",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};

/** Fails with what was seen instead. */
export function expect(condition, ...seen) {
  if (!condition) throw new Error(`saw ${JSON.stringify(seen)}`);
}

/** Returns what a call throws. */
export async function thrownBy(call) {
  try {
    await call();
  } catch (error) {
    return error;
  }
  throw new Error("nothing was thrown");
}

/** Returns once `look` returns something true. */
export async function waitFor(what, look, seconds = 20) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const seen = await look();
    if (seen) return;
    if (Date.now() > deadline) throw new Error(`waited ${seconds} s for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Begins a stream, leaves it by what `begin` returns, and expects the runtime to see that. */
export async function expectAbort(target, begin) {
  await waitFor("an idle runtime", async () => (await sum(target, "in_flight")) === 0);
  const before = await sum(target, "cancelled");
  const leave = await begin();
  expect((await sum(target, "in_flight")) === 1, "nothing was in flight");
  await leave();
  await waitFor("the runtime to see that its client has left", async () => {
    const cancelled = await sum(target, "cancelled");
    return cancelled === before + 1 && (await sum(target, "in_flight")) === 0;
  });
}

async function sum(target, counter) {
  let total = 0;
  for (const url of target.runtimes) {
    const answer = await fetch(`${url}/simulated/record`);
    total += (await answer.json())[counter];
  }
  return total;
}
