// SPDX-License-Identifier: Apache-2.0
// Talking to the worker. The token travels in a header only, so videos and pictures are fetched and shown as blobs.

let token = "";
const blobs = new Map(); // path → object URL, most recently used last
const KEEP_BLOBS = 120;

export class Refused extends Error {
  constructor(status, text) { super(text); this.status = status; }
}

// `retake worker open` puts the token behind the '#', which browsers send to nobody; it leaves the address bar at once.
export function findToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem("retake-token", given);
    history.replaceState(null, "", location.pathname);
  }
  token = sessionStorage.getItem("retake-token") || "";
  return token !== "";
}

export function setToken(text) {
  token = text.trim();
  sessionStorage.setItem("retake-token", token);
}

export async function call(method, path, body) {
  const options = { method, headers: { Authorization: `Bearer ${token}` } };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const answer = await fetch(path, options);
  const data = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, data.error || `the worker answered ${answer.status}`);
  return data;
}

export const get = (path) => call("GET", path);
export const post = (path, body = {}) => call("POST", path, body);

// `ask`, but only the last question counts: an answer that comes after a later question was put is null, as a failure is.
export function latest(ask) {
  let last = 0;
  return async (...question) => {
    const mine = ++last;
    const answer = await ask(...question).catch(() => null);
    return mine === last ? answer : null;
  };
}

// An object URL of a file of the worker; `name` lets equal files (one simulation, many takes) share one download.
export function blob(path, name = path) {
  if (!blobs.has(name)) {
    const loading = fetch(path, { headers: { Authorization: `Bearer ${token}` } }).then(async (answer) => {
      if (!answer.ok) throw new Refused(answer.status, (await answer.json().catch(() => ({}))).error || "not there");
      return URL.createObjectURL(await answer.blob());
    });
    loading.catch(() => blobs.delete(name));
    blobs.set(name, loading);
    while (blobs.size > KEEP_BLOBS) {
      const [oldest, url] = blobs.entries().next().value;
      blobs.delete(oldest);
      url.then(URL.revokeObjectURL, () => {});
    }
  }
  return blobs.get(name);
}

export function forget(name) {
  const url = blobs.get(name);
  blobs.delete(name);
  if (url) url.then((u) => setTimeout(() => URL.revokeObjectURL(u), 2000), () => {});
}

// Server-sent events over fetch (EventSource cannot send a header). Reconnects until the token is refused.
export async function listen(onEvent, onState) {
  let wait = 500;
  for (;;) {
    try {
      const answer = await fetch("/api/events", { headers: { Authorization: `Bearer ${token}` } });
      if (answer.status === 401) { onState("refused"); return; }
      if (!answer.ok) throw new Refused(answer.status, "no events");
      onState("live");
      wait = 500;
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        text += value;
        let end;
        while ((end = text.indexOf("\n\n")) >= 0) {
          const event = parse(text.slice(0, end));
          text = text.slice(end + 2);
          if (event) onEvent(event.kind, event.data);
        }
      }
    } catch { /* the worker restarts, or the machine slept: try again */ }
    onState("lost");
    await new Promise((go) => setTimeout(go, wait));
    wait = Math.min(wait * 2, 8000);
  }
}

function parse(block) {
  let kind = "message", data = "";
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) kind = line.slice(7);
    else if (line.startsWith("data: ")) data += line.slice(6);
  }
  return data ? { kind, data: JSON.parse(data) } : null;
}

export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("aria") || name === "role" || name === "for") node.setAttribute(name.replace("aria_", "aria-"), value);
    else node[name] = value;
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export const $ = (id) => document.getElementById(id);
export const announce = (text) => { $("announce").textContent = text; };
