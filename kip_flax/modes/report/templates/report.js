// One slider per run: it chooses the frame of pictures (a rule of the style sheet), draws the
// labels of that step and moves the line in the charts. The place is kept in the address, so that
// a page that reloads while its run goes on stays where it was. Works from a file, offline.
"use strict";

const HEIGHT = 60;
const runs = [...document.querySelectorAll(".run")].map(makeRun);
restore();
document.querySelectorAll("[data-copy]").forEach(makeCopyButton);
addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
});
if (document.body.dataset.reload) watch(Number(document.body.dataset.reload));

function makeRun(root) {
  const slider = root.querySelector("input[type=range]");
  if (!slider) return null;
  const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  const run = { root, slider, data, timer: 0, decoded: [] };
  slider.addEventListener("input", () => { stop(run); show(run); remember(); });
  root.querySelector("[data-back]").addEventListener("click", () => move(run, -1));
  root.querySelector("[data-on]").addEventListener("click", () => move(run, 1));
  root.querySelector("[data-play]").addEventListener("click", () => play(run));
  return run;
}

function move(run, by) {
  stop(run);
  run.slider.value = Number(run.slider.value) + by;
  show(run);
  remember();
}

function play(run) {
  if (run.timer) return stop(run);
  if (run.slider.value === run.slider.max) run.slider.value = 0;
  show(run);
  run.root.querySelector("[data-play]").textContent = "Pause";
  run.timer = setInterval(() => {
    run.slider.value = Number(run.slider.value) + 1;
    show(run);
    if (run.slider.value === run.slider.max) { stop(run); remember(); }
  }, 700);
}

function stop(run) {
  clearInterval(run.timer);
  run.timer = 0;
  run.root.querySelector("[data-play]").textContent = "Play";
}

function show(run) {
  const at = Number(run.slider.value);
  const frame = run.data.frames[at];
  run.root.dataset.step = frame.step;
  run.slider.setAttribute("aria-valuetext", frame.text);
  run.root.querySelector("output").textContent = frame.text;
  for (const chart of run.root.querySelectorAll("svg[data-scale]")) {
    const [left, width, last] = chart.dataset.scale.split(" ").map(Number);
    const x = left + width * Math.log1p(frame.step) / Math.log1p(last || 1);
    const line = chart.querySelector(".cursor");
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
  }
  const labels = run.decoded[at] ||= decode(frame);
  run.root.querySelectorAll(".cards > li").forEach((card, i) => {
    drawLabel(run.data, card, i, labels.subarray(i * run.data.names.length));
  });
}

function decode(frame) {
  const bytes = Uint8Array.from(atob(frame.values), (c) => c.charCodeAt(0));
  return Float32Array.from(new Int16Array(bytes.buffer), (v) => v * frame.scale);
}

function drawLabel(data, card, i, row) {
  const own = data.own[i], [low, high] = data.range, unit = HEIGHT / (high - low);
  let bars = "", ownBar = "";
  data.names.forEach((_, k) => {
    const bar = `M${10 * k + 1} ${(high * unit).toFixed(1)}h8V${((high - row[k]) * unit).toFixed(1)}h-8z`;
    if (k === own) ownBar = bar; else bars += bar;
  });
  card.querySelector(".other").setAttribute("d", bars);
  card.querySelector(".own").setAttribute("d", ownBar);
  card.querySelector(".value").textContent = number(row[own]);
  const order = data.names.map((_, k) => k).sort((a, b) => Math.abs(row[b]) - Math.abs(row[a]));
  const words = order.slice(0, 3).map((k) => `${data.names[k]} ${number(row[k])}`).join(", ");
  card.querySelector(".bars").setAttribute("aria-label", `Label of image ${data.numbers[i]}: ${words}`);
}

function number(value) {
  return value.toFixed(2).replace("-", "−");
}

function place() {
  return new URLSearchParams(location.hash.slice(1));
}

function remember() {
  const state = new URLSearchParams();
  runs.forEach((run, n) => {
    if (run && run.slider.value !== run.slider.max) state.set(`step${n}`, run.root.dataset.step);
  });
  const open = [...document.querySelectorAll("details[open]")].map((fold) => fold.id);
  if (open.length) state.set("open", open.join(" "));
  history.replaceState(null, "", "#" + state);
}

function restore() {
  const state = place();
  for (const id of (state.get("open") || "").split(" ")) {
    const fold = id && document.getElementById(id);
    if (fold) fold.open = true;
  }
  runs.forEach((run, n) => {
    const at = run ? run.data.frames.findIndex((f) => String(f.step) === state.get(`step${n}`)) : -1;
    if (at >= 0) { run.slider.value = at; show(run); }
  });
  for (const fold of document.querySelectorAll("details")) fold.addEventListener("toggle", remember);
}

function makeCopyButton(button) {
  const code = document.getElementById(button.dataset.copy);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected: now copy";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}

function watch(seconds) {
  let held = false;
  addEventListener("pointerdown", () => { held = true; });
  addEventListener("pointerup", () => { held = false; });
  setInterval(() => {
    const busy = held || document.hidden || runs.some((run) => run && run.timer);
    if (!busy && getSelection().isCollapsed) location.reload();
  }, seconds * 1000);
}
