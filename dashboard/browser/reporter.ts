/** One line per test and one count at the end, as every other part of the project's tests prints. */

import type { UserConsoleLog } from "vitest";
import type { Reporter, TestCase, TestModule } from "vitest/node";

export default class Lines implements Reporter {
  onTestCaseResult(test: TestCase): void {
    const { state, errors } = test.result();
    const word = state === "passed" ? "ok     " : state === "skipped" ? "SKIPPED" : "FAILED ";
    console.log(`${word} ${test.module.project.name}: ${test.fullName}`);
    for (const error of errors ?? []) console.log(error.stack ?? error.message, error.diff ?? "");
  }

  onUserConsoleLog({ content }: UserConsoleLog): void {
    process.stdout.write(`        ${content}`);
  }

  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly { message: string }[]): void {
    const tests = modules.flatMap((module) => [...module.children.allTests()]);
    const count = (state: string): number =>
      tests.filter((test) => test.result().state === state).length;
    const broken = modules.flatMap((module) => [
      ...module.errors(),
      ...[...module.children.allSuites()].flatMap((suite) => suite.errors()),
    ]);
    for (const error of [...broken, ...unhandled]) console.log(`FAILED  ${error.message}`);
    const failed = count("failed") + broken.length + unhandled.length;
    const skipped = count("skipped");
    // What was skipped is counted as passed and taken off by whoever adds up.
    console.log(`${count("passed") + skipped} passed, ${failed} failed, ${skipped} skipped`);
  }
}
