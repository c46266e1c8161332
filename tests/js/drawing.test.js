"use strict";
// node --test: what the viewer draws, told by a canvas that writes down what it is asked for.
const test = require("node:test");
const assert = require("node:assert/strict");
const path = require("node:path");
const files = path.join(__dirname, "..", "..", "medddpm", "report", "files");
const planes = globalThis.planes = require(path.join(files, "planes.js"));
const drawing = require(path.join(files, "drawing.js"));

// A context that notes each call as [name, its colour, ...arguments].
function notes() {
  const asked = [], state = {};
  const context = new Proxy(state, {
    get: (_, name) => name in state ? state[name] : (...given) => {
      asked.push([name, name.startsWith("stroke") ? state.strokeStyle : state.fillStyle, ...given]);
      return name === "createImageData" ? { data: new Uint8ClampedArray(4 * given[0] * given[1]) } : undefined;
    },
  });
  const of = (name) => asked.filter((call) => call[0] === name).map((call) => call.slice(2));
  return { asked, context, of };
}

test("each pixel is its voxel: the left of the patient at the right, the head up", () => {
  const shape = [3, 4, 2], at = [1, 2, 1];
  const table = Uint8Array.from({ length: 768 }, (_, i) => 10 * Math.floor(i / 3) + (i % 3));
  for (const axis of [0, 1, 2]) {
    const { context, of } = notes(), canvas = { getContext: () => context };
    drawing.paint(canvas, shape, axis, at, table, ([x, y, z]) => x + 3 * y + 12 * z);
    const [a, b] = planes.inPlane(axis), [[{ data }]] = of("putImageData");
    assert.deepEqual([canvas.width, canvas.height], [shape[a], shape[b]]);
    for (let r = 0; r < shape[b]; r++) {
      for (let c = 0; c < shape[a]; c++) {
        const place = { left: 0, top: 0, wide: shape[a], high: shape[b] };
        const [x, y, z] = planes.voxelAt(c + 0.5, r + 0.5, place, shape, axis, at);
        const row = x + 3 * y + 12 * z, from = 4 * (c + r * shape[a]);
        assert.deepEqual([...data.slice(from, from + 4)], [...table.slice(3 * row, 3 * row + 3), 255]);
      }
    }
  }
  assert.deepEqual(at, [1, 2, 1]);
});

test("the cross-hair meets at its point, leaves it open and is clipped to its box", () => {
  const { asked, context, of } = notes();
  drawing.cross(context, [10, 20, 100, 80], [40, 60]);
  const ends = of("moveTo").map((from, i) => [...from, ...of("lineTo")[i]]);
  assert.deepEqual(ends, [[10, 60, 31, 60], [49, 60, 110, 60], [40, 20, 40, 51], [40, 69, 40, 100]]);
  assert.deepEqual(of("rect"), [[10, 20, 100, 80]]);
  const names = asked.map(([name]) => name);
  assert.ok(names.indexOf("clip") < names.indexOf("stroke") && names.at(-1) === "restore");
});

test("each letter stands at its side of the box, black below white", () => {
  const { asked, context, of } = notes();
  drawing.letters(context, [100, 50, 60, 40], ["R", "L", "A", "P"]);
  const told = Object.fromEntries(of("fillText").map(([text, ...at]) => [text, at]));
  assert.deepEqual(told, { R: [106, 70], L: [154, 70], A: [130, 62], P: [130, 79] });
  assert.deepEqual(of("strokeText"), of("fillText"));
  assert.deepEqual(asked.map(([, colour]) => colour), Array(4).fill(["#000", "#fff"]).flat());
});

test("the bar is as long as it says", () => {
  const { asked, context, of } = notes();
  drawing.bar(context, [0, 0, 440, 200], 2);
  const white = asked.find(([name, colour]) => name === "fillRect" && colour === "#fff").slice(2);
  assert.deepEqual(white, [10, 188, 100, 3]);
  assert.equal(of("fillText")[0][0], "50 mm");
});

test("a canvas has the pixels of the screen, and none while it is hidden", () => {
  globalThis.devicePixelRatio = 1.5;
  const { context, of } = notes(), canvas = { clientWidth: 201, clientHeight: 100, getContext: () => context };
  assert.equal(drawing.sharp({ clientWidth: 0, clientHeight: 100 }), null);
  assert.equal(drawing.sharp(canvas), context);
  assert.deepEqual([canvas.width, canvas.height], [302, 150]);
  assert.deepEqual(of("setTransform"), [[1.5, 0, 0, 1.5, 0, 0]]);
  assert.deepEqual(of("fillRect"), [[0, 0, 201, 100]]);
});
