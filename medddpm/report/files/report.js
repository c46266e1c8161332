"use strict";
// The viewer of a report: one NiiVue canvas a pane, all of them driven by `state`.
(async () => {
  const $ = (id) => document.getElementById(id);
  const view = JSON.parse($("view-data").textContent);
  const AXES = ["x", "y", "z"];
  const PLANES = { sagittal: 0, coronal: 1, axial: 2 };
  const middle = view.shape.map((n) => Math.floor(n / 2));
  const start = () => ({
    at: [...middle], plane: "axial", view: "side", swipe: 50,
    window: view.window[1] - view.window[0], level: (view.window[0] + view.window[1]) / 2,
    change: view.change,
  });
  let state = start();

  // Data: bytes to volumes

  async function inflate(text) {
    const letters = atob(text);
    const bytes = new Uint8Array(letters.length);
    for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  async function readVolumes() {
    const levels = await inflate(view.data.after);
    const folded = await inflate(view.data.removed);
    const size = levels.length;
    const step = view.quantum * view.factor;
    const removed = new Int16Array(size);
    const before = new Float32Array(size);
    for (let i = 0; i < size; i++) {
      const z = folded[i] | (folded[i + size] << 8);
      removed[i] = (z >>> 1) ^ -(z & 1);
      before[i] = view.floor + step * levels[i] + view.quantum * removed[i];
    }
    const found = {
      before: { array: before, type: 16, slope: 1, start: 0 },
      after: { array: levels, type: 2, slope: step, start: view.floor },
      residual: { array: removed, type: 4, slope: view.quantum, start: 0 },
    };
    if (view.data.std) {
      const array = await inflate(view.data.std);
      found.uncertainty = { array, type: 2, slope: view.std_top / view.std_levels, start: 0 };
    }
    if (view.data.reference) {
      const array = await inflate(view.data.reference);
      found.reference = { array, type: 2, slope: step, start: view.floor };
    }
    return found;
  }

  function nifti(volume) {
    const bytes = niivue.NVImage.createNiftiArray(
      view.shape, view.spacing, view.affine, volume.type, volume.array);
    const header = new DataView(bytes.buffer, bytes.byteOffset);
    header.setFloat32(112, volume.slope, true); // scl_slope and scl_inter
    header.setFloat32(116, volume.start, true);
    return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  }

  // Panes

  const CHANGE = { // that of the static pictures: blue is less, orange is more
    R: [191, 58, 20, 0, 138, 240, 255], G: [230, 160, 80, 0, 52, 138, 227],
    B: [255, 232, 127, 0, 16, 60, 184], A: [255, 255, 255, 255, 255, 255, 255],
    I: [0, 43, 85, 128, 170, 213, 255],
  };

  async function makePane(name, volume) {
    const nv = new niivue.Niivue({
      isRadiologicalConvention: true, dragAndDropEnabled: false, loadingText: "", logLevel: "error",
      crosshairColor: [0.95, 0.65, 0.15, 0.8], crosshairWidth: 0.4, multiplanarShowRender: 0, isNearestInterpolation: true,
      viewModeHotKey: "", clipPlaneHotKey: "", cycleClipPlaneHotKey: "", dragMode: 0,
      isAlphaClipDark: false,
    });
    await nv.attachToCanvas($(`canvas-${name}`), false);
    nv.addColormap("change", CHANGE);
    const colours = { residual: "change", uncertainty: "inferno" }[name] || "gray";
    nv.addVolume(
      await niivue.NVImage.new(nifti(volume), `${name}.nii`, colours, 1, null, ...range(name)));
    nv.onLocationChange = () => moveTo(nv.scene.crosshairPos, name);
    return nv;
  }

  function range(name) {
    if (name === "residual") return [-state.change, state.change];
    if (name === "uncertainty") return [0, view.std_window || 1];
    return [state.level - state.window / 2, state.level + state.window / 2];
  }

  let panes = {}, volumes = {};

  function eachPane(action) {
    for (const [name, nv] of Object.entries(panes)) action(nv, name);
  }

  function showWindow() {
    eachPane((nv, name) => {
      const [low, high] = range(name), shown = nv.volumes[0];
      if (shown.cal_min === low && shown.cal_max === high) return;
      [shown.cal_min, shown.cal_max] = [low, high];
      nv.updateGLVolume();
    });
  }

  let waiting = false;
  function showWindowSoon() { // once a frame, however fast the slider moves
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; showWindow(); });
  }

  function showSlice() {
    const place = state.at.map((i, axis) => (i + 0.5) / view.shape[axis]);
    eachPane((nv) => { nv.scene.crosshairPos = place; nv.drawScene(); });
    showValues();
  }

  function showPlane() {
    const types = { sagittal: 2, coronal: 1, axial: 0, all: 3 };
    eachPane((nv) => nv.setSliceType(types[state.plane]));
    const swiping = state.view === "swipe";
    $("panes").dataset.view = state.view;
    $("panes").style.setProperty("--swipe", `${state.swipe}%`);
    $("row-swipe").hidden = !swiping;
    requestAnimationFrame(() => eachPane((nv) => nv.resizeListener()));
  }

  function moveTo(place, from) {
    state.at = view.shape.map((n, axis) =>
      Math.min(n - 1, Math.max(0, Math.floor(place[axis] * n))));
    eachPane((nv, name) => {
      if (name !== from) { nv.scene.crosshairPos = [...place]; nv.drawScene(); }
    });
    fillSliders();
    showValues();
  }

  // The inverse of the affine, by its adjugate: millimetres to voxels.
  function voxelOf(mm) {
    const a = view.affine;
    const column = (c) => [0, 1, 2].map((r) => a[4 * r + c]);
    const cross = (u, v) => [0, 1, 2].map((i) =>
      u[(i + 1) % 3] * v[(i + 2) % 3] - u[(i + 2) % 3] * v[(i + 1) % 3]);
    const dot = (u, v) => u[0] * v[0] + u[1] * v[1] + u[2] * v[2];
    const [x, y, z] = [0, 1, 2].map(column);
    const from = mm.map((value, r) => value - a[4 * r + 3]);
    const size = dot(x, cross(y, z));
    return [cross(y, z), cross(z, x), cross(x, y)].map((row, axis) =>
      Math.min(view.shape[axis] - 1, Math.max(0, Math.round(dot(row, from) / size))));
  }

  function showPlace(button) {
    state.at = voxelOf(button.dataset.mm.split(" ").map(Number));
    showSlice();
    fillSliders();
    $("viewer").scrollIntoView({ block: "start" });
    $("canvas-after").focus({ preventScroll: true });
  }

  function showValues() {
    const [x, y, z] = state.at;
    const index = x + view.shape[0] * (y + view.shape[1] * z);
    const told = Object.entries(volumes).map(([name, v]) =>
      `${name} ${(v.array[index] * v.slope + v.start).toPrecision(4)}`);
    const a = view.affine;
    const mm = [0, 1, 2].map((r) =>
      (a[4 * r] * x + a[4 * r + 1] * y + a[4 * r + 2] * z + a[4 * r + 3]).toFixed(1));
    $("values").textContent = `At ${mm.join(", ")} mm (right, front, up): ${told.join(", ")}`;
  }

  // Controls

  const SLIDERS = {
    x: { min: 0, max: view.shape[0] - 1, step: 1 },
    y: { min: 0, max: view.shape[1] - 1, step: 1 },
    z: { min: 0, max: view.shape[2] - 1, step: 1 },
    window: { min: view.window[1] / 50, max: 1.5 * view.window[1], step: view.window[1] / 100 },
    level: { min: 0, max: view.window[1], step: view.window[1] / 100 },
    change: { min: view.change / 8, max: 4 * view.change, step: view.change / 16 },
    swipe: { min: 0, max: 100, step: 1 },
  };

  function valueOf(name) {
    return AXES.includes(name) ? state.at[AXES.indexOf(name)] : state[name];
  }

  function fillSliders() {
    for (const [name, limits] of Object.entries(SLIDERS)) {
      const slider = $(name);
      Object.assign(slider, limits);
      slider.value = valueOf(name);
      const text = AXES.includes(name) ? `${valueOf(name) + 1} of ${limits.max + 1}`
        : name === "swipe" ? `${state.swipe} %` : String(Number(valueOf(name).toPrecision(3)));
      $(`${name}-value`).textContent = text;
      slider.setAttribute("aria-valuetext", text);
    }
    for (const name of ["view", "plane"]) {
      document.querySelector(`input[name=${name}][value=${state[name]}]`).checked = true;
    }
  }

  function change(name, value) {
    if (AXES.includes(name)) { state.at[AXES.indexOf(name)] = Number(value); showSlice(); }
    else if (["view", "plane"].includes(name)) { state[name] = value; showPlane(); }
    else {
      state[name] = Number(value);
      if (name === "swipe") $("panes").style.setProperty("--swipe", `${value}%`);
      else showWindowSoon();
    }
    fillSliders();
  }

  function onKey(event) {
    const across = { axial: [0, 1], coronal: [0, 2], sagittal: [1, 2], all: [0, 1] }[state.plane];
    const through = PLANES[state.plane] ?? 2;
    const left = across[0] === 0 ? 1 : -1; // the patient's left is on the right
    const moves = {
      ArrowLeft: [across[0], left], ArrowRight: [across[0], -left],
      ArrowUp: [across[1], 1], ArrowDown: [across[1], -1],
      PageUp: [through, 1], PageDown: [through, -1],
    };
    event.stopPropagation(); // NiiVue has keys of its own
    if (!(event.key in moves)) return;
    event.preventDefault();
    const [axis, step] = moves[event.key];
    const value = Math.min(view.shape[axis] - 1, Math.max(0, state.at[axis] + step));
    change(AXES[axis], value);
  }

  function connect() {
    for (const name of Object.keys(SLIDERS)) {
      $(name).addEventListener("input", (event) => change(name, event.target.value));
    }
    for (const radio of document.querySelectorAll("#viewer input[type=radio]")) {
      radio.addEventListener("change", () => change(radio.name, radio.value));
    }
    for (const kind of ["keydown", "keyup"]) {
      $("panes").addEventListener(kind, kind === "keydown" ? onKey : (e) => e.stopPropagation(),
        { capture: true });
    }
    for (const button of document.querySelectorAll("button.place")) {
      button.disabled = false;
      button.addEventListener("click", () => showPlace(button));
    }
    $("reset").addEventListener("click", () => { state = start(); showAll(); showWindow(); });
    $("divider").addEventListener("pointerdown", (event) => {
      const box = $("panes").querySelector("[data-pane=before]").getBoundingClientRect();
      const drag = (e) => change("swipe", Math.round(
        Math.min(100, Math.max(0, (100 * (e.clientX - box.left)) / box.width))));
      const divider = event.target;
      divider.setPointerCapture(event.pointerId);
      divider.addEventListener("pointermove", drag);
      divider.addEventListener("pointerup",
        () => divider.removeEventListener("pointermove", drag), { once: true });
    });
  }

  function showAll() { showPlane(); showSlice(); fillSliders(); }

  if (!document.createElement("canvas").getContext("webgl2")) return;
  if (typeof DecompressionStream === "undefined") return;
  $("viewer").hidden = false;
  volumes = await readVolumes();
  for (const name of Object.keys(volumes)) panes[name] = await makePane(name, volumes[name]);
  $("panes").style.setProperty("--columns", Object.keys(panes).length);
  connect();
  showAll();
  $("no-viewer").hidden = true;
  document.body.dataset.ready = "true";
})().catch((error) => {
  document.getElementById("viewer").hidden = true;
  document.getElementById("no-viewer").hidden = false;
  document.getElementById("no-viewer").append(` It stopped: ${error.message}`);
  console.error(error);
});
