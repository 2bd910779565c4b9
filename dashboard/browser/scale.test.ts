/** Budgets with ten thousand machines, in a browser that is four times slower than this one. */

import { readdirSync, statSync } from "node:fs";
import type { CDPSession, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ToldFleet } from "./fixture";
import { CHROMIUM, Coordinator, openBrowser, Stage } from "./support";

const AGENTS = 10_000;
const SITE = "dist/site/assets";
const KB = 1024;

const stage = new Stage();
let page: Page;
let wrongs: string[];
let session: CDPSession;
let requested: string[];

function compressed(pattern: RegExp): number {
  const files = readdirSync(SITE).filter((name) => pattern.test(name));
  return files.reduce((sum, name) => sum + statSync(`${SITE}/${name}`).size, 0);
}

/** Runs in the page: how long until an action is seen, in milliseconds of the slowed browser. */
async function painted(action: () => Promise<unknown>): Promise<number> {
  const began = await page.evaluate(() => performance.now());
  await action();
  return page.evaluate(
    (start) =>
      new Promise<number>((done) =>
        requestAnimationFrame(() => setTimeout(() => done(performance.now() - start))),
      ),
    began,
  );
}

test("everything together, and the pages of one visit, are small", () => {
  const all = compressed(/\.js\.br$/);
  const charts = compressed(/^plot-.*\.js\.br$/);
  const styles = compressed(/\.css\.br$/);
  const first = compressed(/^(index|format)-.*\.js\.br$/);
  console.log(
    `brotli: first page ${first}, with charts ${first + charts}, all ${all}, CSS ${styles} bytes`,
  );

  expect(first).toBeGreaterThan(0);
  expect(first).toBeLessThan(45 * KB);
  expect(all).toBeLessThan(120 * KB);
  expect(styles).toBeLessThan(10 * KB);
});

describe.skipIf(!CHROMIUM)("ten thousand machines", () => {
  beforeAll(async () => {
    const coordinator = await Coordinator.start(stage);
    const url = await new ToldFleet(AGENTS).serve(stage, coordinator);
    const context = await openBrowser(stage);
    page = await context.newPage();
    session = await context.newCDPSession(page);
    await session.send("Emulation.setCPUThrottlingRate", { rate: 4 });
    requested = [];
    page.on("request", (asked) => requested.push(asked.url()));
    wrongs = [];
    page.on("pageerror", (error) => wrongs.push(error.message));
    await page.goto(`${url}/#/agents`);
    await page.getByText("10,000 machines").waitFor({ timeout: 60_000 });
  });
  afterAll(() => stage.end());

  test("the page is there soon and with few requests", async () => {
    const paint = await page.evaluate(() => {
      const [first] = performance.getEntriesByName("first-contentful-paint");
      return first?.startTime ?? Number.NaN;
    });
    const before = await page.evaluate((until) => {
      const entries = performance.getEntriesByType("resource") as PerformanceResourceTiming[];
      return entries.filter((it) => it.startTime < until && /\.(js|css)$/.test(it.name)).length;
    }, paint);
    const strangers = requested.filter((url) => !url.startsWith(new URL(page.url()).origin));
    console.log(
      `first paint ${Math.round(paint)} ms at a quarter of the speed, ${before + 1} requests before it`,
    );

    expect(paint).toBeLessThan(4_000);
    expect(before + 1).toBeLessThanOrEqual(8);
    expect(strangers).toEqual([]);
    expect(wrongs).toEqual([]);
  });

  test("only rows in view are in the document", async () => {
    const nodes = (): Promise<number> => page.evaluate(() => document.querySelectorAll("*").length);
    const rows = page.getByRole("table");
    const atTop = await nodes();

    await page.getByRole("region", { name: "Agents" }).evaluate((it) => it.scrollTo(0, 180_000));
    await page.waitForTimeout(300);
    const inMiddle = await nodes();
    console.log(`${atTop} nodes at the top, ${inMiddle} in the middle`);

    expect(await rows.getAttribute("aria-rowcount")).toBe(String(AGENTS + 1));
    expect(Math.max(atTop, inMiddle)).toBeLessThan(1_500);
  });

  test("a keystroke in the filter is seen at once", async () => {
    const filter = page.getByRole("searchbox");
    await filter.focus();
    const times: number[] = [];
    for (const key of "state:re") times.push(await painted(() => page.keyboard.press(key)));
    times.sort((a, b) => a - b);
    console.log(`filter: ${times.map(Math.round).join(" ")} ms at a quarter of the speed`);

    expect(times[Math.floor(times.length / 2)]).toBeLessThan(500);
    await filter.fill("");
  });

  test("twenty seconds of ticks leave the heap as it was", async () => {
    const heap = async (): Promise<number> => {
      await session.send("HeapProfiler.collectGarbage");
      const { usedSize } = await session.send("Runtime.getHeapUsage");
      return usedSize;
    };
    await page.waitForTimeout(3_000);
    const before = await heap();
    await page.waitForTimeout(20_000);
    const after = await heap();
    console.log(
      `heap ${(before / KB / KB).toFixed(1)} MB, after 20 s ${(after / KB / KB).toFixed(1)} MB`,
    );

    expect(after - before).toBeLessThan(10 * KB * KB);
  });
});
