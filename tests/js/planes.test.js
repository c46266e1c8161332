"use strict";
// node --test: the arithmetic of the viewer, see medddpm/report/files/planes.js.
const test = require("node:test");
const assert = require("node:assert/strict");
const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const zlib = require("node:zlib");
const files = path.join(__dirname, "..", "..", "medddpm", "report", "files");
const planes = require(path.join(files, "planes.js"));

// A plane as the page holds it: low bytes, then high ones, the sign in the lowest bit.
function halves(signed) {
  const folded = signed.map((v) => (v < 0 ? -2 * v - 1 : 2 * v));
  return [...folded.map((v) => v & 255), ...folded.map((v) => v >> 8)];
}

test("a plane is what its differences say, modulo 2^16", () => {
  // 2 x 2: 10 12 / 9 60000; expected 0, 10 / 10, then the median of 9, 12 and 9 + 12 - 10
  const bytes = Uint8Array.from([...halves([10, 2, -1, 60000 - 11 - 65536]), ...halves([5, -11, 0, 5536])]);
  const found = planes.readPlane(bytes, 2, 2, [], 1);
  assert.deepEqual([...found.after], [10, 12, 9, 60000]);
  assert.deepEqual([...found.before], [15, 1, 9, 0]); // 60000 + 5536 = 65536
});

test("coarser steps of the difference end at 0 and 65535 instead of going round", () => {
  const bytes = Uint8Array.from([...halves([3, 0]), ...halves([-2, 30000])]);
  const found = planes.readPlane(bytes, 1, 2, [], 3);
  assert.deepEqual([...found.before], [0, 65535]);
});

test("further layers follow in their order, the deviation on its own", () => {
  const bytes = Uint8Array.from([7, 0, 1, 1, 4].flatMap((v) => halves([v])).slice(0, 8));
  const found = planes.readPlane(bytes, 1, 1, ["reference", "std"], 1);
  assert.deepEqual(Object.keys(found), ["after", "before", "reference", "std"]);
  assert.deepEqual([found.after[0], found.before[0], found.reference[0], found.std[0]], [7, 7, 8, 1]);
});

test("strides stack planes along the axis that is looked along", () => {
  assert.deepEqual(planes.strides([4, 5, 6], 2), [5, 1, 20]);
  assert.deepEqual(planes.strides([4, 5, 6], 0), [30, 6, 1]);
});

test("a point and its voxel go round, and the patient's left is on the right", () => {
  const shape = [40, 50, 30], spacing = [1, 1, 2];
  for (const axis of [0, 1, 2]) {
    const place = planes.fit(300, 200, shape, spacing, axis, 1.7, [3, -4]);
    for (const at of [[0, 0, 0], [39, 49, 29], [7, 31, 12]]) {
      const point = planes.pointOf(at, place, shape, axis);
      assert.deepEqual(planes.voxelAt(...point, place, shape, axis, at), at);
    }
  }
  const place = planes.fit(300, 200, shape, spacing, 2, 1, [0, 0]);
  const [left] = planes.pointOf([0, 0, 0], place, shape, 2), [right] = planes.pointOf([39, 0, 0], place, shape, 2);
  assert.ok(left > right); // index 0 of an array in RAS order is the patient's left
  assert.deepEqual(planes.SIDES[2].slice(0, 2), ["R", "L"]);
});

test("a plane is to scale and lies within its box", () => {
  const place = planes.fit(300, 200, [40, 50, 30], [1, 1, 2], 1, 1, [0, 0]);
  assert.ok(Math.abs(place.wide / place.high - 40 / 60) < 1e-9);
  assert.ok(place.left >= 0 && place.top >= 0 && place.left + place.wide <= 300);
});

test("millimetres to voxels and back, oblique and clamped", () => {
  const [c, s] = [Math.cos(0.3), Math.sin(0.3)];
  const affine = [c, -1.2 * s, 0, 5, s, 1.2 * c, 0, -20, 0, 0, 0.9, 7, 0, 0, 0, 1];
  const shape = [32, 36, 40];
  assert.deepEqual(planes.voxelOf(planes.place(affine, [9, 21, 30]), affine, shape), [9, 21, 30]);
  assert.deepEqual(planes.voxelOf([-900, 900, 0], affine, shape), [0, 35, 0]);
});

test("values have the digits that their steps deserve", () => {
  assert.equal(planes.told(905, 1), "905");
  assert.equal(planes.told(902.6, 12.5), "903");
  assert.equal(planes.told(0.12345, 0.01), "0.12");
  assert.equal(planes.told(-0.001, 0.01), "0.00");
});

test("a scale bar is round and takes a third at most", () => {
  assert.equal(planes.scaleBar(440, 2), 50);
  assert.equal(planes.scaleBar(300, 40), 2);
});

test("levels are clamped to their table", () => {
  assert.deepEqual([-5, 0, 50, 100, 300].map((v) => planes.level(v, 0, 100)), [0, 0, 128, 255, 255]);
});

test("what Python packs, the page unpacks", { skip: !process.env.PACKED }, () => {
  const { content, planes: texts, before, after } = JSON.parse(fs.readFileSync(process.env.PACKED));
  const [u, v] = planes.inPlane(content.axis), stride = planes.strides(content.shape, content.axis);
  texts.forEach((text, number) => {
    const bytes = zlib.inflateSync(planes.bytesOf(text));
    const found = planes.readPlane(bytes, content.shape[u], content.shape[v], content.layers, content.factor);
    for (const [name, whole] of [["before", before], ["after", after]]) {
      found[name].forEach((value, i) => {
        const at = number * stride[content.axis] + i;
        assert.ok(Math.abs(content.floor + content.quantum * value - whole[at]) <= 0.51 * content.quantum);
      });
    }
  });
});

test("the scripts of a page are valid as they are joined", () => {
  for (const parts of [["planes.js", "drawing.js", "viewer.js"], ["table.js", "group.js"]]) {
    const joined = parts.map((name) => fs.readFileSync(path.join(files, name), "utf8")).join("\n");
    execFileSync(process.execPath, ["--check", "-"], { input: joined });
  }
});
