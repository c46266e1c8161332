"use strict";
// What the viewer draws on a canvas: pixels of a plane, cross-hair, letters of the sides, scale bar.
const drawing = (() => {
  // The context of a canvas as sharp as the screen, all black; nothing while the canvas is hidden.
  function sharp(canvas) {
    const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width || !height) return null;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    context.imageSmoothingEnabled = false;
    return context;
  }

  // The plane through voxel `at`, one pixel a voxel; levelAt(voxel) is a row of the table of colours.
  function paint(canvas, shape, axis, at, table, levelAt) {
    const [a, b] = planes.inPlane(axis), [wide, high] = [shape[a], shape[b]], voxel = [...at];
    [canvas.width, canvas.height] = [wide, high];
    const context = canvas.getContext("2d"), image = context.createImageData(wide, high);
    for (let r = 0, p = 0; r < high; r++) {
      voxel[b] = high - 1 - r;
      for (let c = 0; c < wide; c++, p += 4) {
        voxel[a] = planes.mirrored(axis) ? wide - 1 - c : c;
        const colour = 3 * levelAt(voxel);
        for (let k = 0; k < 3; k++) image.data[p + k] = table[colour + k];
        image.data[p + 3] = 255;
      }
    }
    context.putImageData(image, 0, 0);
  }

  // What `draw` draws, as far as it lies in the box: left, top, width, height.
  function within(context, box, draw) {
    context.save();
    context.beginPath();
    context.rect(...box);
    context.clip();
    draw();
    context.restore();
  }

  function line(context, x0, y0, x1, y1, colour) {
    context.strokeStyle = colour;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(x0, y0);
    context.lineTo(x1, y1);
    context.stroke();
  }

  function cross(context, box, [x, y]) { // open in the middle: it hides nothing that is looked at
    const [left, top, w, h] = box;
    within(context, box, () => {
      for (const [x0, y0, x1, y1] of [[left, y, x - 9, y], [x + 9, y, left + w, y],
        [x, top, x, y - 9], [x, y + 9, x, top + h]]) line(context, x0, y0, x1, y1, "rgb(255 176 32 / .75)");
    });
  }

  function outlined(context, text, x, y, align) {
    context.font = "600 14px system-ui, sans-serif";
    context.textAlign = align;
    context.textBaseline = "middle";
    context.lineWidth = 4;
    context.lineJoin = "round";
    context.strokeStyle = "#000";
    context.strokeText(text, x, y);
    context.fillStyle = "#fff";
    context.fillText(text, x, y);
  }

  function letters(context, box, sides) { // left, right, top, bottom
    const [left, top, w, h] = box;
    outlined(context, sides[0], left + 6, top + h / 2, "left");
    outlined(context, sides[1], left + w - 6, top + h / 2, "right");
    outlined(context, sides[2], left + w / 2, top + (top ? 12 : 34), "center");
    outlined(context, sides[3], left + w / 2, top + h - 11, "center");
  }

  function bar(context, box, scale) { // pixels a millimetre
    const [, , w, h] = box, mm = planes.scaleBar(w, scale), x = 10, y = h - 12;
    context.fillStyle = "#000";
    context.fillRect(x - 1, y - 1, mm * scale + 2, 5);
    context.fillStyle = "#fff";
    context.fillRect(x, y, mm * scale, 3);
    outlined(context, `${mm} mm`, x, y - 11, "left");
  }

  return { sharp, paint, within, line, cross, letters, bar };
})();
if (typeof module !== "undefined") module.exports = drawing;
