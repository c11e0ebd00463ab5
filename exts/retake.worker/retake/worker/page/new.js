// SPDX-License-Identifier: Apache-2.0
// "New takes": choose run, camera, variants and seeds; everything else has a default.

import { $, announce, el, get, post } from "./api.js";

let runs = [];

export function start(onQueued) {
  $("new").addEventListener("click", open);
  $("new-cancel").addEventListener("click", () => $("new-dialog").close());
  $("new-run").addEventListener("change", showRun);
  $("new-camera").addEventListener("change", showVariants);
  $("new-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    $("new-error").textContent = "";
    try {
      const answer = await post("/api/jobs", { jobs: jobs() });
      announce(`${answer.created} takes queued`);
      $("new-dialog").close();
      onQueued();
    } catch (error) { $("new-error").textContent = error.message; }
  });
}

async function open() {
  const [data, status] = await Promise.all([get("/api/runs"), get("/api/status")]);
  runs = data.runs;
  $("new-error").textContent = runs.length ? "" : "No run with a skeleton and variants lies in the worker's roots yet; `retake run` makes one.";
  $("new-submit").disabled = runs.length === 0;
  fill("new-run", runs.map((run, index) => [String(index), run.name]));
  fill("new-backend", status.backends.filter((name) => data.take_backends.includes(name)).map((name) => [name, name]));
  if (data.take_backends.includes("composite")) $("new-backend").value = "composite";
  $("new-unavailable").replaceChildren(...Object.entries(data.unavailable).map(([name, why]) => el("li", { textContent: `${name}: ${why}` })));
  showRun();
  $("new-dialog").showModal();
}

function showRun() {
  const run = runs[Number($("new-run").value)] || { cameras: [], variants: [] };
  fill("new-camera", run.cameras.map((name) => [name, name]));
  showVariants();
}

function showVariants() {
  const run = runs[Number($("new-run").value)] || { variants: [] }, camera = $("new-camera").value;
  fill("new-variants", run.variants.filter((v) => !v.camera || v.camera === camera).map((v) => [v.id, v.prompt ? `${v.id}: ${v.prompt.slice(0, 80)}` : v.id]));
  for (const option of $("new-variants").options) option.selected = true;
}

const fill = (id, pairs) => $(id).replaceChildren(...pairs.map(([value, text]) => el("option", { value, textContent: text })));

function jobs() {
  const run = runs[Number($("new-run").value)], camera = $("new-camera").value;
  let settings;
  try { settings = JSON.parse($("new-settings").value || "{}"); } catch { throw new Error("Settings are no JSON object, e.g. {\"steps\": 20}"); }
  const wanted = [...$("new-variants").selectedOptions].map((option) => run.variants.find((v) => v.id === option.value));
  if (!wanted.length) throw new Error("Choose at least one variant.");
  const made = [];
  for (const variant of wanted) {
    for (let k = 0; k < Number($("new-seeds").value); k += 1) {
      const seed = Number($("new-seed").value) + k, backend = $("new-backend").value;
      const request = {
        episode: run.episode, camera, skeleton: run.skeletons[camera], variant: variant.folder,
        prompt: $("new-prompt").value.trim() || variant.prompt || run.task, negative_prompt: variant.negative_prompt, seed,
        frames: Number($("new-frames").value), start: 0, settings,
      };
      made.push({ kind: "take", backend, request, output: variant.outputs[backend].replace("{seed}", seed) });
    }
  }
  return made;
}
