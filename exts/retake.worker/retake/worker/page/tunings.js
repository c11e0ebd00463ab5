// SPDX-License-Identifier: Apache-2.0
// Trainings of `retake tune` in the roots: progress, loss curve, newest validation picture, and a button to stop one.

import { $, announce, blob, el, forget, get, latest, post } from "./api.js";
import { seconds } from "./queue.js";

const EVERY_MS = 5000;
const WIDTH = 640, HEIGHT = 120, PAD = 4;
const SHOWN = { loss: "loss", validation_error: "validation", validation_falling: "validation, objects in free fall", critic: "critic" };
const items = new Map(); // key → { node, … }
const ask = latest(get);

export function start() {
  setInterval(() => { if (!document.hidden && !$("main").hidden) load(); }, EVERY_MS);
}

export async function load() {
  const data = await ask("/api/tunings");
  if (!data) return;
  $("tunings").hidden = data.tunings.length === 0;
  const list = $("tuning-list"), wanted = new Set(data.tunings.map((tuning) => tuning.key));
  for (const [key, item] of items) if (!wanted.has(key)) { item.node.remove(); items.delete(key); }
  data.tunings.forEach((tuning, index) => {
    const node = show(tuning);
    if (list.children[index] !== node) list.insertBefore(node, list.children[index] || null);
  });
}

function show(tuning) {
  let item = items.get(tuning.key);
  if (!item) { item = make(tuning); items.set(tuning.key, item); }
  if (item.state && item.state !== tuning.state) announce(`${tuning.name}: ${tuning.state}`);
  item.state = tuning.state;
  item.tag.textContent = tuning.state;
  item.tag.className = `tag ${{ finished: "done" }[tuning.state] || tuning.state}`;
  item.progress.max = tuning.steps;
  item.progress.value = tuning.step;
  item.line.textContent = describe(tuning);
  item.stop.hidden = tuning.state !== "running";
  item.command.textContent = tuning.command;
  item.goOn.hidden = tuning.state !== "stopped" || !tuning.command;
  if (tuning.changed_s !== item.changed) { item.changed = tuning.changed_s; draw(item, tuning); }
  return item.node;
}

function describe(tuning) {
  const parts = [tuning.what, `step ${tuning.step} of ${tuning.steps}`];
  if (tuning.latest.loss !== undefined) parts.push(`loss ${tuning.latest.loss.toPrecision(4)}`);
  if (tuning.latest.validation_falling !== undefined) parts.push(`objects in free fall ${tuning.latest.validation_falling.toPrecision(4)}`);
  if (tuning.seconds_per_step) parts.push(`${seconds(tuning.seconds_per_step)} per step`);
  if (tuning.eta_s !== null) parts.push(`about ${seconds(tuning.eta_s)} left`);
  parts.push(tuning.checkpoint ? `checkpoint of step ${tuning.checkpoint}` : "no checkpoint yet");
  return parts.join(" · ");
}

async function draw(item, tuning) {
  try {
    const { curves } = await get(`/api/tunings/${tuning.key}/curves`);
    item.plots.replaceChildren(...Object.keys(SHOWN).filter((name) => curves[name]?.length > 1).map((name) => plot(SHOWN[name], curves[name], tuning.name)));
  } catch { /* the folder has just gone */ }
  const newest = tuning.pictures.at(-1);
  if (!newest || newest === item.newest) return;
  const before = item.shownAs, path = `/api/tunings/${tuning.key}/picture/${newest}`;
  item.newest = newest;
  try {
    item.picture.src = await blob(path);
    item.picture.alt = `Held-back windows after ${newest.replace(/\D+/g, "")} steps of ${tuning.name}: simulated above, sampled below`;
    item.figure.hidden = false;
    item.caption.textContent = `${newest.replace(".png", "")}: simulated above, sampled below; objects outlined`;
    item.shownAs = path;
    if (before) forget(before);
  } catch { item.newest = ""; }
}

/** One curve; the axis runs from its smallest to its largest value, both written beside it. */
function plot(title, points, run) {
  const [first, last] = [points[0][0], points.at(-1)[0]], values = points.map(([, value]) => value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const x = (step) => PAD + (WIDTH - 2 * PAD) * (step - first) / Math.max(1, last - first);
  const y = (value) => HEIGHT - PAD - (HEIGHT - 2 * PAD) * (value - low) / Math.max(1e-12, high - low);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${title} of ${run}: ${values[0].toPrecision(3)} at step ${first}, ${values.at(-1).toPrecision(3)} at step ${last}`);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", points.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" "));
  svg.append(line);
  return el("figure", { className: "plot" }, svg, el("figcaption", {},
    el("strong", { textContent: title }), el("span", { textContent: ` ${low.toPrecision(3)} to ${high.toPrecision(3)}, steps ${first} to ${last}` })));
}

function make(tuning) {
  const item = {
    state: "", changed: 0, newest: "", shownAs: "",
    tag: el("span", { className: "tag" }),
    line: el("div", { className: "job-line" }),
    progress: el("progress", { aria_label: `Progress of ${tuning.name}` }),
    plots: el("div", { className: "plots" }),
    picture: el("img", { alt: "" }),
    caption: el("figcaption", {}),
    command: el("code", {}),
    stop: el("button", { className: "small", textContent: "Stop", aria_label: `Stop ${tuning.name}`, onclick: async () => {
      try { await post(`/api/tunings/${tuning.key}/stop`); announce(`${tuning.name} will stop after its step, with a checkpoint`); } catch (error) { announce(error.message); }
      load();
    } }),
  };
  item.figure = el("figure", { className: "validation", hidden: true }, item.picture, item.caption);
  item.goOn = el("p", { className: "job-line", hidden: true }, "Goes on with: ", item.command);
  item.details = el("details", { open: tuning.state === "running" }, el("summary", { textContent: "Curves and picture" }), item.plots, item.figure);
  item.node = el("li", { id: `tuning-${tuning.key}` },
    el("div", { className: "take-head" },
      el("div", {}, el("span", { className: "job-name", textContent: tuning.name }), " ", item.tag), item.stop),
    item.line, item.progress, item.goOn, item.details);
  return item;
}
