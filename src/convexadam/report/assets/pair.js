"use strict";
(() => {
  const view = document.getElementById("view");
  const radios = (name) => [...document.querySelectorAll(`input[name="${name}"]`)];
  const names = { fixed: "fixed", before: "moving, before", after: "moved, after" };
  let moved = "after"; // what the fixed image alternates with

  const select = (name, value) => {
    const radio = radios(name).find((input) => input.value === value);
    if (!radio) return;
    radio.checked = true;
    show();
  };
  const chosen = (name) => radios(name).find((input) => input.checked).value;

  const show = () => {
    const base = chosen("base");
    if (base !== "fixed") moved = base;
    view.dataset.base = base;
    view.dataset.overlay = chosen("overlay");
    for (const label of document.querySelectorAll(".shown")) label.textContent = names[base];
  };
  const other = () => (chosen("base") === "fixed" ? moved : "fixed");
  const alternate = () => select("base", other());

  // Hover shows the other image in one slice only.
  const peek = (slice, inside) => {
    const base = inside ? other() : null;
    if (base) slice.dataset.base = base;
    else delete slice.dataset.base;
    for (const image of slice.querySelectorAll("img.fixed, img.before, img.after")) {
      image.style.visibility = base ? (image.classList.contains(base) ? "visible" : "hidden") : "";
    }
    slice.querySelector(".shown").textContent = names[base || chosen("base")];
  };

  let timer = null;
  const flicker = document.getElementById("flicker");
  const toggleFlicker = () => {
    if (timer) clearInterval(timer);
    timer = timer ? null : setInterval(alternate, 600);
    flicker.setAttribute("aria-pressed", String(Boolean(timer)));
  };

  for (const input of [...radios("base"), ...radios("overlay")]) input.addEventListener("change", show);
  for (const slice of document.querySelectorAll(".slice")) {
    slice.addEventListener("pointerenter", (event) => {
      if (event.pointerType === "mouse" && chosen("overlay") !== "checkerboard") peek(slice, true);
    });
    slice.addEventListener("pointerleave", () => peek(slice, false));
    slice.addEventListener("click", () => {
      peek(slice, false);
      alternate();
    });
  }
  flicker.addEventListener("click", toggleFlicker);
  const copy = document.getElementById("copy");
  if (copy) {
    copy.addEventListener("click", () => {
      const text = document.getElementById("command").textContent;
      navigator.clipboard.writeText(text).then(() => (copy.textContent = "Copied"), () => (copy.textContent = "Select and copy"));
    });
  }

  const bases = { f: "fixed", b: "before", m: "after" };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    const overlays = radios("overlay");
    if (key in bases) select("base", bases[key]);
    else if (key === "x") alternate();
    else if (key === "p") toggleFlicker();
    else if (/^[1-9]$/.test(key) && overlays[key - 1]) select("overlay", overlays[key - 1].value);
    else return;
    event.preventDefault();
  });
  for (const word of location.hash.slice(1).split(",")) { // report.html#before,outlines
    select("base", word);
    select("overlay", word);
  }
  show();
})();
