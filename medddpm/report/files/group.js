"use strict";
// Sorts, filters and rates the scans of a group; of many, only the rows in view are in the page.
(() => {
  const $ = (id) => document.getElementById(id);
  const results = $("results"), body = results.tBodies[0], scroll = $("scroll");
  const heads = [...results.tHead.rows[0].cells];
  const MANY = 60, ROW = 68, CARD = 248, CARD_WIDTH = 160;
  const storage = `medddpm-ratings-${$("group").dataset.key}`;
  const rated = read();

  function read() {
    try { return JSON.parse(localStorage.getItem(storage)) || {}; } catch { return {}; }
  }
  function keep() {
    try { localStorage.setItem(storage, JSON.stringify(rated)); } catch { /* a private window */ }
  }

  const more = $("more") ? [...$("more").content.querySelectorAll("tr")] : [];
  const all = [...body.rows, ...more].map((element) => {
    const cells = [...element.cells], name = cells[0].dataset.value, link = cells[0].querySelector("a");
    return {
      element, cells, name, link: link && link.getAttribute("href"), rating: rated[name] || "",
      values: cells.map((cell) => cell.dataset.value), ready: false,
      far: "far" in element.dataset, text: `${name} ${cells[1].textContent}`,
      alarms: element.querySelectorAll(".chip.alarm").length,
      notices: element.querySelectorAll(".chip.notice").length,
    };
  });
  // Its rating and its pictures, when it is first shown.
  function elementOf(row) {
    if (row.ready) return row.element;
    row.ready = true;
    const cell = document.createElement("td"), select = document.createElement("select");
    select.className = "rate";
    select.setAttribute("aria-label", `Rating of ${row.name}`);
    for (const word of ["", "keep", "look", "exclude"]) select.add(new Option(word || "\u2013", word));
    select.value = row.rating;
    select.addEventListener("change", () => {
      rate(row, select.value);
      keep();
      count();
    });
    row.select = select;
    cell.append(select);
    row.cells[1].after(cell);
    const thumb = row.cells[0].querySelector(".thumb");
    for (const kind of thumb ? ["before", "after"] : []) {
      const image = new Image();
      image.src = thumb.dataset[kind];
      image.className = image.alt = kind;
      thumb.append(image);
    }
    return row.element;
  }
  function rate(row, rating) {
    row.rating = rating;
    if (row.select) row.select.value = rating;
    if (rating) rated[row.name] = rating;
    else delete rated[row.name];
  }
  const rateHead = document.createElement("th");
  rateHead.scope = "col";
  rateHead.textContent = "Rating";
  heads[1].after(rateHead);

  // What is shown

  let shown = all, printing = false;
  const space = (height) => {
    const row = document.createElement("tr"), cell = document.createElement("td");
    row.className = "space";
    row.style.cssText = `height: ${height}px !important`;
    cell.colSpan = 99;
    row.append(cell);
    return row;
  };
  function draw() {
    const mosaic = results.classList.contains("mosaic");
    if (shown.length <= MANY || printing) {
      body.replaceChildren(...shown.map(elementOf));
      delete results.dataset.virtual;
      return;
    }
    results.dataset.virtual = "true";
    results.style.setProperty("--row", `${ROW}px`);
    const across = mosaic ? Math.max(1, Math.floor((scroll.clientWidth - 8) / CARD_WIDTH)) : 1;
    const part = table.visible(
      shown.length, scroll.scrollTop, scroll.clientHeight, mosaic ? CARD : ROW, across);
    body.replaceChildren(space(part.above),
      ...shown.slice(part.from, part.to).map(elementOf), space(part.below));
  }
  let waiting = false;
  scroll.addEventListener("scroll", () => {
    if (waiting || shown.length <= MANY) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  });
  function count() {
    const number = (word) => all.filter((row) => row.rating === word).length;
    $("count").textContent = `${shown.length} of ${all.length} shown; rated: ${number("keep")} keep, ` +
      `${number("look")} look, ${number("exclude")} exclude`;
  }
  function filter() {
    shown = all.filter((row) => table.matches(row, $("find").value.trim(), $("show").value));
    scroll.scrollTop = 0;
    draw();
    count();
  }

  // Columns: of the heading, and of the cells by a rule of its own

  const rules = document.createElement("style");
  document.head.append(rules);
  function columns() {
    rules.textContent = [...document.querySelectorAll("[data-column]")].map((box) => {
      const place = [...results.tHead.rows[0].cells].findIndex((c) => c.dataset.key === box.dataset.column);
      return box.checked ? "" : `#results tr > :nth-child(${place + 1}) { display: none; }`;
    }).join("\n");
  }

  heads.forEach((head, place) => {
    head.querySelector("button").addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
      all.sort((a, b) => table.compare(a.values[place], b.values[place], sign));
      filter();
    });
  });

  // Files

  function download(name, type, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  $("csv").addEventListener("click", () => {
    const names = heads.map((head) => head.textContent.trim());
    const lines = shown.map((row) => {
      const found = [...row.cells[1].querySelectorAll(".alarm, .notice")].map((chip) => chip.title);
      return [row.name, found.join("; "), row.rating, ...row.values.slice(2)];
    });
    names.splice(2, 0, "Rating");
    download("scans.csv", "text/csv", [names, ...lines].map(table.csvLine).join("\n") + "\n");
  });
  $("save").addEventListener("click", () => download("ratings.json", "application/json",
    JSON.stringify({ ratings: rated }, null, 1) + "\n"));
  $("save-csv").addEventListener("click", () => download("ratings.csv", "text/csv",
    [["scan", "rating"], ...Object.entries(rated)].map(table.csvLine).join("\n") + "\n"));
  $("read").addEventListener("change", async () => {
    const [file] = $("read").files;
    if (!file) return;
    try {
      const found = table.ratings(await file.text());
      for (const row of all) if (found[row.name]) rate(row, found[row.name]);
      keep();
      filter();
    } catch { $("count").textContent = `${file.name} is no file of ratings`; }
  });

  // Distributions: the dot next to the pointer is named, and a press follows it

  const initial = [...all];
  for (const figure of document.querySelectorAll(".strips figure")) {
    const drawing = figure.querySelector("svg"), said = figure.querySelector("output");
    let dots = null;
    const at = (event) => {
      dots ||= [...figure.querySelector("path").getAttribute("d").matchAll(/M(-?[\d.]+) (-?[\d.]+)/g)]
        .map((found) => [Number(found[1]), Number(found[2])]);
      const box = drawing.getBoundingClientRect(), scale = 300 / box.width;
      return initial[table.nearest(dots, (event.clientX - box.left) * scale, (event.clientY - box.top) * scale, 8)];
    };
    drawing.addEventListener("pointermove", (event) => {
      const row = at(event), place = heads.findIndex((h) => h.dataset.key === figure.dataset.key);
      said.textContent = row ? `${row.name}: ${row.cells[place].textContent}` : "";
      drawing.style.cursor = row && row.link ? "pointer" : "";
    });
    drawing.addEventListener("pointerleave", () => { said.textContent = ""; });
    drawing.addEventListener("click", (event) => {
      const row = at(event);
      if (row && row.link && !event.target.closest("a")) location.href = row.link;
    });
  }

  $("find").addEventListener("input", filter);
  $("show").addEventListener("change", filter);
  $("mosaic").addEventListener("click", () => {
    const on = results.classList.toggle("mosaic");
    $("mosaic").setAttribute("aria-pressed", String(on));
    scroll.scrollTop = 0;
    draw();
  });
  const phone = matchMedia("(max-width: 40rem)").matches;
  for (const box of document.querySelectorAll("[data-column]")) {
    if (phone) box.checked = false;
    box.addEventListener("change", columns);
  }
  $("mosaic").hidden = !document.querySelector(".thumb");
  addEventListener("beforeprint", () => { printing = true; draw(); });
  addEventListener("afterprint", () => { printing = false; draw(); });
  addEventListener("resize", draw);
  $("controls").hidden = false;
  columns();
  filter();
  document.body.dataset.ready = "true";
})();
