import { expect, test } from "vitest";
import { nameOf } from "./agents";
import type { Agent, Load } from "./api/shapes";
import { COLUMNS } from "./columns";
import type { Member, Members } from "./members";
import { frozen, Roster, type Wish } from "./roster";
import { agentNamed, membersOf } from "./testing";

const BY_NAME: Wish = { query: "", column: "name", isDescending: false };
const BY_LOAD: Wish = { query: "", column: "running", isDescending: true };

const names = (members: readonly Member[]): string[] =>
  members.map(({ document }) => nameOf(document));

function change(members: Members, ...agents: Agent[]): void {
  const documents = new Map(agents.map((agent) => [agent.id, agent]));
  members.draw({ documents, loads: new Map(), isWhole: false });
}

function forget(members: Members, name: string): void {
  const documents = new Map([[`id-of-${name}`, undefined]]);
  members.draw({ documents, loads: new Map(), isWhole: false });
}

function carry(members: Members, ...running: [string, number][]): void {
  const load = ([name, in_flight]: [string, number]): [string, Load] => [
    `id-of-${name}`,
    { id: `id-of-${name}`, in_flight },
  ];
  members.draw({ documents: new Map(), loads: new Map(running.map(load)), isWhole: false });
}

test("names are sorted as people count", () => {
  const members = membersOf(["gpu-10", "gpu-2", "gpu-1"].map((name) => agentNamed(name)));

  expect(names(new Roster().list(members, BY_NAME))).toEqual(["gpu-1", "gpu-2", "gpu-10"]);
  expect(names(new Roster().list(members, BY_LOAD))).toEqual(["gpu-1", "gpu-2", "gpu-10"]);
});

test("what needs somebody comes first when sorted by state", () => {
  const members = membersOf([
    agentNamed("ready"),
    agentNamed("gone", { status: "offline", routable: false, reason: "offline" }),
    agentNamed("failing", { routable: false, reason: "ejected" }),
  ]);

  const rows = new Roster().list(members, { ...BY_NAME, column: "state" });

  expect(names(rows)).toEqual(["gone", "failing", "ready"]);
});

test("those who come, go, are renamed or work more are put where they belong", () => {
  const members = membersOf(["a", "c", "e"].map((name) => agentNamed(name)));
  const [byName, byLoad] = [new Roster(), new Roster()];
  const seen = (): string[] =>
    [byName.list(members, BY_NAME), byLoad.list(members, BY_LOAD)].map((rows) =>
      names(rows).join(""),
    );

  expect(seen()).toEqual(["ace", "ace"]);
  carry(members, ["c", 2], ["e", 3]);
  expect(seen()).toEqual(["ace", "eca"]);
  change(members, agentNamed("b"), agentNamed("a", { display_name: "d", in_flight: 9 }));
  expect(seen()).toEqual(["bcde", "decb"]);
  forget(members, "c");
  carry(members, ["e", 0]);
  expect(seen()).toEqual(["bde", "dbe"]);
});

test("a list stays the same one while nobody in it moves", () => {
  const members = membersOf(["a1", "a2", "b1"].map((name) => agentNamed(name)));
  const roster = new Roster();
  const list = (query: string): readonly Member[] => roster.list(members, { ...BY_NAME, query });

  const all = list("");
  carry(members, ["a1", 3]);
  expect(list("")).toBe(all);
  const some = list("a");
  expect(names(some)).toEqual(["a1", "a2"]);
  change(members, agentNamed("b1", { notes: "new" }), agentNamed("b2"));
  expect(list("a")).toBe(some);
  expect(names(list("b"))).toEqual(["b1", "b2"]);
});

test("a filter follows what its agents do", () => {
  const members = membersOf(["a", "b"].map((name) => agentNamed(name)));
  const roster = new Roster();
  const busy = (): string[] => names(roster.list(members, { ...BY_NAME, query: "state:busy" }));

  expect(busy()).toEqual([]);
  carry(members, ["b", 4]);
  expect(busy()).toEqual(["b"]);
  carry(members, ["a", 4], ["b", 1]);
  expect(busy()).toEqual(["a"]);
});

test("a list that is kept is the one that would be made anew", () => {
  const members = membersOf(Array.from({ length: 60 }, (_, at) => agentNamed(`gpu-${at}`)));
  const kept = new Map(COLUMNS.map((column) => [column, new Roster()]));
  let state = 1;
  const roll = (most: number): number => (state = (state * 48_271) % 2_147_483_647) % most;

  for (let round = 0; round < 40; round += 1) {
    const name = `gpu-${roll(70)}`;
    if (roll(4) === 0) forget(members, name);
    else if (roll(3) === 0) change(members, agentNamed(name, { display_name: `x-${roll(9)}` }));
    else carry(members, [name, roll(5)], [`gpu-${roll(60)}`, roll(5)]);
    for (const [column, roster] of kept) {
      const wish = { query: roll(2) ? "gpu" : "-state:busy", column, isDescending: roll(9) === 0 };
      const anew = new Roster().list(members, wish);
      expect(names(roster.list(members, wish)), `${column} ${round}`).toEqual(names(anew));
    }
  }
});

test("rows that somebody points at stay where they are", () => {
  const members = membersOf(["a", "b", "c", "d", "gone"].map((name) => agentNamed(name)));
  const [a, b, c, d, gone] = [...members] as [Member, Member, Member, Member, Member];

  const rows = frozen([c, a, gone], [a, b, c, d]);

  expect(names(rows)).toEqual(["c", "a", "b", "d"]);
});
