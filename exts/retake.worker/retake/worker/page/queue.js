// SPDX-License-Identifier: Apache-2.0
// The queue: one list item per job, updated in place so that focus and screen readers stay where they are.

import { $, announce, blob, el, forget, get, latest, post } from "./api.js";

const PAGE = 50;
let states = "running,queued";
let shown = PAGE;
let timer = 0;
const items = new Map(); // id → { node, job, … }
const ask = latest(get); // another tab may be chosen while an answer is on its way

export function start() {
  for (const tab of document.querySelectorAll(".tabs button")) {
    tab.addEventListener("click", () => {
      for (const other of document.querySelectorAll(".tabs button")) other.setAttribute("aria-pressed", String(other === tab));
      states = tab.dataset.states;
      shown = PAGE;
      load();
    });
  }
  $("jobs-more").addEventListener("click", () => { shown += PAGE; load(); });
}

export function soon() {
  if (!timer) timer = setTimeout(() => { timer = 0; load(); }, 250);
}

export async function load() {
  const data = await ask(`/api/jobs?state=${states}&limit=${Math.min(shown, 1000)}`);
  if (!data) return;
  showCounts(data.counts);
  const list = $("jobs"), wanted = new Set(data.jobs.map((job) => job.id));
  for (const [id, item] of items) if (!wanted.has(id)) { item.node.remove(); items.delete(id); }
  data.jobs.forEach((job, index) => {
    const node = show(job);
    if (list.children[index] !== node) list.insertBefore(node, list.children[index] || null);
  });
  const total = states.split(",").reduce((sum, state) => sum + (data.counts[state] || 0), 0);
  $("jobs-more").hidden = data.jobs.length >= total;
  $("jobs-empty").hidden = data.jobs.length > 0;
  $("jobs-empty").textContent = states.startsWith("running") ? "Nothing to do. “New takes” queues some." : "None.";
}

export function showCounts(counts) {
  const active = counts.running + counts.queued;
  $("counts").textContent = active ? `${active} to do` : "Idle";
  const stopped = counts.failed + counts.quarantined + counts.cancelled;
  $("counts-detail").textContent = `${counts.done} done${stopped ? `, ${stopped} stopped` : ""}`;
}

export function onEvent(kind, data) {
  if (kind === "job") {
    const known = items.get(data.job.id);
    const changed = known && known.job.state !== data.job.state;
    showCounts(data.counts);
    if (changed) announce(`${name(data.job)}: ${data.job.state}`);
    if (known && states.includes(data.job.state)) show(data.job);
    // An answer on its way may be of before the change, and takes the row away.
    if (!known || changed || !states.includes(data.job.state)) soon();
  } else if (kind === "progress" || kind === "preview") {
    const known = items.get(data.id);
    if (known) show({ ...known.job, ...data });
  }
}

/** What a job makes: the folder's name below takes/ or variants/, world and camera; of another folder the last part. */
const name = (job) => {
  const [above, last] = job.output.split(/[\\/]/).slice(-2);
  return last === undefined || ["takes", "variants"].includes(above) ? (last ?? above) : `${above}/${last}`;
};

function show(job) {
  let item = items.get(job.id);
  if (!item) {
    item = make(job);
    items.set(job.id, item);
  }
  item.job = job;
  const running = job.state === "running";
  item.node.className = running ? "" : "plain";
  item.picture.hidden = !running;
  item.tag.textContent = job.state;
  item.tag.className = `tag ${job.state}`;
  item.progress.hidden = !running;
  if (running && job.total) { item.progress.max = job.total; item.progress.value = job.done; } else item.progress.removeAttribute("value");
  item.line.textContent = describe(job);
  item.error.textContent = job.error;
  item.error.hidden = !job.error;
  item.cancel.hidden = !["running", "queued"].includes(job.state);
  item.retry.hidden = !["failed", "cancelled", "quarantined"].includes(job.state);
  if (running && job.preview && job.preview !== item.preview) showPreview(item, job);
  return item.node;
}

function shortened(text, length) {
  return text.length > length ? `${text.slice(0, length - 1).trimEnd()}…` : text;
}

function describe(job) {
  const parts = [job.backend];
  if (job.request.prompt) parts.push(shortened(job.request.prompt, 90));
  if (job.state === "running") {
    parts.length = 1;
    parts.push(job.note || (job.total ? "working" : "starting"));
    if (job.total) parts.push(`${job.done} of ${job.total}`);
    if (job.eta_s !== null && job.eta_s !== undefined) parts.push(`about ${seconds(job.eta_s)} left`);
  }
  if (job.state === "done" && job.result.run) parts.push(`took ${seconds(job.result.run.total_s)}`);
  if (job.attempts > 1) parts.push(`attempt ${job.attempts} of ${job.max_attempts}`);
  return parts.join(" · ");
}

export function seconds(s) {
  if (s < 90) return `${Math.max(0, s).toFixed(s < 10 ? 1 : 0)} s`;
  return s < 5400 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`;
}

async function showPreview(item, job) {
  const before = item.shownAs;
  item.preview = job.preview;
  const key = `preview/${job.id}/${job.preview}`;
  try {
    item.picture.src = await blob(`/api/jobs/${job.id}/preview`, key);
    item.picture.alt = `Preview of ${name(job)}`;
    item.shownAs = key;
    if (before) forget(before);
  } catch { /* the job has just ended */ }
}

function make(job) {
  const label = name(job);
  const act = (verb) => async () => {
    try { await post(`/api/jobs/${job.id}/${verb}`); } catch (error) { announce(error.message); }
    soon();
  };
  const button = (text, call) => el("button", { className: "small", textContent: text, aria_label: `${text} ${label}`, onclick: call });
  const item = {
    job, preview: 0, shownAs: "",
    picture: el("img", { alt: "", hidden: true }),
    tag: el("span", { className: "tag" }),
    line: el("div", { className: "job-line" }),
    error: el("div", { className: "job-error" }),
    progress: el("progress", { aria_label: `Progress of ${label}` }),
    cancel: button("Cancel", act("cancel")),
    retry: button("Retry", act("retry")),
    log: button("Log", async () => {
      $("log-title").textContent = `Log of ${label}`;
      $("log-text").textContent = (await get(`/api/jobs/${job.id}/log`)).log || "Nothing yet.";
      $("log-dialog").showModal();
    }),
  };
  item.node = el("li", { id: `job-${job.id}` },
    item.picture,
    el("div", {}, el("div", {}, el("span", { className: "job-name", textContent: label }), " ", item.tag), item.line, item.error, item.progress),
    el("div", { className: "actions" }, item.log, item.retry, item.cancel));
  return item;
}
