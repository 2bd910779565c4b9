/** Pictures of every page, for those who change it and for the README: `npm run shots`. */

import { mkdirSync } from "node:fs";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Agent, Request } from "../src/lib/api/shapes";
import { ToldFleet } from "./fixture";
import { Coordinator, Machine, NewMachine, openBrowser, Stage, until } from "./support";

const OUT = "shots";
const LOOKS = {
  light: { colorScheme: "light", viewport: { width: 1280, height: 900 } },
  dark: { colorScheme: "dark", viewport: { width: 1280, height: 900 } },
  phone: { colorScheme: "light", viewport: { width: 375, height: 740 }, hasTouch: true },
} as const;

const stage = new Stage();
let coordinator: Coordinator;
let pages: Record<string, string>;

beforeAll(async () => {
  mkdirSync(OUT, { recursive: true });
  coordinator = await Coordinator.start(stage);
  await Machine.start(stage, coordinator, "gpu-01");
  await Machine.start(stage, coordinator, "gpu-02", { tokensPerSecond: 4, answerTokens: 2_000 });
  const agents = await until(
    () => coordinator.get<Agent[]>("/api/agents"),
    (seen) => seen.length === 2 && seen.every((agent) => agent.routable),
  );
  const question = { model: "simulated-small", messages: [{ role: "user", content: "hi" }] };
  for (let time = 0; time < 12; time += 1) {
    const model = time % 5 === 3 ? "qwen3:235b" : "simulated-small";
    await (await coordinator.post("/api/chat?agent=gpu-01", { ...question, model })).text();
  }
  for (let time = 0; time < 3; time += 1) {
    // It runs until the coordinator ends.
    void coordinator.post("/api/chat?agent=gpu-02", question).catch(() => undefined);
  }
  const [asked] = await coordinator.get<Request[]>("/api/requests?outcome=success");
  pages = {
    agent: `agents/${agents[0]?.id ?? ""}`,
    models: "models",
    requests: "requests",
    request: `requests/${asked?.id ?? ""}`,
    play: "play",
    compare: "play?compare=1",
    events: "events",
    search: "?search=1",
    join: "?join=1",
    cancel: "requests",
    settings: "settings",
  };
});
afterAll(() => stage.end());

async function shoot(page: Page, name: string): Promise<void> {
  await page.getByText("Live", { exact: true }).waitFor();
  await page.waitForTimeout(1_200);
  await page.screenshot({ path: `${OUT}/${name}.png` });
}

test.each(["light", "dark", "phone"] as const)("pages: %s", async (look) => {
  const own = new Stage();
  const context = await openBrowser(own, LOOKS[look]);
  const page = await context.newPage();
  for (const [name, path] of Object.entries(pages)) {
    await page.goto(`${coordinator.url}/#/${path}`);
    if (name === "play") {
      await page.getByLabel(/^Machine/).selectOption({ label: "gpu-01" });
      await page.getByLabel("Message").fill("Which machine are you?");
      await page.getByRole("button", { name: "Send" }).click();
      await page.getByRole("button", { name: "Why?" }).click();
      await page.getByRole("link", { name: "Details" }).waitFor();
    }
    if (name === "compare") {
      await page.getByRole("button", { name: "New chat" }).click();
      await page.getByLabel(/^Machine/).selectOption({ label: "gpu-01" });
      await page.getByLabel(/^Second model/).selectOption("simulated-small:latest");
      await page.getByLabel(/^Second machine/).selectOption({ label: "gpu-02" });
      await page.getByLabel("Message").fill("Which machine are you?");
      await page.getByRole("button", { name: "Send" }).click();
      await page.getByRole("button", { name: "Why?" }).nth(1).waitFor();
    }
    if (name === "search") await page.getByRole("dialog").getByRole("combobox").fill("gpu");
    if (name === "cancel") {
      await page
        .getByRole("button", { name: /^Cancel…/ })
        .first()
        .click();
    }
    await shoot(page, `${name}-${look}`);
  }
  await own.end();
  expect(Object.keys(pages).length).toBe(11);
});

test.each([0, 1, 12, 300, 10_000])("a fleet of %i", async (size) => {
  const told = new ToldFleet(size);
  const url = await told.serve(stage, coordinator);
  for (const [look, options] of Object.entries(LOOKS)) {
    const own = new Stage();
    const context = await openBrowser(own, options);
    const page = await context.newPage();
    await page.goto(url);
    await shoot(page, `overview-${size}-${look}`);
    if (size >= 12) {
      await page.goto(`${url}/#/agents`);
      await shoot(page, `agents-${size}-${look}`);
    }
    if (size === 300) {
      await page.goto(`${url}/#/?group=room`);
      await page.getByLabel("Show machines as").selectOption("map");
      await shoot(page, `overview-grouped-${look}`);
    }
    if (size === 12) {
      await page.goto(`${url}/#/agents/${told.agents[0]?.id ?? ""}`);
      await shoot(page, `agent-told-${look}`);
    }
    await own.end();
  }
  expect(told.agents.length).toBe(size);
});

test.each(["light", "dark", "phone"] as const)("the panel of an agent: %s", async (look) => {
  const own = new Stage();
  const machine = await NewMachine.start(own);
  const page = await (await openBrowser(own, LOOKS[look])).newPage();
  const shot = (name: string): Promise<Buffer> =>
    page.screenshot({ path: `${OUT}/panel-${name}-${look}.png`, fullPage: true });
  await page.goto(await machine.link());
  await shot("new");
  await page.getByRole("textbox", { name: "Coordinator" }).fill("127.0.0.1:9");
  await page.getByRole("textbox", { name: "Requests at once" }).fill("many");
  await page.getByRole("button", { name: "Test connection" }).click();
  await shot("broken");
  await page.getByRole("textbox", { name: "Coordinator" }).fill(coordinator.url);
  await page.getByRole("textbox", { name: "Requests at once" }).fill("4");
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByRole("heading", { name: "The runtime does not answer" }).waitFor();
  await shot("saved");
  await page.getByRole("button", { name: "Pause 1 hour" }).click();
  await page.getByRole("heading", { name: "Paused for another 1 h" }).waitFor();
  await shot("paused");
  await own.end();
  expect(machine.url).toContain("127.0.0.1");
});
