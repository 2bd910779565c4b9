/** Live updates where they are hard to have: restarts, proxies, many tabs, a pause. */

import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Agent } from "../src/lib/api/shapes";
import { ToldFleet } from "./fixture";
import {
  CHROMIUM,
  Coordinator,
  Machine,
  mark,
  openBrowser,
  openPage,
  Proxy,
  Stage,
  until,
} from "./support";

let stage: Stage;
beforeEach(() => {
  stage = new Stage();
});
afterEach(() => stage.end());

describe.skipIf(!CHROMIUM)("live updates", () => {
  test("a restart of the coordinator is survived, and what is shown meanwhile is called old", async () => {
    const coordinator = await Coordinator.start(stage);
    await Machine.start(stage, coordinator, "gpu-1");
    const { page, wrongs } = await openPage(await openBrowser(stage), coordinator.url);
    const card = page.getByRole("article").filter({ hasText: "gpu-1" });
    await card.getByText("ready", { exact: true }).waitFor();
    const isMarked = await mark(page);

    await coordinator.stop("SIGKILL");
    await page.getByText("This is the last known state.").waitFor();
    await card.waitFor();
    expect(await page.locator("html.stale").count()).toBe(1);
    await coordinator.restart();
    await page.getByText("This is the last known state.").waitFor({ state: "detached" });
    await page.getByText("Live", { exact: true }).waitFor();
    await Machine.start(stage, coordinator, "gpu-2");

    await page.getByRole("article").filter({ hasText: "gpu-2" }).waitFor();
    expect(await isMarked()).toBe(true);
    expect(wrongs).toEqual([]);
  });

  test("behind a proxy that holds back streams the page asks, and says why", async () => {
    const coordinator = await Coordinator.start(stage);
    const proxy = await Proxy.start(stage, coordinator.url, { holdsStreams: true });
    const { page, wrongs } = await openPage(await openBrowser(stage), proxy.url);

    await page.getByText("proxy_buffering off").waitFor();
    await Machine.start(stage, coordinator, "gpu-1");

    await page.getByRole("article").filter({ hasText: "gpu-1" }).waitFor();
    expect(wrongs).toEqual([]);
  });

  test("whoever asks again is told in few bytes that nothing has changed, and of what has", async () => {
    const coordinator = await Coordinator.start(stage);
    await coordinator.post("/api/agents", { machine_name: "quiet", ip_address: "10.255.0.1" });
    const proxy = await Proxy.start(stage, coordinator.url, { holdsStreams: true });
    const { page, wrongs } = await openPage(await openBrowser(stage), proxy.url);
    const named = (name: string): Promise<void> =>
      page.getByRole("heading", { name, exact: true }).waitFor();
    await named("quiet");

    const unchanged = await until(
      () => proxy.snapshots.filter(({ status }) => status === 304),
      (seen) => seen.length > 1,
      40_000,
    );
    expect(unchanged.every(({ bytes }) => bytes === 0)).toBe(true);
    expect(await page.locator("html.stale").count()).toBe(0);
    const [agent] = await coordinator.get<Agent[]>("/api/agents");
    await coordinator.patch(`/api/agents/${agent?.id ?? ""}`, { display_name: "renamed" });

    await named("renamed");
    expect(wrongs).toEqual([]);
  });

  test("every page works below a prefix, and tells clients of it", async () => {
    const coordinator = await Coordinator.start(stage);
    await Machine.start(stage, coordinator, "gpu-1");
    const proxy = await Proxy.start(stage, coordinator.url, { prefix: "/a/b/" });
    const { page, wrongs } = await openPage(await openBrowser(stage), proxy.url);

    await page.getByText(`${proxy.url}v1`, { exact: true }).waitFor();
    for (const name of ["Agents", "Models", "Requests", "Events", "Settings", "Playground"]) {
      await page.getByRole("navigation").getByRole("link", { name }).click();
      await page.getByRole("heading", { name, level: 1 }).waitFor();
    }
    await page.getByLabel("Message").fill("Hello");
    await page.getByRole("button", { name: "Send" }).click();
    await page.getByRole("button", { name: "Why?" }).waitFor();

    expect(wrongs).toEqual([]);
  });

  test("below a prefix that a proxy leaves on, the browser is told what to change", async () => {
    const coordinator = await Coordinator.start(stage);
    const context = await openBrowser(stage);

    const { page } = await openPage(context, `${coordinator.url}/a/b/`);

    await page.getByText("must take the prefix off").waitFor();
    expect(await page.title()).toBe("Not found");
  });

  test("a stream that is cut goes on where it was, with what happened meanwhile", async () => {
    const coordinator = await Coordinator.start(stage);
    await Machine.start(stage, coordinator, "gpu-1");
    const proxy = await Proxy.start(stage, coordinator.url);
    const { page, wrongs } = await openPage(await openBrowser(stage), proxy.url);
    await page.getByText("Live", { exact: true }).waitFor();
    const [agent] = await coordinator.get<Agent[]>("/api/agents");
    const isMarked = await mark(page);

    proxy.cut();
    await coordinator.patch(`/api/agents/${agent?.id ?? ""}`, { display_name: "big one" });

    await page.getByRole("heading", { name: "big one" }).waitFor();
    await until(
      () => proxy.beginnings.length,
      (streams) => streams === 2,
    );
    await until(
      () => proxy.beginnings[1],
      (begun) => begun !== "",
    );
    expect(proxy.beginnings[0]).toContain('"snapshot"');
    expect(proxy.beginnings[1]).not.toContain('"snapshot"');
    expect(await isMarked()).toBe(true);
    expect(wrongs).toEqual([]);
  });

  test("a coordinator that was updated says so, and what is typed stays", async () => {
    const coordinator = await Coordinator.start(stage);
    const told = new ToldFleet(3);
    const url = await told.serve(stage, coordinator);
    const { page } = await openPage(await openBrowser(stage), `${url}/#/play`);
    await page.getByLabel("Message").fill("half a thought");

    told.version = "0.2.0";
    told.cut();

    await page.getByText("The coordinator was updated to 0.2.0.").waitFor();
    expect(await page.getByLabel("Message").inputValue()).toBe("half a thought");
    await page.getByRole("button", { name: "Reload the page" }).click();
    await page.getByText("Live", { exact: true }).waitFor();
    expect(await page.getByText("was updated").count()).toBe(0);
  });

  test.each([-3_600_000, 3_600_000])("a clock that is %i ms off changes no age", async (skew) => {
    const coordinator = await Coordinator.start(stage);
    const told = new ToldFleet(3, skew);
    const url = await told.serve(stage, coordinator);
    const { page } = await openPage(await openBrowser(stage), url);
    await page.getByText("Live", { exact: true }).waitFor();
    const gone = told.agents[1];

    const lastSeen = new Date(Date.now() + skew - 840_000).toISOString();
    const reason = "offline" as const;
    told.change(1, { status: "offline", routable: false, reason, last_seen: lastSeen });

    const card = page.getByRole("article").filter({ hasText: gone?.machine_name ?? "" });
    await card.getByText("Heard of 14 min").waitFor();
    expect(await card.getByText("offline").count()).toBe(1);
  });

  test("whoever wants it slowly gets it every five seconds", async () => {
    const coordinator = await Coordinator.start(stage);
    const told = new ToldFleet(3);
    const url = await told.serve(stage, coordinator);
    const { page } = await openPage(await openBrowser(stage), `${url}/#/settings`);
    await page.getByLabel("Live updates are shown").selectOption("slow");
    await page.getByRole("link", { name: "Overview" }).click();
    await page.getByRole("article").first().waitFor();
    const began = Date.now();

    for (let name = 1; name <= 3; name += 1) {
      told.change(0, { display_name: `name-${name}` });
      await page
        .getByRole("article")
        .filter({ hasText: `name-${name}` })
        .waitFor();
    }

    expect(Date.now() - began).toBeGreaterThan(9_000);
  });

  test("seven tabs are all usable, and no more than four have a stream", async () => {
    const coordinator = await Coordinator.start(stage);
    const context = await openBrowser(stage);
    const pages = [];
    for (let tab = 0; tab < 7; tab += 1) {
      const page = await context.newPage();
      await page.goto(coordinator.url);
      await page.getByRole("heading", { name: "No machines yet" }).waitFor();
      pages.push(page);
    }

    await Machine.start(stage, coordinator, "gpu-1");
    for (const page of pages) {
      await page.getByRole("article").filter({ hasText: "gpu-1" }).waitFor();
    }

    const live = pages.map((page) => page.getByText("Live", { exact: true }).count());
    const streams = (await Promise.all(live)).reduce((sum, count) => sum + count, 0);
    expect(streams).toBeLessThanOrEqual(4);
    expect(streams).toBeGreaterThan(0);
  });

  test("a page that is paused does not move until it is resumed", async () => {
    const coordinator = await Coordinator.start(stage);
    await Machine.start(stage, coordinator, "gpu-1");
    const { page } = await openPage(await openBrowser(stage), coordinator.url);
    await page.getByRole("article").filter({ hasText: "gpu-1" }).waitFor();

    await page.keyboard.press("p");
    await page.getByText("Paused").waitFor();
    await Machine.start(stage, coordinator, "gpu-2");
    const second = page.getByRole("article").filter({ hasText: "gpu-2" });
    await fetch(`${coordinator.url}/api/events/snapshot`);
    await page.waitForTimeout(1_500);
    expect(await second.count()).toBe(0);
    await page.getByRole("button", { name: "Resume live updates" }).click();

    await second.waitFor();
  });

  test("whoever may only look is told who can let them do more", async () => {
    const coordinator = await Coordinator.start(stage);
    await Machine.start(stage, coordinator, "gpu-1");
    const proxy = await Proxy.start(stage, coordinator.url, { isReadOnly: true });
    const { page } = await openPage(await openBrowser(stage), proxy.url);

    await page.getByRole("button", { name: "Drain" }).click();

    const refusal = page
      .getByRole("alert")
      .filter({ hasText: "whoever runs that proxy can let you" });
    await refusal.waitFor();
    const [agent] = await coordinator.get<Agent[]>("/api/agents");
    expect(agent?.draining).toBe(false);
    await refusal.getByRole("button", { name: "Close" }).click();
    await refusal.waitFor({ state: "detached" });
  });
});
