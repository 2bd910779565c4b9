/** What people do with the dashboard, from the first machine to the last. */

import type { Locator } from "playwright-core";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Agent, History, Request } from "../src/lib/api/shapes";
import { ToldFleet } from "./fixture";
import {
  CHROMIUM,
  Coordinator,
  Machine,
  mark,
  openBrowser,
  openPage,
  Stage,
  until,
} from "./support";

let stage: Stage;
beforeEach(() => {
  stage = new Stage();
});
afterEach(() => stage.end());

describe.skipIf(!CHROMIUM)("journeys", () => {
  test("from nothing to an answer, and why that machine gave it", async () => {
    const coordinator = await Coordinator.start(stage, ["--dev"]);
    const { page, wrongs } = await openPage(await openBrowser(stage), coordinator.url);

    await page.getByRole("article").filter({ hasText: "simulated-1" }).waitFor();
    await page.getByRole("link", { name: "Playground" }).click();
    await page.getByLabel("Message").fill("Hello");
    await page.getByLabel("Message").press("Enter");
    await page.getByRole("button", { name: "Why?" }).click();

    await page.getByText(/It was the only one|in memory|least to do|chance decided/).waitFor();
    await page.getByRole("link", { name: "Details" }).click();
    await page.getByRole("heading", { name: "Timeline" }).waitFor();
    await page.getByText("answered").first().waitFor();
    expect(wrongs).toEqual([]);
  });

  test("an empty coordinator gets its first machine and an answer within a minute", async () => {
    const began = Date.now();
    const coordinator = await Coordinator.start(stage);
    const { page, wrongs } = await openPage(await openBrowser(stage), coordinator.url);
    await page.getByRole("heading", { name: "No machines yet" }).waitFor();
    await page.getByText(`ollama-agent --coordinator ${coordinator.url}`).waitFor();

    await Machine.start(stage, coordinator, "gpu-1");
    await page.getByRole("heading", { name: "gpu-1", level: 1 }).waitFor();
    await page.getByRole("link", { name: "Playground" }).click();
    await page.getByLabel("Message").fill("Hello");
    await page.getByLabel("Message").press("Enter");

    await page.getByText(/first token/).waitFor();
    const took = (Date.now() - began) / 1_000;
    console.log(`from nothing to an answer: ${took.toFixed(1)} s`);
    expect(took).toBeLessThan(60);
    expect(wrongs).toEqual([]);
  });

  test("a machine that joins, is refused, drains, dies and returns is shown without a reload", async () => {
    const coordinator = await Coordinator.start(stage);
    const { page, wrongs } = await openPage(await openBrowser(stage), coordinator.url);
    await page.getByRole("heading", { name: "No machines yet" }).waitFor();
    const isMarked = await mark(page);

    await coordinator.post("/api/agents", {
      machine_name: "bad-one",
      ip_address: "169.254.169.254",
    });
    await page.getByText("bad-one was refused").waitFor();
    const machine = await Machine.start(stage, coordinator, "gpu-7");
    const card = page.getByRole("article").filter({ hasText: "gpu-7" });
    await card.getByText("ready", { exact: true }).waitFor();
    await machine.stopRuntime();
    await page.getByText("Start Ollama on that machine.").waitFor();
    await machine.kill();
    await card.getByText("offline", { exact: true }).waitFor();

    await page.getByText("gpu-7 is not heard of.").waitFor();
    expect(await page.title()).toContain("(1!)");
    expect(await isMarked()).toBe(true);
    expect(wrongs).toEqual([]);
  });

  test("an operator renames, resizes and drains with undo, and forgets a machine", async () => {
    const coordinator = await Coordinator.start(stage);
    await Machine.start(stage, coordinator, "gpu-1");
    const context = await openBrowser(stage);
    const { page, wrongs } = await openPage(context, `${coordinator.url}/#/agents`);
    const undo = page.getByRole("button", { name: "Undo" }).last();

    await page.getByRole("link", { name: "gpu-1" }).click();
    await page.getByRole("button", { name: "Edit" }).click();
    const capacity = page.getByRole("spinbutton", { name: "Requests at once" });
    expect(await capacity.inputValue()).toBe("");
    await capacity.fill("2");
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText("0 / 2", { exact: true }).waitFor();
    await undo.click();
    await page.getByText("0 / 4", { exact: true }).waitFor();
    await page.getByRole("button", { name: "Edit" }).click();
    await page.getByRole("textbox", { name: "Name" }).fill("big one");
    await page.getByRole("textbox", { name: "Labels" }).fill("room=101\ngpu=big");
    await page.getByRole("textbox", { name: "Notes" }).fill("loud");
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByRole("heading", { name: "big one" }).waitFor();
    await page.getByText("room=101").waitFor();
    await page.getByRole("button", { name: "Drain" }).click();
    await page.getByText("big one gets no new requests").waitFor();
    await undo.click();
    await page.getByRole("button", { name: "Drain" }).waitFor();
    await page.getByRole("button", { name: "Forget…" }).click();
    expect(await page.evaluate(() => document.activeElement?.textContent)).toBe("Cancel");
    await page.getByRole("button", { name: "Forget big one" }).click();

    await page.getByRole("heading", { name: "Agents" }).waitFor();
    expect(wrongs).toEqual([]);
  });

  test("a model is pulled with its progress, and deleted when its name is typed", async () => {
    const coordinator = await Coordinator.start(stage);
    await Machine.start(stage, coordinator, "gpu-1", { transferTime: "2s" });
    const { page, wrongs } = await openPage(
      await openBrowser(stage),
      `${coordinator.url}/#/models`,
    );

    await page.getByLabel("Pull a model").last().fill("llama3.2");
    await page.getByRole("button", { name: "Pull" }).click();
    await page.getByRole("progressbar").waitFor();
    await page.getByText("llama3.2 is on gpu-1").waitFor();
    await page
      .getByRole("cell", { name: /llama3.2/ })
      .first()
      .waitFor();
    await page
      .getByRole("link", { name: /^gpu-1/ })
      .first()
      .click();
    await page
      .getByRole("row", { name: /llama3.2/ })
      .getByRole("button")
      .click();
    const dialog = page.getByRole("dialog");
    const verb = dialog.getByRole("button", { name: /^Delete/ });
    expect(await verb.isDisabled()).toBe(true);
    await dialog.getByRole("textbox").fill("llama3.2:latest");
    await verb.click();

    await page.getByText("is deleted on gpu-1").waitFor();
    await page.getByRole("row", { name: /llama3.2/ }).waitFor({ state: "detached" });
    expect(wrongs).toEqual([]);
  });

  test("stop ends the work on the machine within a second", async () => {
    const coordinator = await Coordinator.start(stage);
    await Machine.start(stage, coordinator, "gpu-1", { tokensPerSecond: 10, answerTokens: 500 });
    const { page } = await openPage(await openBrowser(stage), `${coordinator.url}/#/play`);
    const live = (): Promise<Request[]> => coordinator.get("/api/requests?state=live");

    await page.getByLabel("Message").fill("Tell me a long story");
    await page.getByRole("button", { name: "Send" }).click();
    await until(live, (requests) => requests[0]?.state === "streaming");
    await page.getByRole("button", { name: "Stop" }).click();

    await until(live, (requests) => requests.length === 0, 1_000);
    const [ended] = await coordinator.get<Request[]>("/api/requests");
    expect(ended?.outcome).toBe("cancelled");
    await page.getByText("stopped").waitFor();
  });

  test("two machines answer the same question side by side, and are stopped together", async () => {
    const coordinator = await Coordinator.start(stage);
    for (const name of ["gpu-1", "gpu-2"]) {
      await Machine.start(stage, coordinator, name, { tokensPerSecond: 20, answerTokens: 2_000 });
    }
    await until(
      () => coordinator.get<Agent[]>("/api/agents"),
      (agents) => agents.length === 2 && agents.every((agent) => agent.routable),
    );
    const { page, wrongs } = await openPage(await openBrowser(stage), `${coordinator.url}/#/play`);
    const live = (): Promise<Request[]> => coordinator.get("/api/requests?state=live");
    const answers = page.getByRole("article").getByRole("group");

    await page.getByRole("button", { name: "Compare" }).click();
    await page.getByLabel(/^Model/).selectOption("simulated-small:latest");
    await page.getByLabel(/^Machine/).selectOption({ label: "gpu-1" });
    await page.getByLabel(/^Second model/).selectOption("simulated-small:latest");
    await page.getByLabel(/^Second machine/).selectOption({ label: "gpu-2" });
    await page.getByLabel("Message").fill("Who are you?");
    await page.getByLabel("Message").press("Enter");
    await until(live, (requests) => requests.filter((it) => it.state === "streaming").length === 2);
    for (const [side, name] of ["gpu-1", "gpu-2"].entries()) {
      await answers.nth(side).getByRole("link", { name }).waitFor();
      const text = (): Promise<number> =>
        answers
          .nth(side)
          .innerText()
          .then((seen) => seen.length);
      const before = await text();
      await until(text, (length) => length > before);
    }
    await page.getByRole("button", { name: "Stop both" }).click();

    await until(live, (requests) => requests.length === 0);
    await page.getByText("stopped").nth(1).waitFor();
    await answers.nth(1).getByRole("button", { name: "Why?" }).click();
    await answers.nth(1).getByRole("link", { name: "Details" }).waitFor();
    expect(page.url()).toContain("compare=1");
    expect(page.url()).toContain("model2=simulated-small");
    expect(wrongs).toEqual([]);
  });

  test("the overview tells when the first tokens came, and of nothing before any did", async () => {
    const coordinator = await Coordinator.start(stage);
    for (const name of ["gpu-1", "gpu-2"]) await Machine.start(stage, coordinator, name);
    await until(
      () => coordinator.get<Agent[]>("/api/agents"),
      (agents) => agents.length === 2 && agents.every((agent) => agent.routable),
    );
    const { page, wrongs } = await openPage(await openBrowser(stage), coordinator.url);
    const figure = page
      .getByLabel("The fleet now")
      .getByText(/^P95 first token/)
      .locator("..");
    await figure.waitFor();
    expect(await figure.innerText()).toContain("–");
    const question = { model: "simulated-small", messages: [{ role: "user", content: "hi" }] };

    await (await coordinator.post("/api/chat", question)).text();

    await until(
      () => figure.innerText(),
      (seen) => /\d+ ms|\d s/.test(seen),
    );
    const past = await coordinator.get<History>("/api/history");
    const told = past.series["first_token_p95_ms"] ?? [];
    expect(told[0]).toBeNull();
    expect(told.some((value) => value != null && value > 0)).toBe(true);
    expect(wrongs).toEqual([]);
  });

  test("charts of a machine are pointed at together", async () => {
    const coordinator = await Coordinator.start(stage);
    const told = new ToldFleet(2);
    const url = await told.serve(stage, coordinator);
    const id = told.agents[0]?.id ?? "";
    const { page, wrongs } = await openPage(await openBrowser(stage), `${url}/#/agents/${id}`);
    const time = (title: string): Locator =>
      page
        .locator("figure")
        .filter({ has: page.getByRole("heading", { name: title, exact: true }) })
        .locator("figcaption")
        .getByText(/^\d\d:\d\d:\d\d$/);

    await page.locator(".u-over").first().waitFor();
    await page.getByRole("img", { name: /^Load\./ }).hover();

    const pointed = await time("Load").innerText();
    expect(await time("Memory in use").innerText()).toBe(pointed);
    expect(await time("Running requests").innerText()).toBe(pointed);
    await page.getByRole("heading", { level: 1 }).hover();
    await time("Memory in use").waitFor({ state: "detached" });
    expect(wrongs).toEqual([]);
  });

  test("a request that runs is cancelled, and its client is told by whom", async () => {
    const coordinator = await Coordinator.start(stage);
    await Machine.start(stage, coordinator, "gpu-1", { tokensPerSecond: 10, answerTokens: 500 });
    await until(
      () => coordinator.get<Agent[]>("/api/agents"),
      (agents) => agents[0]?.routable === true,
    );
    const context = await openBrowser(stage);
    const { page, wrongs } = await openPage(context, `${coordinator.url}/#/requests`);
    const question = { model: "simulated-small", messages: [{ role: "user", content: "hi" }] };
    const asking = coordinator.post("/api/chat", question).then((answer) => answer.text());

    await page.getByRole("button", { name: /^Cancel…/ }).click();
    const dialog = page.getByRole("dialog", { name: "Cancel the request for simulated-small?" });
    await dialog.getByText("What gpu-1 has written so far").waitFor();
    for (let look = 0; look < 3; look += 1) await page.waitForResponse("**/api/requests*");
    expect(await page.evaluate(() => document.activeElement?.textContent)).toBe("Let it run");
    await dialog.getByRole("button", { name: "Cancel the request" }).click();

    await page.getByRole("row", { name: /simulated-small.*cancelled/ }).waitFor();
    await page.getByText("Nothing runs.").waitFor();
    expect(await asking).toContain('{"error":"the request was cancelled by an operator"}');
    const [agent] = await coordinator.get<Agent[]>("/api/agents");
    expect(agent?.in_flight).toBe(0);
    await page
      .getByRole("row", { name: /cancelled/ })
      .getByRole("link")
      .first()
      .click();
    await page.getByText("cancelled by operator").waitFor();
    expect(await page.getByRole("button", { name: /^Cancel…/ }).count()).toBe(0);
    expect(wrongs).toEqual([]);
  });

  test("Enter that ends a composition does not send", async () => {
    const coordinator = await Coordinator.start(stage);
    await Machine.start(stage, coordinator, "gpu-1");
    const { page } = await openPage(await openBrowser(stage), `${coordinator.url}/#/play`);
    const message = page.getByLabel("Message");
    await page
      .getByRole("option", { name: /simulated/ })
      .first()
      .waitFor({ state: "attached" });
    await message.fill("日本語で");

    await message.dispatchEvent("keydown", { key: "Enter", isComposing: true, bubbles: true });
    await message.dispatchEvent("compositionend", {});
    await message.dispatchEvent("keydown", { key: "Enter", keyCode: 229, bubbles: true });
    expect(await message.inputValue()).toBe("日本語で");
    expect(await page.getByRole("article").count()).toBe(0);
    await until(
      async () => {
        await message.press("Enter");
        return page.getByRole("article").count();
      },
      (sent) => sent === 1,
    );

    expect(await message.inputValue()).toBe("");
  });

  test("requests are listed as they run, filtered by the URL, and explained", async () => {
    const coordinator = await Coordinator.start(stage);
    await Machine.start(stage, coordinator, "gpu-1");
    const context = await openBrowser(stage);
    const { page, wrongs } = await openPage(context, `${coordinator.url}/#/requests`);
    await page.getByText("No requests yet.").waitFor();
    const question = { model: "simulated-small", messages: [{ role: "user", content: "hi" }] };

    await until(
      () => coordinator.get<{ routable: boolean }[]>("/api/agents"),
      (agents) => agents[0]?.routable === true,
    );
    await coordinator.post("/api/chat", { ...question, model: "nothing" });
    await (await coordinator.post("/api/chat", question)).text();
    await page.getByRole("row", { name: /answered 200/ }).waitFor();
    await page.getByRole("row", { name: /refused 404/ }).waitFor();
    await page.getByLabel("Outcome").selectOption("refused");
    await page.getByRole("row", { name: /answered 200/ }).waitFor({ state: "detached" });
    expect(page.url()).toContain("outcome=refused");
    await page.reload();
    await page.getByRole("row", { name: /refused 404/ }).waitFor();
    await page.getByLabel("Outcome").selectOption("cancelled");
    await page.getByText("No request matches.").waitFor();

    expect(wrongs).toEqual([]);
  });

  test("events tell what happened, and problems can be told apart", async () => {
    const coordinator = await Coordinator.start(stage);
    const machine = await Machine.start(stage, coordinator, "gpu-1");
    const context = await openBrowser(stage);
    const { page, wrongs } = await openPage(context, `${coordinator.url}/#/events`);

    await page.getByText("gpu-1 joined").waitFor();
    await machine.kill();
    await page.getByText("gpu-1 is offline").waitFor();
    await page.getByLabel("Only problems").check();
    await page.getByText("gpu-1 joined").waitFor({ state: "detached" });

    await page.getByText("gpu-1 is offline").waitFor();
    expect(wrongs).toEqual([]);
  });
});
