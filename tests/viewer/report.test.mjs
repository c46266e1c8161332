// The viewer of a report: what it reads, says and passes on to NiiVue.

import assert from "node:assert/strict";
import { test } from "node:test";

import { packed, page, run } from "./page.mjs";

const SHAPE = [4, 5, 3];
const SIZE = 60;
const [COS, SIN] = [Math.cos(0.3), Math.sin(0.3)];
const AFFINE = [COS, -1.2 * SIN, 0, 5, SIN, 1.2 * COS, 0, -20, 0, 0, 2, 7, 0, 0, 0, 1];
const LEVELS = Array.from({ length: SIZE }, (_, i) => i);
const REMOVED = LEVELS.map((i) => (i % 2 ? -i : i) * 3);
const FLOOR = 10, QUANTUM = 0.5, FACTOR = 4;

function view(more = {}) {
  const folded = REMOVED.map((v) => ((v << 1) ^ (v >> 31)) & 0xffff); // zigzag
  const planes = [...folded.map((v) => v & 255), ...folded.map((v) => v >> 8)];
  return {
    shape: SHAPE, spacing: [1, 1.2, 2], affine: AFFINE, window: [0, 100], change: 8,
    floor: FLOOR, quantum: QUANTUM, factor: FACTOR, std_top: 51, std_levels: 255, std_window: 20,
    data: { after: packed(LEVELS), removed: packed(planes), ...more },
  };
}

function voxels(at) {
  const mm = (r) => AFFINE.slice(4 * r, 4 * r + 3).reduce((sum, a, i) => sum + a * at[i], 0);
  return [0, 1, 2].map((r) => mm(r) + AFFINE[4 * r + 3]);
}

const values = ([x, y, z]) => {
  const i = x + SHAPE[0] * (y + SHAPE[1] * z);
  const after = FLOOR + QUANTUM * FACTOR * LEVELS[i], residual = QUANTUM * REMOVED[i];
  return { before: after + residual, after, residual };
};

// NiiVue as the viewer knows it; each pane keeps what it was given.
function niivue(panes) {
  return {
    NVImage: class {
      static createNiftiArray() { return new Uint8Array(352); }
      static async new(...given) { return { given }; }
    },
    Niivue: class {
      constructor() { Object.assign(this, { volumes: [], scene: {}, drawn: 0, updated: 0 }); }
      async attachToCanvas(canvas) { panes[canvas.id] = this; }
      addColormap() {}
      addVolume(image) {
        const [bytes, name, colours, , , low, high] = image.given;
        this.volumes.push({ bytes, name, colours, cal_min: low, cal_max: high });
      }
      drawScene() { this.drawn++; }
      updateGLVolume() { this.updated++; }
      setSliceType(type) { this.type = type; }
      resizeListener() {}
    },
  };
}

async function opened({ data = {}, places = [] } = {}) {
  const panes = {};
  const it = page({ places, more: { niivue: niivue(panes) } });
  it.$("view-data").textContent = JSON.stringify(view(data));
  await run("report.js", it);
  it.nextFrame();
  const input = (name, value) => it.$(name).send("input", { target: { value } });
  const key = (name) => it.$("panes").send("keydown", { key: name });
  const at = () => ["x", "y", "z"].map((axis) => it.$(axis).value);
  return { ...it, panes, input, key, at };
}

function says(it, at) {
  const told = it.$("values").textContent;
  for (const [name, value] of Object.entries(values(at))) {
    assert.ok(told.includes(`${name} ${value.toPrecision(4)}`), `${told} lacks ${name} ${value}`);
  }
  assert.ok(told.includes(voxels(at).map((v) => v.toFixed(1)).join(", ")), told);
}

test("it opens in the middle, with the values that were packed", async () => {
  const it = await opened();
  assert.equal(it.document.body.dataset.ready, "true");
  assert.equal(it.$("viewer").hidden, false);
  assert.deepEqual(Object.keys(it.panes), ["canvas-before", "canvas-after", "canvas-residual"]);
  assert.deepEqual(it.at(), [2, 2, 1]);
  says(it, [2, 2, 1]);
});

