// Keeps the status on the page up to date; everything else works without this.
"use strict";

const EVERY_MS = 2000;

async function refresh() {
  const shown = document.getElementById("status");
  if (!shown || document.hidden || shown.contains(document.activeElement)) return;
  const answer = await fetch("./", { headers: { accept: "text/html" } });
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.getElementById("status");
  if (fresh && fresh.innerHTML !== shown.innerHTML) shown.replaceWith(fresh);
}

async function keepFresh() {
  let isAway = false;
  try {
    await refresh();
  } catch {
    isAway = true;
  }
  document.body.classList.toggle("away", isAway);
  setTimeout(keepFresh, EVERY_MS);
}

setTimeout(keepFresh, EVERY_MS);
