// SPDX-License-Identifier: Apache-2.0
// The gallery: simulation | skeleton | take side by side, one clock for the three. Videos load when they come into view.

import { $, blob, el, get, latest } from "./api.js";

const PAGE = 12;
const CAPTIONS = { simulation: "Simulation", skeleton: "Skeleton", take: "Take" };
const DRIFT_S = 0.04; // less than a frame at 24 fps
let shown = PAGE;
let timer = 0;
const cards = new Map();
const ask = latest(get); // another filter may be chosen while an answer is on its way
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { seen.unobserve(entry.target); entry.target.fill(); }
}, { rootMargin: "300px" });

export function start() {
  for (const part of ["episode", "variant", "verdict"]) $(`filter-${part}`).addEventListener("change", () => { shown = PAGE; load(); });
  $("takes-more").addEventListener("click", () => { shown += PAGE; load(); });
}

export function soon() {
  if (!timer) timer = setTimeout(() => { timer = 0; load(); }, 700);
}

export async function load() {
  const query = new URLSearchParams({ limit: String(Math.min(shown, 1000)) });
  for (const part of ["episode", "variant", "verdict"]) if ($(`filter-${part}`).value) query.set(part, $(`filter-${part}`).value);
  const data = await ask(`/api/takes?${query}`);
  if (!data) return;
  choices("episode", data.episodes);
  choices("variant", data.variants);
  choices("verdict", data.verdicts);
  $("gallery-count").textContent = data.total ? `(${data.total})` : "";
  const list = $("takes"), wanted = new Set(data.takes.map(identity));
  for (const [key, node] of cards) if (!wanted.has(key)) { node.remove(); cards.delete(key); }
  data.takes.forEach((take, index) => {
    const key = identity(take);
    if (!cards.has(key)) { const node = make(take); cards.set(key, node); seen.observe(node); }
    if (list.children[index] !== cards.get(key)) list.insertBefore(cards.get(key), list.children[index] || null);
  });
  $("takes-more").hidden = data.takes.length >= data.total;
  $("takes-empty").hidden = data.total > 0;
}

const identity = (take) => `${take.key}/${take.made_s}/${take.verdict}`;

function choices(part, values) {
  const select = $(`filter-${part}`), chosen = select.value;
  if ([...select.options].slice(1).map((o) => o.value).join("\n") === values.join("\n")) return;
  select.replaceChildren(el("option", { value: "", textContent: "all" }), ...values.map((v) => el("option", { value: v, textContent: v })));
  select.value = values.includes(chosen) ? chosen : "";
}

function make(take) {
  const videos = {};
  const screens = el("div", { className: "screens" }, ...Object.entries(CAPTIONS).map(([part, caption]) => {
    const there = take.parts.includes(part);
    const screen = there
      ? el("video", { muted: true, playsInline: true, preload: "auto", aria_label: `${caption} of ${take.id}`, tabIndex: -1 })
      : el("div", { className: "none", textContent: "not in this run" });
    if (there) videos[part] = screen;
    return el("figure", {}, screen, el("figcaption", { textContent: caption }));
  }));
  const play = el("button", { className: "play", textContent: "Play", aria_label: `Play ${take.id}`, disabled: true });
  const slider = el("input", { type: "range", min: "0", max: "1000", value: "0", aria_label: `Position in ${take.id}`, disabled: true });
  const where = el("output", { textContent: "" });
  const node = el("li", { id: `take-${take.key}` },
    el("div", { className: "take-head" },
      el("h3", { textContent: take.id }),
      el("span", {}, el("span", { className: `tag ${take.verdict}`, textContent: take.verdict }), " ",
        el("span", { className: "tag", textContent: take.backend }), " ",
        el("span", { className: "quiet", textContent: `${take.run} · variant ${take.variant} · seed ${take.seed} · ${take.frames} frames` })),
      el("p", { className: "prompt", textContent: take.prompt })),
    screens,
    el("div", { className: "transport" }, play, slider, where));
  node.fill = () => fill(take, videos, play, slider, where);
  return node;
}

async function fill(take, videos, play, slider, where) {
  const master = videos.take, all = Object.values(videos);
  const name = { take: `${take.key}/${take.made_s}`, simulation: `sim/${take.source}`, skeleton: `skeleton/${take.source}` };
  await Promise.all(Object.entries(videos).map(async ([part, video]) => {
    try {
      video.src = await blob(`/api/takes/${take.key}/${part}`, name[part]);
      await new Promise((go, stop) => { video.onloadeddata = go; video.onerror = stop; });
    } catch (error) {
      if (video !== master) video.replaceWith(el("div", { className: "none", textContent: error.message || "cannot be played" }));
      delete videos[part];
    }
  }));
  if (!videos.take) { where.textContent = "cannot be played"; return; }
  const others = () => all.filter((v) => v !== master && v.isConnected);
  const tell = () => {
    const frame = Math.min(take.frames, Math.floor(master.currentTime * take.fps + 1e-3) + 1);
    where.textContent = `frame ${frame} / ${take.frames}`;
    if (master.duration) slider.value = String(1000 * master.currentTime / master.duration);
  };
  const align = (exact) => {
    for (const video of others()) {
      const at = Math.min(master.currentTime, video.duration || 0);
      if (Math.abs(video.currentTime - at) > (exact ? 0.001 : DRIFT_S)) video.currentTime = at;
    }
  };
  const follow = () => {
    tell();
    align(false);
    if (!master.paused && !master.ended) requestAnimationFrame(follow);
  };
  play.addEventListener("click", async () => {
    if (!master.paused) { for (const v of all) v.pause(); align(true); return; }
    if (master.ended || master.currentTime >= master.duration - 0.01) master.currentTime = 0;
    align(true);
    await Promise.all([master, ...others()].map((v) => v.play().catch(() => {})));
    follow();
  });
  master.addEventListener("play", () => { play.textContent = "Pause"; });
  for (const event of ["pause", "ended"]) master.addEventListener(event, () => { play.textContent = "Play"; for (const v of others()) v.pause(); tell(); });
  slider.addEventListener("input", () => {
    for (const v of all) v.pause();
    master.currentTime = (Number(slider.value) / 1000) * master.duration;
    align(true);
    tell();
  });
  play.disabled = slider.disabled = false;
  tell();
}
