// The table over many results: pressing a heading sorts it.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Element, page, run } from "./page.mjs";

const COLUMNS = [["b", "a", "c", "d"], ["2", "", "10", "-1"]];

async function opened() {
  const it = page();
  const heads = COLUMNS.map(() => {
    const button = new Element();
    return Object.assign(new Element(), { button, querySelector: () => button });
  });
  const rows = COLUMNS[0].map((_, row) => ({
    cells: COLUMNS.map((column) => ({ dataset: { value: column[row] } })),
  }));
  const body = { rows, append: (...sorted) => { body.rows = sorted; } };
  Object.assign(it.$("results"), { tHead: { rows: [{ cells: heads }] }, tBodies: [body] });
  await run("group.js", it);
  const names = () => body.rows.map((row) => row.cells[0].dataset.value).join("");
  return { heads, press: (column) => { heads[column].button.send("click"); return names(); } };
}

test("numbers sort as numbers, and rows without one come last either way", async () => {
  const { press } = await opened();
  assert.equal(press(1), "cbda");
  assert.equal(press(1), "dbca");
});

test("words sort as words, and one heading says the order", async () => {
  const { press, heads } = await opened();
  press(1);
  assert.equal(press(0), "dcba");
  assert.deepEqual(heads.map((head) => head.getAttribute("aria-sort")), ["descending", null]);
  assert.equal(press(0), "abcd");
  assert.equal(heads[0].getAttribute("aria-sort"), "ascending");
});
