// SPDX-License-Identifier: Apache-2.0
// The page: sign in, listen, keep state, queue and gallery fresh.

import { $, announce, call, el, findToken, get, listen, post, Refused, setToken } from "./api.js";
import * as gallery from "./gallery.js";
import * as newTakes from "./new.js";
import * as queue from "./queue.js";
import * as tunings from "./tunings.js";

const GIB = 2 ** 30;
const WORDS = { absent: "Asleep", starting: "Starting", idle: "Ready", busy: "Working" };
let paused = false;

function showStatus(status) {
  paused = status.paused;
  $("pause").textContent = paused ? "Resume" : "Pause";
  $("pause").setAttribute("aria-pressed", String(paused));
  $("executor").textContent = paused && status.executor !== "busy" ? "Paused" : WORDS[status.executor] || status.executor;
  const detail = [];
  if (status.executor === "absent") detail.push("no memory held");
  if (status.executor_rss_bytes) detail.push(`${(status.executor_rss_bytes / GIB).toFixed(2)} GiB RAM`);
  if (status.tier) detail.push(`tier ${status.tier}`);
  if (status.waiting) detail.push(status.waiting);
  $("executor-detail").textContent = detail.join(" · ");
  $("notice").textContent = status.notice;
  $("notice").hidden = !status.notice;
  queue.showCounts(status.counts);
  $("gpus").replaceChildren(...(status.gpus.length ? status.gpus.map(gpu) : [el("p", { className: "big", textContent: "No GPU" }), el("p", { className: "quiet", textContent: "NVML sees no card; CPU backends work" })]));
}

function gpu(card) {
  const ours = card.processes.filter((p) => p.ours).reduce((sum, p) => sum + p.used_bytes, 0);
  const others = Math.max(0, card.used_bytes - ours);
  const bar = el("div", { className: "gpu-bar", role: "img", aria_label: `${(card.used_bytes / GIB).toFixed(1)} of ${(card.total_bytes / GIB).toFixed(1)} GiB used` });
  for (const [kind, bytes] of [["ours", ours], ["others", others]]) {
    const piece = el("i", { className: kind });
    piece.style.width = `${100 * bytes / card.total_bytes}%`;
    bar.append(piece);
  }
  const names = card.processes.filter((p) => !p.ours).map((p) => `${p.name} ${(p.used_bytes / GIB).toFixed(1)}`).join(", ");
  return el("div", { className: "gpu" }, el("strong", { textContent: card.name }), bar, el("div", { className: "keys" },
    el("span", { className: "key ours", textContent: `Retake ${(ours / GIB).toFixed(1)} GiB` }),
    el("span", { className: "key others", textContent: `others ${(others / GIB).toFixed(1)} GiB${names ? ` (${names})` : ""}` }),
    el("span", { className: "key", textContent: `free ${(card.free_bytes / GIB).toFixed(1)} of ${(card.total_bytes / GIB).toFixed(1)} GiB` })));
}

async function refresh() {
  try { showStatus(await get("/api/status")); } catch (error) { if (error instanceof Refused && error.status === 401) askToken("This token is not the worker's."); }
}

function onEvent(kind, data) {
  if (kind === "hello") { refresh(); queue.load(); gallery.load(); tunings.load(); }
  if (kind === "status") refresh();
  if (kind === "queue") { queue.showCounts(data.counts); queue.soon(); }
  queue.onEvent(kind, data);
  if (kind === "job" && data.job.state === "done") gallery.soon();
}

function onState(state) {
  $("connection").className = `connection ${state === "live" ? "live" : ""}`;
  $("connection").textContent = state === "live" ? `Connected to ${location.host}` : "Not connected; trying again …";
  for (const id of ["new", "pause", "release"]) $(id).disabled = state !== "live";
  if (state === "refused") askToken("This token is not the worker's.");
}

function askToken(reason) {
  $("main").hidden = true;
  $("sign-in").hidden = false;
  $("sign-in-error").textContent = reason;
  $("token").focus();
}

function run() {
  $("sign-in").hidden = true;
  $("main").hidden = false;
  listen(onEvent, onState);
}

$("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  setToken($("token").value);
  try { await call("GET", "/api/status"); run(); } catch (error) { $("sign-in-error").textContent = error.message; }
});
$("pause").addEventListener("click", async () => { showStatus(await post(paused ? "/api/queue/resume" : "/api/queue/pause")); announce(paused ? "Queue paused" : "Queue goes on"); });
$("release").addEventListener("click", async () => { showStatus(await post("/api/release")); announce("GPU memory freed"); queue.soon(); });
queue.start();
gallery.start();
tunings.start();
newTakes.start(queue.soon);
setInterval(() => { if (!document.hidden && !$("main").hidden) refresh(); }, 3000);
if (findToken()) run(); else askToken("");
