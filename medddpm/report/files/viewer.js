"use strict";
// The viewer of a report: plain canvases, all drawn from `state`; see planes.js for its
// arithmetic and drawing.js for what it draws.
(async () => {
  const $ = (id) => document.getElementById(id);
  const viewer = $("viewer"), stage = $("stage"), values = $("values");
  const view = JSON.parse($("view-data").textContent);
  const NAMES = ["sagittal", "coronal", "axial"];
  const phone = matchMedia("(max-width: 40rem)").matches;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const stride = planes.strides(view.shape, view.axis);
  const start = () => ({
    at: view.shape.map((n, axis) => Math.min(n - 1, view.start[axis])), plane: NAMES[view.axis],
    tab: "compare", view: phone ? "swipe" : "side", swipe: 0.5, flicked: false, cross: true,
    zoom: 1, pan: [0, 0], window: view.windows[0].slice(1), preset: "0", drag: "place",
    change: 4,
  });
  let state = start();

  // What can be shown

  const size = view.shape[0] * view.shape[1] * view.shape[2];
  const stored = {};
  const indexOf = (x, y, z) => x * stride[0] + y * stride[1] + z * stride[2];
  const scan = (name) => (i) => view.floor + view.quantum * stored[name][i];
  const apart = (a, b) => (i) =>
    (view.quantum * (stored[a][i] - stored[b][i])) / view.sigma;
  const grey = Uint8Array.from({ length: 768 }, (_, i) => Math.floor(i / 3));
  const change = planes.bytesOf(view.colours.change), spread = planes.bytesOf(view.colours.spread);
  const window_ = () => state.window;
  const changes = () => [-state.change, state.change];
  const LAYERS = {
    before: { label: "Before", table: grey, range: window_, value: scan("before") },
    after: { label: "After", table: grey, range: window_, value: scan("after") },
    reference: { label: "Reference", table: grey, range: window_, value: scan("reference") },
    removed: {
      label: "Removed: before \u2212 after", table: change, range: changes,
      value: apart("before", "after"),
    },
    error: {
      label: "Error: after \u2212 reference", table: change, range: changes,
      value: apart("after", "reference"),
    },
    noise: {
      label: "Noise map: level of what was removed", table: spread, range: () => [0, 2], value: noiseAt(),
    },
    uncertainty: {
      label: "Uncertainty: standard deviation", table: spread, range: () => [0, view.std_window || 1],
      value: (i) => view.std_step * stored.std[i],
    },
  };
  const TABS = {
    compare: ["before", "after", "removed"], removed: ["removed"], noise: ["before", "noise"],
    uncertainty: ["after", "uncertainty"], reference: ["after", "reference", "error"], histogram: [],
  };

  function noiseAt() {
    if (!view.noise) return () => 0;
    const data = planes.bytesOf(view.noise.data), [nx, ny] = view.noise.shape;
    const step = view.shape.map((n, axis) => view.noise.shape[axis] / n);
    return (_, x, y, z) => data[
      Math.floor(x * step[0]) + nx * (Math.floor(y * step[1]) + ny * Math.floor(z * step[2]))] / 100;
  }

  // Drawing

  const rasters = {};
  function raster(name, axis) { // a plane in its own pixels; kept while nothing of it changes
    const layer = LAYERS[name], [low, high] = layer.range();
    const key = [axis, state.at[axis], low, high, loaded].join();
    const kept = (rasters[name] ||= {})[axis];
    if (kept && kept.key === key) return kept.canvas;
    const canvas = kept ? kept.canvas : document.createElement("canvas");
    drawing.paint(canvas, view.shape, axis, state.at, layer.table, (at) =>
      planes.level(layer.value(indexOf(...at), ...at), low, high));
    rasters[name][axis] = { key, canvas };
    return canvas;
  }

  // The parts of a canvas and the plane in each.
  function parts(width, height) {
    if (state.plane !== "all") return [{ axis: NAMES.indexOf(state.plane), box: [0, 0, width, height] }];
    const [w, h] = [width / 2, height / 2];
    return [{ axis: 2, box: [0, 0, w, h] }, { axis: 1, box: [w, 0, w, h] }, { axis: 0, box: [0, h, w, h] }];
  }
  function placed(part) {
    const [left, top, width, height] = part.box;
    const found = planes.fit(width, height, view.shape, view.spacing, part.axis, state.zoom, state.pan);
    return { ...found, left: found.left + left, top: found.top + top };
  }

  function draw(pane) {
    const { canvas, names } = pane, context = drawing.sharp(canvas);
    if (!context) return;
    const swiping = state.view === "swipe" && names.length > 1;
    for (const part of parts(canvas.clientWidth, canvas.clientHeight)) {
      const place = placed(part), [left, top, w, h] = part.box;
      const middle = left + w * state.swipe;
      const shown = swiping ? [[names[0], left, middle], [names[1], middle, left + w]]
        : [[names[state.flicked && names.length > 1 ? 1 : 0], left, left + w]];
      for (const [name, from, to] of shown) {
        drawing.within(context, [from, top, to - from, h], () => context.drawImage(
          raster(name, part.axis), place.left, place.top, place.wide, place.high));
      }
      if (swiping) drawing.line(context, middle, top, middle, top + h, "#fff");
      const point = planes.pointOf(state.at, place, view.shape, part.axis);
      if (state.cross) drawing.cross(context, part.box, point);
      drawing.letters(context, part.box, planes.SIDES[part.axis]);
      if (left === 0 && top === 0) drawing.bar(context, part.box, place.scale);
    }
    pane.caption.textContent = swiping ? `${LAYERS[names[0]].label} | ${LAYERS[names[1]].label}`
      : LAYERS[names[state.flicked && names.length > 1 ? 1 : 0]].label;
  }

  let panes = [], waiting = false;
  function redraw() { // once a frame, however fast the pointer moves
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; panes.forEach(draw); tell(); });
  }

  // Panes and controls

  function arrange() {
    const names = TABS[state.tab], several = names.length > 1;
    const sets = !several || state.view !== "side" ? [names.slice(0, 2)] : names.map((n) => [n]);
    $("panes").replaceChildren();
    $("panes").style.setProperty("--columns", sets.length);
    panes = (names.length ? sets : []).map((set) => {
      const figure = document.createElement("figure"), caption = document.createElement("figcaption");
      const canvas = document.createElement("canvas");
      figure.className = "pane";
      canvas.tabIndex = 0;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${set.map((n) => LAYERS[n].label).join(" and ")}. ` +
        "Arrow keys move the cross-hair, Page Up and Page Down the slice, plus and minus zoom.");
      figure.append(canvas, caption);
      $("panes").append(figure);
      const pane = { canvas, caption, names: set };
      connectPane(pane);
      return pane;
    });
    $("histogram").hidden = state.tab !== "histogram";
    stage.hidden = state.tab === "histogram";
    for (const kind of ["tab", "view", "plane"]) {
      for (const button of viewer.querySelectorAll(`button[data-${kind}]`)) {
        button.setAttribute("aria-pressed", String(button.dataset[kind] === state[kind]));
      }
    }
    for (const button of viewer.querySelectorAll("button[data-view]")) button.disabled = !several;
    for (const name of ["scan", "change", "noise", "spread"]) {
      const kinds = { scan: grey, change, noise: spread, spread };
      const shown = names.some((n) => LAYERS[n].table === kinds[name] &&
        (kinds[name] !== spread || (n === "noise") === (name === "noise")));
      $(`bar-${name}`).hidden = !shown || (name === "change" && several && state.view !== "side");
    }
    flicker();
    fill();
    redraw();
  }

  let timer = 0;
  function flicker() {
    clearInterval(timer);
    state.flicked = false;
    if (state.view !== "flicker" || still) return;
    timer = setInterval(() => { state.flicked = !state.flicked; redraw(); }, 700);
  }

  const through = () => (state.plane === "all" ? view.axis : NAMES.indexOf(state.plane));
  function fill() {
    const axis = through(), [low, high] = state.window;
    Object.assign($("slice"), { min: 0, max: view.shape[axis] - 1, value: state.at[axis] });
    $("slice-value").textContent = `${state.at[axis] + 1} of ${view.shape[axis]}`;
    $("slice").setAttribute("aria-valuetext", $("slice-value").textContent);
    $("window").value = state.preset;
    $("change").value = String(state.change);
    $("drag").value = state.drag;
    $("cross").setAttribute("aria-pressed", String(state.cross));
    const told = (v) => planes.told(v, Math.max(view.quantum, (high - low) / 500));
    $("bar-scan").querySelector(".low").textContent = told(low);
    $("bar-scan").querySelector(".high").textContent = told(high);
    const span = Number(state.change.toPrecision(3));
    $("bar-change").querySelector(".low").textContent = `\u2212${span}`;
    $("bar-change").querySelector(".high").textContent = `+${span}`;
  }

  function tell() {
    const at = state.at, i = indexOf(...at), near = view.exact ? "" : "\u2248 ";
    const mm = planes.place(view.affine, at).map((v) => v.toFixed(1)).join(", ");
    const voxel = planes.place(view.to_file, at).join(", ");
    const told = ["before", "after", "reference"].filter((n) => stored[n]).map((n) =>
      `${n} ${near}${planes.told(LAYERS[n].value(i), view.quantum)}`);
    told.push(`removed ${LAYERS.removed.value(i).toFixed(2)} ${view.unit}`);
    if (stored.std) told.push(`uncertainty ${LAYERS.uncertainty.value(i).toPrecision(2)}`);
    values.textContent = `At ${mm} mm (right, front, up), voxel ${voxel} of the file: ${told.join(", ")}` +
      (loaded < view.shape[view.axis] ? `. Loading: ${Math.round((100 * loaded) / view.shape[view.axis])} %` : "");
  }

  function moveTo(at) { state.at = at; fill(); redraw(); }
  function step(axis, by) {
    const at = [...state.at];
    at[axis] = planes.clamp(at[axis] + by, 0, view.shape[axis] - 1);
    moveTo(at);
  }
  function zoomBy(factor) { state.zoom = planes.clamp(state.zoom * factor, 0.5, 20); redraw(); }
  function windowBy(width, height) { // wider to the right, brighter upwards
    const [low, high] = state.window, [, first, last] = view.windows[0], unitOf = (last - first) / 300;
    const middle = (low + high) / 2 - height * unitOf;
    const half = Math.max((high - low) / 2 + width * unitOf, unitOf);
    state.window = [middle - half, middle + half];
    state.preset = "";
    fill();
    redraw();
  }

  function connectPane(pane) {
    const { canvas } = pane, held = new Map();
    let kind = "", apartBefore = 0;
    const local = (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    const partAt = ([x, y]) => parts(canvas.clientWidth, canvas.clientHeight).find(({ box }) =>
      x >= box[0] && x < box[0] + box[2] && y >= box[1] && y < box[1] + box[3]);
    const go = (point) => {
      const part = partAt(point);
      if (part) moveTo(planes.voxelAt(...point, placed(part), view.shape, part.axis, state.at));
    };
    const swipe = ([x]) => {
      const { box } = partAt([x, 1]) || { box: [0, 0, canvas.clientWidth] };
      state.swipe = planes.clamp((x - box[0]) / box[2], 0, 1);
      redraw();
    };
    const nearDivider = (point) => {
      const part = partAt(point);
      return state.view === "swipe" && pane.names.length > 1 && part &&
        Math.abs(point[0] - part.box[0] - part.box[2] * state.swipe) < 14;
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      const point = local(event);
      held.set(event.pointerId, point);
      kind = event.button === 2 || event.shiftKey ? "window" : event.button === 1 ? "pan"
        : nearDivider(point) ? "swipe" : state.drag;
      if (held.size > 1) kind = "pinch";
      apartBefore = 0;
      if (kind === "place") go(point);
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = held.get(event.pointerId), now = local(event);
      if (!before) { canvas.style.cursor = nearDivider(now) ? "ew-resize" : "crosshair"; return; }
      held.set(event.pointerId, now);
      const moved = [now[0] - before[0], now[1] - before[1]];
      const scale = placed(parts(canvas.clientWidth, canvas.clientHeight)[0]).scale;
      if (kind === "pinch") {
        const [a, b] = [...held.values()], distance = Math.hypot(a[0] - b[0], a[1] - b[1]);
        if (apartBefore) zoomBy(distance / apartBefore);
        apartBefore = distance;
        state.pan = state.pan.map((v, i) => v + moved[i] / 2 / scale);
      } else if (kind === "window") windowBy(moved[0], moved[1]);
      else if (kind === "pan") { state.pan = state.pan.map((v, i) => v + moved[i] / scale); redraw(); }
      else if (kind === "swipe") swipe(now);
      else go(now);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => held.delete(event.pointerId));
    }
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (event.ctrlKey) zoomBy(event.deltaY < 0 ? 1.15 : 1 / 1.15);
      else step((partAt(local(event)) || { axis: through() }).axis, event.deltaY < 0 ? 1 : -1);
    }, { passive: false });
  }

  function onKey(event) {
    if (event.target.matches("select, input") || event.ctrlKey || event.metaKey || event.altKey) return;
    const axis = state.plane === "all" ? 2 : through(), [a, b] = planes.inPlane(axis);
    const left = planes.mirrored(axis) ? 1 : -1; // the patient's left is on the right
    const actions = {
      ArrowLeft: () => step(a, left), ArrowRight: () => step(a, -left),
      ArrowUp: () => step(b, 1), ArrowDown: () => step(b, -1),
      PageUp: () => step(through(), 1), PageDown: () => step(through(), -1),
      "+": () => zoomBy(1.25), "=": () => zoomBy(1.25), "-": () => zoomBy(0.8), 0: reset,
      "[": () => windowBy(-10, 0), "]": () => windowBy(10, 0),
      ",": () => windowBy(0, 10), ".": () => windowBy(0, -10),
      c: () => $("cross").click(), b: () => set("view", "side"), s: () => set("view", "swipe"),
      f: () => {
        if (state.view !== "flicker") set("view", "flicker");
        else { clearInterval(timer); state.flicked = !state.flicked; redraw(); }
      },
    };
    const action = actions[event.key];
    if (!action || (event.target.matches("button") && event.key.startsWith("Arrow"))) return;
    event.preventDefault();
    action();
  }

  function set(kind, value) { state[kind] = value; arrange(); }
  function reset() { state = { ...start(), tab: state.tab, view: state.view }; arrange(); }

  // On paper the checks are unfolded, and the rest is folded.
  function unfoldForPaper() {
    const folds = [...document.querySelectorAll("main > details")], open = folds.map((fold) => fold.open);
    addEventListener("beforeprint", () => folds.forEach((fold, i) => {
      open[i] = fold.open;
      fold.open = fold.id === "fold-checks";
    }));
    addEventListener("afterprint", () => folds.forEach((fold, i) => { fold.open = open[i]; }));
  }

  function connect() {
    for (const kind of ["tab", "view", "plane"]) {
      for (const button of viewer.querySelectorAll(`button[data-${kind}]`)) {
        button.addEventListener("click", () => set(kind, button.dataset[kind]));
      }
    }
    $("slice").addEventListener("input", () => step(through(), $("slice").value - state.at[through()]));
    $("window").addEventListener("change", () => {
      state.preset = $("window").value;
      if (state.preset) state.window = view.windows[Number(state.preset)].slice(1);
      fill();
      redraw();
    });
    $("change").addEventListener("change", () => { state.change = Number($("change").value); fill(); redraw(); });
    $("drag").addEventListener("change", () => { state.drag = $("drag").value; });
    $("cross").addEventListener("click", () => { state.cross = !state.cross; fill(); redraw(); });
    $("closer").addEventListener("click", () => zoomBy(1.25));
    $("further").addEventListener("click", () => zoomBy(0.8));
    $("reset").addEventListener("click", reset);
    viewer.addEventListener("keydown", onKey);
    addEventListener("resize", redraw);
    unfoldForPaper();
    for (const button of document.querySelectorAll("button.place")) {
      button.disabled = false;
      button.addEventListener("click", () => {
        if (state.tab === "histogram") set("tab", "compare");
        moveTo(planes.voxelOf(button.dataset.mm.split(" ").map(Number), view.affine, view.shape));
        viewer.scrollIntoView({ block: "start" });
        panes[0].canvas.focus({ preventScroll: true });
      });
    }
  }

  // Loading: the plane that is shown first, then outwards from it

  let loaded = 0;
  async function load(text, number) {
    const stream = new Blob([planes.bytesOf(text)]).stream()
      .pipeThrough(new DecompressionStream("deflate"));
    const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
    const [u, v] = planes.inPlane(view.axis);
    const found = planes.readPlane(bytes, view.shape[u], view.shape[v], view.layers, view.factor);
    for (const [name, plane] of Object.entries(found)) stored[name].set(plane, number * plane.length);
    loaded++;
  }

  if (!document.createElement("canvas").getContext("2d")) throw new Error("no canvas");
  const texts = $("plane-data").textContent.trim().split("\n");
  for (const name of ["before", "after", ...view.layers]) stored[name] = new Uint16Array(size);
  const first = state.at[view.axis];
  const order = texts.map((_, i) => i).sort((a, b) => Math.abs(a - first) - Math.abs(b - first));
  await load(texts[order[0]], order[0]);
  for (const fieldset of viewer.querySelectorAll("fieldset")) fieldset.disabled = false;
  connect();
  stage.dataset.loaded = "true";
  arrange();
  document.body.dataset.ready = "first";
  $("no-viewer").hidden = true;
  for (const [done, number] of order.slice(1).entries()) {
    await load(texts[number], number);
    if (done % 16 === 0) { redraw(); await new Promise((next) => { setTimeout(next); }); }
  }
  texts.length = 0;
  redraw();
  document.body.dataset.ready = "true";
})().catch((error) => {
  const told = document.getElementById("no-viewer");
  document.body.dataset.ready = "failed";
  told.hidden = false;
  told.append(` It stopped: ${error.message}`);
});