test("what is uncertain and the reference have panes of their own", async () => {
  const it = await opened({ data: { std: packed(LEVELS), reference: packed(LEVELS) } });
  assert.equal(it.$("panes").styles["--columns"], 5);
  const shown = it.panes["canvas-uncertainty"].volumes[0];
  assert.deepEqual([shown.colours, shown.cal_min, shown.cal_max], ["inferno", 0, 20]);
  assert.match(it.$("values").textContent, /uncertainty 6\.\d+.*reference/);
});

test("the header says the slope and the start of what is stored", async () => {
  const it = await opened();
  const header = new DataView(it.panes["canvas-after"].volumes[0].bytes);
  assert.deepEqual([header.getFloat32(112, true), header.getFloat32(116, true)], [2, FLOOR]);
});

test("sliders move the place and say where it is", async () => {
  const it = await opened();
  it.input("x", "3");
  it.input("z", "0");
  says(it, [3, 2, 0]);
  assert.equal(it.$("x-value").textContent, "4 of 4");
  const place = it.panes["canvas-before"].scene.crosshairPos;
  assert.deepEqual([...place], [3.5 / 4, 2.5 / 5, 0.5 / 3]);
});

test("the patient's left is on the right, and no key leaves the scan", async () => {
  const it = await opened();
  it.key("ArrowLeft");
  assert.deepEqual(it.at(), [3, 2, 1]);
  for (let i = 0; i < 9; i++) it.key("ArrowRight");
  assert.deepEqual(it.at(), [0, 2, 1]);
  for (let i = 0; i < 9; i++) it.key("PageUp");
  assert.deepEqual(it.at(), [0, 2, 2]);
  it.key("ArrowDown");
  assert.deepEqual(it.at(), [0, 1, 2]);
});

test("a click in one pane moves the others", async () => {
  const it = await opened();
  const pane = it.panes["canvas-after"], drawn = pane.drawn;
  pane.scene.crosshairPos = [0.99, 0, 0.5];
  pane.onLocationChange();
  assert.deepEqual(it.at(), [3, 0, 1]);
  assert.equal(pane.drawn, drawn); // it drew itself already
  assert.deepEqual([...it.panes["canvas-before"].scene.crosshairPos], [0.99, 0, 0.5]);
});

test("a place in millimetres is found in an oblique scan, or its nearest edge", async () => {
  const it = await opened({ places: [voxels([1, 4, 2]).join(" "), "-900 900 0"] });
  it.buttons[0].send("click");
  assert.equal(it.buttons[0].disabled, false);
  assert.deepEqual(it.at(), [1, 4, 2]);
  it.buttons[1].send("click");
  assert.ok(it.at().every((i, axis) => i >= 0 && i < SHAPE[axis]), it.at());
});

test("grey values change once a frame, for the scans alone", async () => {
  const it = await opened();
  const { "canvas-after": after, "canvas-residual": residual } = it.panes;
  it.input("window", "40");
  it.input("window", "20");
  assert.equal(after.updated, 0);
  assert.equal(it.nextFrame(), 1);
  assert.deepEqual([after.volumes[0].cal_min, after.volumes[0].cal_max], [40, 60]);
  assert.deepEqual([after.updated, residual.updated], [1, 0]);
  it.input("change", "16");
  it.nextFrame();
  assert.deepEqual([residual.volumes[0].cal_min, residual.volumes[0].cal_max], [-16, 16]);
});

test("reset goes back to how it opened", async () => {
  const it = await opened();
  it.input("x", "0");
  it.input("level", "90");
  it.nextFrame();
  it.$("reset").send("click");
  assert.deepEqual(it.at(), [2, 2, 1]);
  assert.equal(it.panes["canvas-after"].volumes[0].cal_max, 100);
});

test("what goes wrong is said, and the pictures stay", async () => {
  const it = page({ more: { niivue: niivue({}) } });
  it.$("view-data").textContent = JSON.stringify({ ...view(), data: { after: "bm90IHBhY2tlZA==" } });
  await run("report.js", it);
  assert.deepEqual([it.$("viewer").hidden, it.$("no-viewer").hidden], [true, false]);
  assert.match(it.$("no-viewer").said[0], /It stopped: /);
});
