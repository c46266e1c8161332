// Text that its box hides at the right, where no one can scroll to it; for a browser test.
[...document.querySelectorAll("h1, p, li, dd, dt, button, figcaption, summary, output, legend")]
  .filter((e) => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1
    && getComputedStyle(e).overflowX !== "auto" && getComputedStyle(e).display !== "inline")
  .map((e) => `${e.tagName} ${e.textContent.slice(0, 40)}`)
