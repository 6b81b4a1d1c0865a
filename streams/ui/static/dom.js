// Elements, numbers and times; nothing here knows what the page shows. Text never becomes markup.

export function h(tag, given = {}, ...children) {
  return filled(document.createElement(tag), given, children);
}

export function s(tag, given = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), given, children);
}

function filled(node, given, children) {
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined));
  return node;
}

export const $ = (id) => document.getElementById(id);

export function put(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter((c) => c !== null && c !== undefined));
}

export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// topic-partition@offset, which may break at dots and before the partition
export function place(text) {
  const node = h("code", { class: "place" });
  for (const part of (text ?? "").split(/(?<=[./])|(?=-\d+@)|(?=@)/)) node.append(part, h("wbr"));
  return node;
}

// ------------------------------------------------------------------ time: the server's clock, whatever this one says
let base = Date.now() - performance.now();
export const setNow = (ms) => { base = ms - performance.now(); };
export const now = () => base + performance.now();

export function age(seconds) {
  const t = Math.max(0, seconds);
  if (t < 100) return `${Math.floor(t)} s`;
  if (t < 6000) return `${Math.floor(t / 60)} min`;
  if (t < 172800) return `${(t / 3600).toFixed(1)} h`;
  return `${(t / 86400).toFixed(1)} d`;
}

export const since = (ms) => (ms === null || ms === undefined ? "" : age((now() - ms) / 1000));

export function utc(ms) {
  const when = new Date(ms);
  return Number.isNaN(when.getTime()) ? String(ms) : when.toISOString().slice(0, 16).replace("T", " ");
}

// ------------------------------------------------------------------ numbers
export const count = (n) => Number(n).toLocaleString("en");
export const many = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;
export function signed(x, digits = 3) {
  if (typeof x !== "number") return x === null || x === undefined ? "none" : String(x);
  return (x < 0 ? "\u2212" : "+") + Math.abs(x).toFixed(digits);
}
export function short(x) {
  if (typeof x !== "number") return String(x);
  const size = Math.abs(x);
  const text = size >= 1000 ? Math.round(size).toLocaleString("en") : String(Number(size.toPrecision(3)));
  return (x < 0 ? "\u2212" : "") + text;
}

// ------------------------------------------------------------------ asking the server
export class Refused extends Error {
  constructor(text, near) { super(text); this.near = near ?? []; }
}

export async function ask(path, values = {}) {
  return answered(await fetch(`${path}?${new URLSearchParams(values)}`));
}

export async function order(path, body) {
  const token = document.querySelector("meta[name=page-token]").content;
  return answered(await fetch(path, {
    method: "POST", body: JSON.stringify(body),
    headers: { "Content-Type": "application/json", "X-Quantum-Token": token },
  }));
}

async function answered(response) {
  const text = await response.text();
  let data;
  try { data = JSON.parse(text); } catch { throw new Refused(text.trim() || `HTTP ${response.status}`); }
  if (!response.ok) throw new Refused(data.error ?? `HTTP ${response.status}`, data.near);
  return data;
}

// Runs a question; the node says that it waits, and why there is no answer. The newest question of a node wins.
const asked = new WeakMap();
export async function into(node, question, draw) {
  const mine = {};
  asked.set(node, mine);
  node.setAttribute("aria-busy", "true");
  try {
    const data = await question();
    if (asked.get(node) === mine) draw(data);
  } catch (problem) {
    if (asked.get(node) !== mine) return;
    const why = problem instanceof Refused ? problem.message : "quantum ui does not answer";
    put(node, h("p", { class: "empty bad" }, why), ...(problem.near?.length
      ? [h("p", { class: "note" }, "near: ", problem.near.join(", "))] : []));
  } finally {
    if (asked.get(node) === mine) node.removeAttribute("aria-busy");
  }
}
