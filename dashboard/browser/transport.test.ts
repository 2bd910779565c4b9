/** Live updates where they are hard to have: restarts, proxies, many tabs, a pause. */

import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  CHROMIUM,
  Coordinator,
  Machine,
  mark,
  openBrowser,
  openPage,
  Stage,
  startProxy,
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
    await card.getByText("ready").waitFor();
    const isMarked = await mark(page);

    await coordinator.stop("SIGKILL");
    await page.getByText("This is the last known state.").waitFor();
    await card.waitFor();
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
    const proxied = await startProxy(stage, coordinator.url, "/", "streams");
    const { page, wrongs } = await openPage(await openBrowser(stage), proxied);

    await page.getByText("proxy_buffering off").waitFor();
    await Machine.start(stage, coordinator, "gpu-1");

    await page.getByRole("article").filter({ hasText: "gpu-1" }).waitFor();
    expect(wrongs).toEqual([]);
  });

  test("every page works below a prefix, and tells clients of it", async () => {
    const coordinator = await Coordinator.start(stage);
    await Machine.start(stage, coordinator, "gpu-1");
    const proxied = await startProxy(stage, coordinator.url, "/a/b/", "nothing");
    const { page, wrongs } = await openPage(await openBrowser(stage), proxied);

    await page.getByText(`${proxied}v1`, { exact: true }).waitFor();
    for (const name of ["Agents", "Models", "Requests", "Events", "Settings", "Playground"]) {
      await page.getByRole("navigation").getByRole("link", { name }).click();
      await page.getByRole("heading", { name, level: 1 }).waitFor();
    }
    await page.getByLabel("Message").fill("Hello");
    await page.getByRole("button", { name: "Send" }).click();
    await page.getByRole("button", { name: "Why?" }).waitFor();

    expect(wrongs).toEqual([]);
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

  test("what fails is said in the page, keeps what was there, and can be tried again", async () => {
    const coordinator = await Coordinator.start(stage);
    const { page } = await openPage(await openBrowser(stage), `${coordinator.url}/#/requests`);
    await page.getByText("No requests yet.").waitFor();

    await page.route("**/api/requests*", (asked) => asked.fulfill({ status: 500, body: "{}" }));
    await page.getByText("This could not be loaded").waitFor();
    await page.getByText("No requests yet.").waitFor();
    await page.unroute("**/api/requests*");
    await page.getByRole("button", { name: "Try again" }).click();

    await page.getByText("This could not be loaded").waitFor({ state: "detached" });
    expect(await page.getByText("No requests yet.").count()).toBe(1);
  });
});
