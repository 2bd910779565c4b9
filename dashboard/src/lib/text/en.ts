/** The texts in English. */

import type { State } from "../agents";
import type { Happening } from "../api/shapes";
import type { Column } from "../columns";

const plural = (n: number, one: string, many: string): string =>
  `${n.toLocaleString("en-US")} ${n === 1 ? one : many}`;
const machines = (n: number): string => plural(n, "machine", "machines");

export const en = {
  product: "Ollama Coordinator",
  brand: "coordinator",
  skip: "Skip to content",
  nav: {
    label: "Pages",
    overview: "Overview",
    agents: "Agents",
    models: "Models",
    requests: "Requests",
    play: "Playground",
    events: "Events",
    settings: "Settings",
  },
  machines,
  none: "–",
  now: "now",
  close: "Close",
  cancel: "Cancel",
  save: "Save",
  copy: "Copy",
  copied: "Copied",
  copyByHand: "Press Ctrl-C to copy",
  all: "all",
  loading: "Loading…",
  stillLoading: "Still loading. A large fleet takes a moment over a slow line.",
  retry: "Try again",
  undo: "Undo",
  filter: "Filter",
  copyCsv: "Copy as CSV",
  copyJson: "Copy as JSON",
  viewAsTable: "View as table",
  time: "Time",
  live: {
    live: "Live",
    connecting: "Connecting…",
    polling: "Limited",
    shared: "Every 3 s",
    down: "Not connected",
    paused: "Paused",
    pause: "Pause live updates",
    resume: "Resume live updates",
    stale: (seconds: number) => `Not updating for ${seconds} s. This is the last known state.`,
    retrying: (seconds: number) => `Connecting again in ${seconds} s.`,
    retryNow: "Connect now",
    pollingWhy:
      "Live updates are limited: something between this browser and the coordinator holds streams back, so the page asks every few seconds. For nginx: proxy_buffering off; for Traefik and Caddy nothing is needed.",
    updated: (version: string) => `The coordinator was updated to ${version}.`,
    reload: "Reload the page",
  },
  state: {
    ready: "ready",
    busy: "busy",
    starting: "starting",
    draining: "draining",
    paused: "paused",
    troubled: "in trouble",
    offline: "offline",
  } satisfies Record<State, string>,
  reason: (reason: string): string => {
    switch (reason) {
      case "offline":
        return "not heard of";
      case "draining":
        return "draining";
      case "paused":
        return "paused on the machine";
      case "unverified":
        return "not reached yet";
      case "unreachable":
        return "not reachable";
      case "no_tunnel":
        return "no tunnel";
      case "runtime_not_answering":
        return "runtime not answering";
      case "ejected":
        return "failing";
      case "heartbeats_missing":
        return "missed heartbeats";
      // A code that this version does not know.
      default:
        return reason.replaceAll("_", " ");
    }
  },
  /** What is wrong, what we do about it, what a person can do. */
  problem: (reason: string, name: string, address: string): [string, string, string] => {
    switch (reason) {
      case "offline":
        return [
          `${name} is not heard of.`,
          "Its requests go to other machines, and it is back by itself when its agent runs.",
          "Check that the machine is on and that ollama-agent runs on it.",
        ];
      case "draining":
        return [
          `${name} gets no new requests because somebody asked for that.`,
          "Requests that run there may finish.",
          "Resume it when it may work again.",
        ];
      case "paused":
        return [
          `${name} is paused on the machine itself, by whoever uses it.`,
          "Requests that run there may finish; further ones go to other machines.",
          "It is resumed there: in the tray, in its settings, or with: ollama-agent resume",
        ];
      case "unverified":
        return [
          `${name} has registered, and its runtime has not been reached yet.`,
          `We are trying ${address}.`,
          "This takes a second or two.",
        ];
      case "unreachable":
        return [
          `Nothing answers at ${address}.`,
          "We try again every few seconds; its requests go to other machines.",
          "Let Ollama on it listen on the network (OLLAMA_HOST=0.0.0.0), and check its firewall.",
        ];
      case "no_tunnel":
        return [
          `${name} lives, but its connection for requests is not there.`,
          "The agent opens it again by itself; requests go to other machines.",
          "If this stays, look at the agent's log on that machine.",
        ];
      case "runtime_not_answering":
        return [
          `The agent on ${name} runs, and its runtime does not answer.`,
          "We send it requests again as soon as the runtime answers.",
          "Start Ollama on that machine.",
        ];
      case "ejected":
        return [
          `${name} failed on several requests in a row.`,
          "It gets none for a while, then one to prove itself.",
          "Look at its latest requests, and at the runtime's log.",
        ];
      case "heartbeats_missing":
        return [
          `${name} has missed heartbeats.`,
          "Its runtime answers, so it still gets requests for now.",
          "Check its network.",
        ];
      default:
        return [
          `${name} is not as usual, and this page does not know the reason: ${reason}.`,
          "The coordinator sends it requests only while it is routable.",
          "Reload the page if the coordinator was updated, and look at the machine's events.",
        ];
    }
  },
  weDo: "What we do:",
  youCan: "What you can do:",
  overview: {
    title: "Overview",
    figures: "The fleet now",
    ready: (ready: number, known: number) =>
      `${ready.toLocaleString("en-US")} of ${machines(known)} ready`,
    running: "running",
    waiting: "waiting",
    tokens: "tok/s",
    requests: "requests/min",
    failures: "failed/min",
    attention: (n: number) => plural(n, "thing needs attention", "things need attention"),
    more: (n: number) => `${n.toLocaleString("en-US")} more`,
    manyAre: (n: number, state: string) => `${machines(n)}: ${state}.`,
    show: "Show",
    dismiss: "Dismiss for 1 h",
    refused: (name: string, address: string) => `${name} (${address}) was refused.`,
    machines: "Machines",
    layout: "Show machines as",
    layouts: { auto: "automatic", cards: "cards", table: "table", map: "map" },
    requestsChart: "Requests per minute",
    tokensChart: "Tokens per second",
    firstToken: "P95 first token",
    firstTokenChart: "Time to first token",
    ok: "answered",
    failed: "failed",
    useIt: "Use it",
    ollamaHost: "Ollama clients",
    openAi: "OpenAI base URL",
    here: "On this computer",
    elsewhere: "On other computers",
    onlyHere:
      "This coordinator listens only on this computer. Start it without --dev, or with --host, to let others in.",
    viaProxy: "This is the address under which you opened this page.",
  },
  join: {
    title: "Add a machine",
    empty: "No machines yet",
    intro: "Run this on a computer that has Ollama:",
    waiting: "Waiting for the first machine. This page changes by itself.",
    otherAddress: "The coordinator's address on the network",
    localhostWarning:
      "You opened this page at localhost, which other machines cannot use. So this is its address on the network:",
    live: "As it happens",
    nothing: "A machine that joins, or is refused, is shown here.",
    joined: (name: string) => `${name} joined`,
    refused: (name: string) => `${name} was refused`,
    open: "Open",
  },
  agents: {
    title: "Agents",
    placeholder: "gpu:a6000 -state:ready room=101",
    help: "Words are looked for in names, addresses, GPUs and labels. state: gpu: model: loaded: os: version: label=value; a minus in front means not.",
    clear: "Clear filter",
    noMatch: (query: string) => `No machine matches “${query}”.`,
    caption: "Agents",
    columns: {
      name: "Name",
      state: "State",
      gpu: "GPU",
      vram: "GPU memory",
      load: "GPU load",
      running: "Running",
      models: "Models",
      seen: "Heard of",
      address: "Address",
      link: "Link",
      os: "System",
      cpu: "CPU load",
      memory: "Memory in use",
      runtime: "Runtime",
      agent: "Agent",
      labels: "Labels",
    } satisfies Record<Column, string>,
    choose: "Columns",
    usual: "As usual",
    moved: (n: number) => `${plural(n, "row", "rows")} would move.`,
    applyOrder: "Apply order",
    shown: (n: number, all: number) =>
      n === all ? machines(n) : `${n.toLocaleString("en-US")} of ${machines(all)}`,
    select: (name: string) => `Select ${name}`,
    selected: (n: number) => `${machines(n)} selected`,
    map: "State of each machine",
    doing: (done: number, all: number) =>
      `${done.toLocaleString("en-US")} of ${all.toLocaleString("en-US")} done`,
    stopHere: "Stop here",
    andMore: (n: number) => `and ${n.toLocaleString("en-US")} more`,
    groupBy: "Group by",
    noGroup: "nothing",
    groupless: "without",
    partlyDone: (done: number, failed: number) => `${done} done, ${failed} failed`,
  },
  agent: {
    pausedUntil: (moment: string) => `The pause ends by itself: ${moment}.`,
    unknown: "There is no such machine. It may have been forgotten.",
    rename: "Edit…",
    labels: "Labels",
    drain: "Drain",
    resume: "Resume",
    forget: "Forget…",
    drained: (name: string) => `${name} gets no new requests`,
    resumed: (name: string) => `${name} gets requests again`,
    saved: "Saved",
    forgotten: (name: string) => `${name} is forgotten`,
    forgetTitle: (name: string) => `Forget ${name}?`,
    forgetText: (name: string, running: number) =>
      `${running > 0 ? `${plural(running, "request runs", "requests run")} there and may finish. ` : ""}Its name, labels and notes are lost. If the agent on ${name} still runs, it registers again at once.`,
    forgetVerb: (name: string) => `Forget ${name}`,
    forgetMany: (n: number) => `Forget ${machines(n)}`,
    typeToConfirm: (word: string) => `Type ${word} to confirm`,
    renameTitle: (name: string) => `Edit ${name}`,
    displayName: "Name",
    displayNameHelp: (machine: string) => `Empty: what the machine calls itself, ${machine}.`,
    labelsHelp: "One per line, such as room=101.",
    notesLabel: "Notes",
    capacityLabel: "Requests at once",
    capacityHelp: "Empty: what the agent says. Requests that run already are not touched.",
    now: "Now",
    gpuLoad: "GPU",
    gpuMemory: "GPU memory",
    cpuLoad: "CPU",
    memory: "Memory",
    running: "Running",
    temperature: "Temperature",
    chartLoad: "Load",
    chartMemory: "Memory in use",
    chartRunning: "Running requests",
    chartTokens: "Tokens per second",
    chartLatency: "Time to first byte of recent requests",
    system: "Machine",
    os: "System",
    cpu: "Processor",
    cores: (n: number) => plural(n, "core", "cores"),
    gpus: "GPUs",
    noGpus: "none",
    runtime: "Runtime",
    agentVersion: "Agent",
    address: "Address",
    link: "Way to the runtime",
    links: { tunnel: "tunnel", direct: "direct" } as Record<string, string>,
    registered: "Registered",
    seen: "Heard of",
    id: "Id",
    epoch: "Sessions",
    models: "Models",
    noModels: "No models. Pull one:",
    loaded: "In memory",
    notLoaded: "no",
    until: "until",
    requests: "Latest requests",
    noRequests: "No requests yet.",
    events: "Events",
    noEvents: "Nothing has happened since the coordinator started.",
    unknownValue: "not told",
  },
  models: {
    title: "Models",
    none: "No machine has a model yet.",
    noMatch: (query: string) => `No model matches “${query}”.`,
    caption: "Models",
    name: "Name",
    size: "Size",
    on: "On",
    inMemory: "In memory on",
    actions: "Actions",
    chat: "Chat",
    pull: "Pull a model",
    model: "Model",
    machine: "Machine",
    start: "Pull",
    stop: "Stop",
    pulling: (model: string, name: string) => `Pulling ${model} onto ${name}`,
    pulled: (model: string, name: string) => `${model} is on ${name}`,
    pullFailed: (model: string, name: string, why: string) =>
      `${model} did not come to ${name}: ${why}`,
    stopped: "Stopped",
    delete: "Delete…",
    deleteTitle: (model: string, name: string) => `Delete ${model} on ${name}?`,
    deleteText: (size: string) =>
      `The model's files (${size}) are removed from that machine. Getting it back means downloading it again.`,
    deleteVerb: (model: string) => `Delete ${model}`,
    deleted: (model: string, name: string) => `${model} is deleted on ${name}`,
    onlyOllama: "Only machines with Ollama that get requests are offered.",
  },
  requests: {
    title: "Requests",
    running: "Running",
    history: "History",
    nothingRuns: "Nothing runs.",
    cancel: "Cancel…",
    cancelTitle: (name: string) => `Cancel the request for ${name}?`,
    cancelText: (client: string, agent: string | undefined) =>
      `The client at ${client} is told that an operator cancelled it. ${
        agent
          ? `What ${agent} has written so far is the end of the answer.`
          : "It leaves the queue."
      }`,
    cancelVerb: "Cancel the request",
    keep: "Let it run",
    cancelled: (name: string) => `The request for ${name} is cancelled`,
    none: "No requests yet. Try this, or the playground:",
    noMatch: "No request matches.",
    notStored: "Prompts and answers are not stored. The log is in memory and ends with a restart.",
    model: "Model",
    agent: "Agent",
    outcome: "Outcome",
    anyOutcome: "any",
    outcomes: {
      success: "answered",
      failed: "failed",
      cancelled: "cancelled",
      refused: "refused",
    } as Record<string, string>,
    states: {
      arriving: "arriving",
      queued: "waiting",
      attempting: "waiting for the first byte",
      streaming: "answering",
      ended: "ended",
    } as Record<string, string>,
    position: (n: number) => `number ${n} in the queue`,
    columns: {
      time: "Time",
      model: "Model",
      agent: "Agent",
      api: "API",
      state: "State",
      firstByte: "First byte",
      duration: "Duration",
      tokens: "Tokens",
      rate: "tok/s",
      client: "Client",
    },
    back: "All requests",
    unknown: "The log does not have this request, or no longer.",
    timeline: "Timeline",
    queue: "queue",
    wait: (name: string) => `${name}: until the first byte`,
    failedAttempt: (name: string, why: string) => `${name}: ${why}`,
    answer: "answer",
    why: "Why this machine",
    whyWord: (reason: string): string =>
      ({
        only: "It was the only one that could take the request.",
        warm: "It had the model in memory.",
        fits: "The model fits its free GPU memory.",
        least_loaded: "It had the least to do.",
        random: "It was as good as others, and chance decided.",
        turn: "It was its turn.",
        weight: "Chance decided, in proportion to capacity.",
        affinity: "It has answered this conversation before.",
        probation: "It had failed before, and this request was to prove it.",
        panic: "Every machine was failing, so any was tried.",
        freed: "It was the first to have a slot free.",
      })[reason] ?? reason,
    candidates: (n: number) => `${machines(n)} had the model.`,
    whyNot: {
      not_routable: "gets no requests",
      other_api: "speaks another API",
      not_named: "not named by the client",
      tried: "tried before",
      no_model: "lacks the model",
      ejected: "failing",
      busy: "busy",
      full: "all slots taken",
    } as Record<string, string>,
    warm: "in memory",
    cold: "not in memory",
    score: "score",
    picked: "picked",
    details: "Details",
    id: "Request id",
    status: "Status",
    bytes: "Bytes",
    chunks: "Chunks",
    promptTokens: "Prompt tokens",
    answerTokens: "Answer tokens",
    streamed: "streamed",
    whole: "in one piece",
    withKey: "with a key",
  },
  play: {
    title: "Playground",
    targets: [
      { model: "Model", agent: "Machine" },
      { model: "Second model", agent: "Second machine" },
    ] as const,
    compare: "Compare",
    onMachines: (name: string, n: number) => `${name}, on ${machines(n)}`,
    automatic: "automatic",
    message: "Message",
    placeholder: "Message…",
    hint: "Enter sends, Shift+Enter makes a new line",
    send: "Send",
    stop: "Stop",
    stopBoth: "Stop both",
    clear: "New chat",
    noModels: "No machine that gets requests has a model yet.",
    you: "You",
    thinking: "Thinking",
    why: "Why?",
    tokens: (n: number) => plural(n, "token", "tokens"),
    firstByte: (time: string) => `first token ${time}`,
    speed: (rate: string) => `${rate} tok/s`,
    stopped: "stopped",
    copyAs: "Copy as",
    empty: "Ask something. The machine that answers, and why it does, stands below each answer.",
    kept: "The conversation is kept in this tab only.",
    answering: "The model is answering",
    answered: "The model has answered",
  },
  events: {
    title: "Events",
    none: "Nothing has happened since the coordinator started.",
    noMatch: "Nothing matches.",
    caption: "Events",
    when: "When",
    what: "What",
    problems: "Only problems",
    kept: "The last 1,000 are kept in memory and are lost at a restart.",
  },
  happening: (happening: Happening, reason: (code: string) => string): string => {
    const name = happening.agent_name ?? happening.agent_id ?? happening.address ?? "";
    const why = happening.reason ? reason(happening.reason) : "";
    switch (happening.kind) {
      case "joined":
        return `${name} joined`;
      case "returned":
        return `${name} is back`;
      case "expired":
        return `${name} is offline: it was silent for too long`;
      case "heartbeats_missing":
        return `${name} is silent, but its runtime answers: it stays online for now`;
      case "left":
        return `${name} said goodbye`;
      case "routable":
        return `${name} gets requests`;
      case "not_routable":
        return `${name} gets no requests: ${why}`;
      case "removed":
        return `${name} was forgotten`;
      case "refused":
        return `${name} was refused: ${why}`;
      case "endpoint_shared":
        return `Two agents front one runtime, at ${happening.address ?? ""}: stop one of them`;
      case "isolation_suspected":
        return `${machines(happening.agents ?? 0)} fell silent at once: this coordinator may be the one that is cut off`;
      // A kind that this version does not know.
      default:
        return [name, String(happening.kind).replaceAll("_", " "), why].filter(Boolean).join(": ");
    }
  },
  refusal: (code: string): string =>
    ({
      wrong_secret: "another agent with this id is known, and the secret is not the same",
      duplicate_identity: "another live process uses its identity; it makes itself a new one",
      address_not_allowed: "its address is one that the coordinator does not dial",
      invalid_request: "its registration breaks a rule",
      registry_full: "the registry is full",
      storage_unavailable: "it could not be stored; see the coordinator's log",
    })[code] ?? code.replaceAll("_", " "),
  settings: {
    title: "Settings",
    look: "Look",
    rate: "Live updates are shown",
    rates: { fast: "as they come, once a second", slow: "every five seconds" },
    theme: "Theme",
    themes: { system: "as the system", light: "light", dark: "dark" },
    language: "Language",
    english: "English",
    keyboard: "Keyboard",
    shortcuts: "Single-key shortcuts",
    shortcutList:
      "/ filter · g then o, a, m, r, p, e: pages · j and k next and previous row, Enter opens it, x selects it · s apply order · p pause · Ctrl K or ⌘K search · ? this page",
    about: "About",
    version: "Version",
    started: "Started",
    instance: "Run",
    addresses: "Addresses for other machines",
    history: "History",
    historyOf: (spans: string) =>
      `Of each machine: ${spans}. It is in memory and begins anew with each start.`,
    span: (step: string, length: string) => `every ${step} for ${length}`,
    noHistory:
      "There are too many machines for a history of each; --history-memory gives it more room.",
    viewers: "Open dashboards",
    contract: "API contract",
    metrics: "Metrics for Prometheus",
    configured:
      "Everything else is set by flags or environment variables of the coordinator; --help lists them.",
    privacy:
      "Prompts and answers are never stored, nothing is sent to anybody, and this page loads nothing from elsewhere.",
  },
  chart: {
    range: "Time range",
    recent: "recent",
    day: "longer",
    empty: "No figures yet.",
    summary: (name: string, last: string, most: string) => `${name}: now ${last}, at most ${most}.`,
  },
  search: {
    title: "Search",
    open: "Search pages, machines and models",
    placeholder: "A page, a machine, a model",
    none: "Nothing found.",
    page: "page",
    machine: "machine",
    model: "model",
  },
  errors: {
    forbidden:
      "You are not allowed to do this. A proxy before the coordinator has refused it: whoever runs that proxy can let you.",
    unreachable: "The coordinator does not answer.",
    brokeOff: "The download broke off.",
    failed: (why: string, code: string) => `This could not be loaded: ${why} (${code})`,
    keepsTrying: "What is shown is what was there before. The page tries again by itself.",
    page: "There is no such page.",
  },
  announce: {
    offline: (names: string) => `Offline: ${names}`,
    lost: "The connection to the coordinator is lost",
    back: "The connection to the coordinator is back",
  },
};
