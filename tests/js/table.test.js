"use strict";
// node --test: sorting, filtering and files of the page over several scans.
const test = require("node:test");
const assert = require("node:assert/strict");
const path = require("node:path");
const table = require(path.join(__dirname, "..", "..", "medddpm", "report", "files", "table.js"));

test("rows without a value come last, whatever the order", () => {
  for (const sign of [1, -1]) {
    const sorted = ["3", "", "10", "2"].sort((a, b) => table.compare(a, b, sign));
    assert.deepEqual(sorted, sign > 0 ? ["2", "3", "10", ""] : ["10", "3", "2", ""]);
  }
  assert.deepEqual(["b", "a"].sort((a, b) => table.compare(a, b, 1)), ["a", "b"]);
});

test("the rows in view are few, and the room above and below adds up", () => {
  for (const [total, top, across] of [[3000, 0, 1], [3000, 90_000, 1], [3000, 5000, 8], [5, 0, 1], [0, 0, 1]]) {
    const part = table.visible(total, top, 700, 68, across);
    assert.ok(part.from >= 0 && part.to <= total && part.from <= part.to);
    assert.ok(part.to - part.from <= 26 * across);
    const lines = Math.ceil((part.to - part.from) / across);
    assert.equal(part.above + part.below + 68 * lines, 68 * Math.ceil(total / across));
    if (total) assert.ok(part.above <= top && part.above + 68 * lines >= Math.min(top + 700, 68 * Math.ceil(total / across)));
  }
});

test("filters take words in any order and what is asked for", () => {
  const row = { text: "sub-01 T1w local change", alarms: 1, notices: 0, far: false, rating: "look" };
  assert.ok(table.matches(row, "change SUB-01", "all"));
  assert.ok(!table.matches(row, "sub-02", "all"));
  const shown = ["alarm", "notice", "far", "unrated", "look", "keep"].filter((s) => table.matches(row, "", s));
  assert.deepEqual(shown, ["alarm", "look"]);
});

test("a CSV line quotes what needs it and starts no formula", () => {
  assert.equal(table.csvLine(["a", 1.5, 'x "y", z', "=cmd()", "-0.5", "-a"]), `a,1.5,"x ""y"", z",'=cmd(),-0.5,'-a`);
});

test("ratings are read from a file, and what is none is left out", () => {
  assert.deepEqual(table.ratings('{"ratings": {"a": "keep", "b": "<b>", "c": "exclude"}}'), { a: "keep", c: "exclude" });
  assert.throws(() => table.ratings("[1"));
  assert.throws(() => table.ratings("{}"));
});

test("the nearest dot within reach", () => {
  const dots = [[10, 10], [50, 10], [-99, 0]];
  assert.equal(table.nearest(dots, 47, 12, 8), 1);
  assert.equal(table.nearest(dots, 30, 10, 8), -1);
});
