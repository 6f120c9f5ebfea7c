"use strict";
(() => {
  const body = document.querySelector("table.pairs tbody");
  const rows = [...body.rows];
  const heads = [...document.querySelectorAll("table.pairs th[data-column]")];
  const search = document.getElementById("search");
  const grades = [...document.querySelectorAll('input[name="grade"]')];
  const ticks = [...document.querySelectorAll('input[name="exclude"]')];
  const status = document.getElementById("status");
  const store = `convexadam exclusions ${location.pathname}`;

  // Thumbnails are decoded when they come near the window.
  const load = (image) => {
    if (image.dataset.src) image.src = image.dataset.src;
    delete image.dataset.src;
  };
  const images = [...document.querySelectorAll("img[data-src]")];
  if ("IntersectionObserver" in window) {
    const observer = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        load(entry.target);
        observer.unobserve(entry.target);
      }
    }, { rootMargin: "400px" });
    for (const image of images) observer.observe(image);
  } else images.forEach(load);
  window.addEventListener("beforeprint", () => images.forEach(load));

  // Cells hold the value to sort by in data-value; empty cells come last either way.
  const value = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, undefined, { numeric: true }) : x - y;
  };
  const sort = (head) => {
    const column = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const ordered = rows.map((row, number) => [value(row, column), number, row]);
    ordered.sort(([a, m], [b, n]) => {
      if (a === "" || b === "") return (a === "") - (b === "") || m - n;
      return (down ? compare(b, a) : compare(a, b)) || m - n;
    });
    body.append(...ordered.map(([, , row]) => row));
  };
  for (const head of heads) head.querySelector("button").addEventListener("click", () => sort(head));

  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = new Set(grades.filter((input) => input.checked).map((input) => input.value));
    let count = 0;
    for (const row of rows) {
      const text = row.dataset.text;
      row.hidden = !shown.has(row.dataset.grade) || !words.every((word) => text.includes(word));
      count += !row.hidden;
    }
    const excluded = ticks.filter((tick) => tick.checked).length;
    status.textContent = `${count} of ${rows.length} shown, ${excluded} excluded`;
  };
  search.addEventListener("input", filter);
  for (const input of grades) input.addEventListener("change", filter);

  const mark = (tick) => tick.closest("tr").classList.toggle("excluded", tick.checked);
  const keep = () => {
    try {
      localStorage.setItem(store, JSON.stringify(ticks.filter((tick) => tick.checked).map((tick) => tick.value)));
    } catch { /* a browser may refuse to store anything for a file */ }
  };
  try {
    const kept = new Set(JSON.parse(localStorage.getItem(store) || "[]"));
    for (const tick of ticks) {
      tick.checked = kept.has(tick.value);
      mark(tick);
    }
  } catch { /* as above */ }
  for (const tick of ticks) {
    tick.addEventListener("change", () => {
      mark(tick);
      keep();
      filter();
    });
  }

  const quote = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const exclusions = () => {
    const lines = ticks.filter((tick) => tick.checked).map((tick) => {
      const row = tick.closest("tr");
      return [tick.value, row.dataset.grade, row.querySelector(".why").textContent.trim()].map(quote).join(",");
    });
    return ["id,verdict,reasons", ...lines].join("\n") + "\n";
  };
  document.getElementById("export").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([exclusions()], { type: "text/csv" }));
    link.download = "exclusions.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  document.getElementById("tick-failed").addEventListener("click", () => {
    for (const tick of ticks) {
      if (tick.closest("tr").dataset.grade !== "failed") continue;
      tick.checked = true;
      mark(tick);
    }
    keep();
    filter();
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target === search) return;
    if (event.key === "/") search.focus();
    else if (event.key === "e") document.getElementById("export").click();
    else if (event.key === "j" || event.key === "k") {
      const visible = [...body.rows].filter((row) => !row.hidden).map((row) => row.querySelector(".name > *"));
      const here = visible.findIndex((link) => link === document.activeElement);
      const next = visible[Math.min(visible.length - 1, Math.max(0, here + (event.key === "j" ? 1 : -1)))];
      if (next) next.focus();
    } else return;
    event.preventDefault();
  });
  filter();
})();
