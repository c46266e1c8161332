"use strict";
// Pure functions of the page over several scans.
const table = (() => {
  function compare(a, b, sign) { // rows without a value come last, whatever the order
    if (a === "" || b === "") return (a === "" ? 1 : 0) - (b === "" ? 1 : 0);
    const [x, y] = [Number(a), Number(b)];
    const numbers = !Number.isNaN(x) && !Number.isNaN(y);
    return sign * (numbers ? x - y : a.localeCompare(b));
  }

  // The rows that are in view, a few more on each side, in whole lines of `across` rows.
  function visible(total, top, height, rowHeight, across = 1) {
    const lines = Math.ceil(total / across);
    const first = Math.max(0, Math.floor(top / rowHeight) - 6);
    const last = Math.min(lines, Math.ceil((top + height) / rowHeight) + 6);
    return {
      from: Math.min(total, first * across), to: Math.min(total, Math.max(first, last) * across),
      above: first * rowHeight, below: Math.max(0, lines - last) * rowHeight,
    };
  }

  function matches(row, words, show) {
    const text = row.text.toLowerCase();
    if (!words.toLowerCase().split(/\s+/).every((word) => text.includes(word))) return false;
    if (show === "all") return true;
    if (show === "alarm") return row.alarms > 0;
    if (show === "notice") return row.notices > 0;
    if (show === "far") return row.far;
    return show === "unrated" ? !row.rating : row.rating === show;
  }

  // A line of a CSV file; what a spreadsheet would run as a formula is kept text.
  function csvLine(cells) {
    return cells.map((cell) => {
      const text = String(cell);
      const safe = /^[=+@\t\r]|^-(?![\d.])/.test(text) ? `'${text}` : text;
      return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
    }).join(",");
  }

  // Ratings that were read from a file; what is no rating is left out.
  function ratings(text) {
    const found = JSON.parse(text).ratings;
    const known = ["keep", "look", "exclude"];
    return Object.fromEntries(Object.entries(found).filter(([, rating]) => known.includes(rating)));
  }

  // The dot that lies next to a point, no further than `most`; -1 if none does.
  function nearest(dots, x, y, most) {
    let found = -1, least = most * most;
    dots.forEach(([dx, dy], i) => {
      const away = (dx - x) ** 2 + (dy - y) ** 2;
      if (away <= least) [found, least] = [i, away];
    });
    return found;
  }

  return { compare, visible, matches, csvLine, ratings, nearest };
})();
if (typeof module !== "undefined") module.exports = table;
