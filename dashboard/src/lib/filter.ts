/** Which agents somebody asks for. Pure. */

import { troubleOf } from "./agents";
import type { Field, Member } from "./members";

export type Test = (member: Member) => boolean;

const FIELDS: ReadonlySet<string> = new Set<Field>(["gpu", "model", "loaded", "os", "version"]);
const isField = (key: string): key is Field => FIELDS.has(key);

/** Reads `gpu:a6000 -state:ready room=101 text`: all of it must hold. */
export function filterOf(query: string): Test {
  const tests = query.normalize("NFKC").toLowerCase().split(/\s+/).filter(Boolean).map(testOf);
  return (member) => tests.every((test) => test(member));
}

function testOf(word: string): Test {
  if (word.startsWith("-") && word.length > 1) {
    const test = testOf(word.slice(1));
    return (member) => !test(member);
  }
  const colon = word.indexOf(":");
  const key = colon > 0 ? word.slice(0, colon) : "";
  const value = word.slice(colon + 1);
  if (key === "state") {
    return ({ document, state }) =>
      state.startsWith(value) || !!troubleOf(document)?.includes(value);
  }
  if (isField(key)) return (member) => member.text(key).includes(value);
  const [label = "", wanted] = word.split("=", 2);
  if (wanted === undefined) return (member) => member.text("any").includes(word);
  return ({ document }) =>
    Object.entries(document.labels).some(
      ([name, known]) => name.toLowerCase() === label && known.toLowerCase() === wanted,
    );
}
