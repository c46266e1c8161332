"use strict";
// Pure functions of the viewer: numbers in, numbers out; no page is needed to test them.
const planes = (() => {
  // Bytes to volumes

  const bytesOf = (text) => {
    const letters = atob(text);
    const bytes = new Uint8Array(letters.length);
    for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
    return bytes;
  };

  // Signed 16 bits from low and high halves, the sign in the lowest bit.
  const unfold = (bytes, start, size, i) => {
    const z = bytes[start + i] | (bytes[start + size + i] << 8);
    return (z >>> 1) ^ -(z & 1);
  };

  // Undo the median edge detector of a plane of `rows` x `columns`, modulo 2^16.
  function undoPrediction(bytes, start, rows, columns) {
    const size = rows * columns, plane = new Uint16Array(size);
    for (let r = 0, i = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++, i++) {
        const left = c ? plane[i - 1] : 0, above = r ? plane[i - columns] : 0;
        const corner = c && r ? plane[i - columns - 1] : 0;
        const low = Math.min(left, above), high = Math.max(left, above);
        const expected = Math.min(high, Math.max(low, left + above - corner));
        plane[i] = expected + unfold(bytes, start, size, i);
      }
    }
    return plane;
  }

  // A plane's inflated bytes to its layers, in whole steps; scans differ by `factor` times what is kept.
  function readPlane(bytes, rows, columns, layers, factor) {
    const size = rows * columns;
    const after = undoPrediction(bytes, 0, rows, columns);
    const found = { after };
    let start = 2 * size;
    for (const name of ["before", ...layers]) {
      if (name === "std") found.std = undoPrediction(bytes, start, rows, columns);
      else {
        const plane = new Uint16Array(size);
        for (let i = 0; i < size; i++) {
          const value = after[i] + factor * unfold(bytes, start, size, i);
          plane[i] = factor === 1 ? value : clamp(value, 0, 65535); // of 1 it is modulo 2^16
        }
        found[name] = plane;
      }
      start += 2 * size;
    }
    return found;
  }

  // How far apart voxels lie in an array whose planes are stacked along `axis`.
  function strides(shape, axis) {
    const [u, v] = [0, 1, 2].filter((a) => a !== axis);
    const found = [0, 0, 0];
    found[axis] = shape[u] * shape[v];
    found[u] = shape[v];
    found[v] = 1;
    return found;
  }

  // Planes on the screen: `across` runs to the right, `up` upwards; minus where it is turned round

  const SIDES = [ // left, right, up, down by the axis of the plane
    ["P", "A", "S", "I"], ["R", "L", "S", "I"], ["R", "L", "A", "P"],
  ];
  const inPlane = (axis) => [[1, 2], [0, 2], [0, 1]][axis];
  const mirrored = (axis) => axis !== 0;

  // Where a plane lies in a box: pixels a millimetre, and its left upper corner.
  function fit(width, height, shape, spacing, axis, zoom, pan) {
    const [a, b] = inPlane(axis);
    const wide = shape[a] * spacing[a], high = shape[b] * spacing[b];
    const scale = zoom * Math.min(width / wide, height / high);
    return {
      scale, left: width / 2 + pan[0] * scale - (wide * scale) / 2,
      top: height / 2 + pan[1] * scale - (high * scale) / 2, wide: wide * scale, high: high * scale,
    };
  }

  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  // The voxel below a point of the screen, and the point in the middle of a voxel.
  function voxelAt(x, y, place, shape, axis, at) {
    const [a, b] = inPlane(axis), found = [...at];
    const right = (x - place.left) / place.wide, down = (y - place.top) / place.high;
    const i = Math.floor((mirrored(axis) ? 1 - right : right) * shape[a]);
    found[a] = clamp(i, 0, shape[a] - 1);
    found[b] = clamp(Math.floor((1 - down) * shape[b]), 0, shape[b] - 1);
    return found;
  }
  function pointOf(at, place, shape, axis) {
    const [a, b] = inPlane(axis);
    const right = (at[a] + 0.5) / shape[a];
    return [place.left + place.wide * (mirrored(axis) ? 1 - right : right),
      place.top + place.high * (1 - (at[b] + 0.5) / shape[b])];
  }

  // Space

  const place = (affine, at) => [0, 1, 2].map((r) =>
    affine[4 * r] * at[0] + affine[4 * r + 1] * at[1] + affine[4 * r + 2] * at[2] + affine[4 * r + 3]);

  // The inverse of the affine, by its adjugate: millimetres to the nearest voxel.
  function voxelOf(mm, a, shape) {
    const column = (c) => [0, 1, 2].map((r) => a[4 * r + c]);
    const cross = (u, v) => [0, 1, 2].map((i) =>
      u[(i + 1) % 3] * v[(i + 2) % 3] - u[(i + 2) % 3] * v[(i + 1) % 3]);
    const dot = (u, v) => u[0] * v[0] + u[1] * v[1] + u[2] * v[2];
    const [x, y, z] = [0, 1, 2].map(column);
    const from = mm.map((value, r) => value - a[4 * r + 3]);
    const size = dot(x, cross(y, z));
    return [cross(y, z), cross(z, x), cross(x, y)].map((row, axis) =>
      clamp(Math.round(dot(row, from) / size), 0, shape[axis] - 1));
  }

  // Words

  // As many digits as the steps that a value is kept in deserve.
  function told(value, quantum) {
    const digits = clamp(Math.ceil(-Math.log10(quantum) - 1e-9), 0, 8);
    const text = value.toFixed(digits);
    return Number(text) === 0 ? text.replace("-", "") : text;
  }

  // The longest of 1, 2, 5, 10... mm that takes at most a third of `pixels`.
  function scaleBar(pixels, scale) {
    const most = pixels / 3 / scale, power = 10 ** Math.floor(Math.log10(most));
    return [5, 2, 1].map((f) => f * power).find((mm) => mm <= most);
  }

  // Colour of a value: a table of 256 by where it lies in a range.
  const level = (value, low, high) => clamp(Math.round((255 * (value - low)) / (high - low)), 0, 255);

  return {
    bytesOf, readPlane, strides, SIDES, inPlane, mirrored, fit, voxelAt, pointOf, place, voxelOf,
    told, scaleBar, level, clamp,
  };
})();
if (typeof module !== "undefined") module.exports = planes;
