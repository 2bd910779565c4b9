import { expect, test } from "vitest";
import { chosenOf, columnsOf, USUAL } from "./columns";

test("columns are read as they were chosen, in their own order and with the name", () => {
  expect(columnsOf("")).toEqual(USUAL);
  expect(columnsOf("labels,state,weather")).toEqual(["name", "state", "labels"]);
  expect(chosenOf(columnsOf("labels,state"))).toBe("name,state,labels");
  expect(chosenOf(USUAL)).toBe("");
});
