/** What open dashboards cost the coordinator: `npm run viewers`, with PROFILE=release for figures. */

import { readFileSync } from "node:fs";
import { get } from "node:http";
import { expect, test } from "vitest";
import { Coordinator, Stage, startFleet } from "./support";

const AGENTS = 1_000;
const VIEWERS = 100;
const SECONDS = 15;
const TICKS_PER_SECOND = 100;
const MB = 1024 * 1024;

/** Seconds of processor time that a process has used, and the bytes that it has in memory. */
function usage(pid: number): { cpu: number; memory: number } {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  const pages = Number(readFileSync(`/proc/${pid}/statm`, "utf8").split(" ")[1]);
  return {
    cpu: (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND,
    memory: pages * 4096,
  };
}

const pause = (seconds: number): Promise<void> =>
  new Promise((done) => setTimeout(done, seconds * 1_000));

test(`${VIEWERS} viewers of ${AGENTS} agents`, { timeout: 300_000 }, async () => {
  const stage = new Stage();
  const coordinator = await Coordinator.start(stage);
  await startFleet(stage, coordinator, AGENTS);
  let received = 0;
  const measure = async (): Promise<{ core: number; memory: number; received: number }> => {
    await pause(5);
    const [before, bytes] = [usage(coordinator.pid), received];
    await pause(SECONDS);
    const after = usage(coordinator.pid);
    const core = ((after.cpu - before.cpu) / SECONDS) * 100;
    return { core, memory: after.memory / MB, received: (received - bytes) / SECONDS };
  };

  const alone = await measure();
  for (let viewer = 0; viewer < VIEWERS; viewer += 1) {
    const asked = get(`${coordinator.url}/api/events?brief=true`, (answer) => {
      answer.on("data", (chunk: Buffer) => (received += chunk.length));
    });
    asked.on("error", () => undefined);
    stage.ends(() => void asked.destroy());
  }
  const watched = await measure();
  await stage.end();

  const extra = { core: watched.core - alone.core, memory: watched.memory - alone.memory };
  console.log(
    `alone ${alone.core.toFixed(1)} % of a core, ${alone.memory.toFixed(0)} MB; ` +
      `watched ${watched.core.toFixed(1)} %, ${watched.memory.toFixed(0)} MB, ` +
      `${(watched.received / VIEWERS / 1024).toFixed(1)} KB/s to each; ` +
      `a viewer costs ${(extra.core / VIEWERS).toFixed(2)} % and ` +
      `${((extra.memory * 1024) / VIEWERS).toFixed(0)} KB`,
  );
  expect(watched.received).toBeGreaterThan(0);
});
