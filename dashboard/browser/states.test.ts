/** Every panel in every state: not there yet, empty, nothing that matches, failed, unknown to this version. */

import type { Page } from "playwright-core";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Agent, Happening } from "../src/lib/api/shapes";
import { ToldFleet } from "./fixture";
import { CHROMIUM, Coordinator, Machine, openBrowser, openPage, Stage, until } from "./support";

const AN_ID = "00000000-0000-4000-8000-000000000000";
/** What a page says where there is nothing, with nothing that is known. */
const EMPTY: Record<string, string> = {
  "": "No machines yet",
  agents: "No machines yet",
  [`agents/${AN_ID}`]: "There is no such machine.",
  models: "No machine has a model yet.",
  requests: "No requests yet.",
  [`requests/${AN_ID}`]: "The log does not have this request",
  play: "No machine that gets requests has a model yet.",
  events: "Nothing has happened",
  nonsense: "There is no such page.",
};

let stage: Stage;
beforeEach(() => {
  stage = new Stage();
});
afterEach(() => stage.end());

async function open(url: string): Promise<Page> {
  return (await openPage(await openBrowser(stage), url)).page;
}

describe.skipIf(!CHROMIUM)("states", () => {
  test("until something is there each page has its shape, and says so when it takes long", async () => {
    const coordinator = await Coordinator.start(stage);
    const page = await open("about:blank");
    await page.route("**/api/**", () => undefined);

    const missing: string[] = [];
    for (const path of [...Object.keys(EMPTY), "settings"].filter((it) => it !== "nonsense")) {
      await page.goto(`${coordinator.url}/#/${path}`);
      const bones = await page
        .getByText("Loading…")
        .first()
        .waitFor({ state: "attached" })
        .then(
          () => true,
          () => false,
        );
      const isFramed = await page.getByRole("navigation").isVisible();
      if (!bones || !isFramed) missing.push(path);
    }
    await page.getByText("Still loading.").waitFor();

    expect(missing).toEqual([]);
  });

  test("where there is nothing yet, each page says what to do", async () => {
    const coordinator = await Coordinator.start(stage);
    const page = await open(coordinator.url);

    for (const [path, says] of Object.entries(EMPTY)) {
      await page.goto(`${coordinator.url}/#/${path}`);
      await page.getByText(says).first().waitFor();
    }

    expect(await page.getByRole("navigation").isVisible()).toBe(true);
  });

  test("what matches nothing is told apart from nothing, and cleared", async () => {
    const coordinator = await Coordinator.start(stage);
    await Machine.start(stage, coordinator, "gpu-1");
    const question = { model: "simulated-small", messages: [{ role: "user", content: "hi" }] };
    await until(
      () => coordinator.get<Agent[]>("/api/agents"),
      (agents) => agents[0]?.routable === true,
    );
    await (await coordinator.post("/api/chat", question)).text();
    const page = await open(coordinator.url);
    const shown: string[] = [];

    for (const [path, says] of [
      ["agents?q=zebra", "No machine matches “zebra”."],
      ["models?q=zebra", "No model matches “zebra”."],
      ["requests?outcome=failed", "No request matches."],
      ["events?q=zebra", "Nothing matches."],
    ] as const) {
      await page.goto(`${coordinator.url}/#/${path}`);
      await page.getByText(says).waitFor();
      await page.getByRole("button", { name: "Clear filter" }).click();
      await page.getByText(says).waitFor({ state: "detached" });
      await page.getByRole("row").nth(1).waitFor();
      shown.push(new URL(page.url()).hash);
    }

    expect(shown).toEqual(["#/agents", "#/models", "#/requests", "#/events"]);
  });

  test.each([
    ["requests", "**/api/requests*"],
    ["agents/ID", "**/api/requests*"],
    ["agents/ID", "**/api/history*"],
    ["", "**/api/history*"],
    ["settings", "**/api/about"],
  ])(
    "what fails on /%s (%s) is said there, keeps what was there, and is tried again",
    async (path, route) => {
      const coordinator = await Coordinator.start(stage);
      await Machine.start(stage, coordinator, "gpu-1");
      await Machine.start(stage, coordinator, "gpu-2");
      const agents = await until(
        () => coordinator.get<Agent[]>("/api/agents"),
        (seen) => seen.length === 2 && seen.every((agent) => agent.routable),
      );
      const page = await open(`${coordinator.url}/#/${path.replace("ID", agents[0]?.id ?? "")}`);
      await page.getByText("Loading…").first().waitFor({ state: "detached" });
      await until(
        () => page.locator("main").innerText(),
        (text) => text.length > 100,
      );
      const before = await page.locator("main h1, main h2").allInnerTexts();

      await page.route(route, (asked) =>
        asked.fulfill({ status: 500, json: { code: "internal", detail: "It broke." } }),
      );
      const failed = page.getByText("This could not be loaded: It broke. (internal)");
      await failed.first().waitFor();
      await page.getByText("What is shown is what was there before.").first().waitFor();
      const during = await page.locator("main h1, main h2").allInnerTexts();
      await page.unroute(route);
      await page.getByRole("button", { name: "Try again" }).first().click();

      await failed.first().waitFor({ state: "detached" });
      expect(during).toEqual(before);
    },
  );

  test("what a later coordinator says is shown as it is, and breaks nothing", async () => {
    const coordinator = await Coordinator.start(stage);
    const told = new ToldFleet(3);
    const later = "eaten_by_a_bear";
    Object.assign(told.agents[0] ?? {}, { routable: false, reason: later, link: "pigeon" });
    Object.assign(told.agents[1] ?? {}, { routable: true, reason: null, warning: "hums" });
    Object.assign(told.agents[2] ?? {}, { routable: false, reason: "paused", draining: false });
    told.happenings = [
      {
        number: 7,
        at: new Date().toISOString(),
        kind: "sang",
        agent_name: "gpu-01",
        reason: later,
      } as unknown as Happening,
    ];
    const url = await told.serve(stage, coordinator);
    const { page, wrongs } = await openPage(await openBrowser(stage), url);

    await page.getByText(`this page does not know the reason: ${later}`).waitFor();
    await page.getByText("this page does not know the reason: hums").waitFor();
    await page.getByRole("article").filter({ hasText: "gpu-03" }).getByText("paused").waitFor();
    await page.getByRole("link", { name: "Agents" }).click();
    await page.getByRole("row", { name: /gpu-01 eaten by a bear/ }).waitFor();
    await page.getByRole("searchbox").fill(`state:${later}`);
    await page.getByText("1 of 3 machines").waitFor();
    await page.getByRole("link", { name: "gpu-01" }).click();
    await page.getByText("pigeon").waitFor();
    await page.getByRole("link", { name: "Events" }).click();
    await page.getByRole("cell", { name: /sang/ }).waitFor();

    expect(wrongs).toEqual([]);
  });
});
