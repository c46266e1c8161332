"use strict";
// Sorts the table by the column whose heading is pressed; again turns the order round.
(() => {
  const table = document.getElementById("results");
  const heads = [...table.tHead.rows[0].cells];

  function compare(a, b, sign) { // rows without a value come last, whatever the order
    if (a === "" || b === "") return (a === "" ? 1 : 0) - (b === "" ? 1 : 0);
    const [x, y] = [Number(a), Number(b)];
    const numbers = !Number.isNaN(x) && !Number.isNaN(y);
    return sign * (numbers ? x - y : a.localeCompare(b));
  }

  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.value;
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => compare(value(a), value(b), sign));
      table.tBodies[0].append(...rows);
    });
  });
})();
