// Runs the checks of one script: `node run_checks.mjs SCRIPT TARGET`; says `outcome JSON`
// for each, among what the clients themselves print.

import { pathToFileURL } from "node:url";

const TIME_LIMIT_MS = 60_000;

function withinLimit(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("not done in time")), TIME_LIMIT_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function main(script, target) {
  const { CHECKS } = await import(pathToFileURL(script));
  for (const check of CHECKS) {
    const outcome = { name: check.name.replaceAll("_", " ") };
    const began = performance.now();
    try {
      outcome.seen = await withinLimit(check(target));
    } catch (error) {
      outcome.error = String(error?.stack ?? error);
    }
    outcome.seconds = (performance.now() - began) / 1000;
    console.log(`outcome ${JSON.stringify(outcome)}`);
  }
}

await main(process.argv[2], JSON.parse(process.argv[3]));
process.exit(0);
