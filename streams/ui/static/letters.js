// Dead letters: what quantum dlq lists and shows, and sending them again, after a question.

import { $, Refused, ask, count, h, into, many, order, place, put, say, since } from "./dom.js";

let known = null;
const open = new Set();

export function begin() {
  $("letters-again").addEventListener("click", read);
}

// Counts come with every look at the log; the letters are read where one has changed.
export function counts(found) {
  const text = JSON.stringify(found);
  if (text === known) return;
  known = text;
  read();
}

function read() {
  into($("dead"), () => ask("/api/dead"), draw);
}

function draw(told) {
  const n = told.topics.reduce((a, t) => a + t.records, 0);
  say($("letters-note"), n ? `${count(n)} on ${many(told.topics.length, "topic")}` : "");
  put($("dead"), n ? told.topics.map(topic) : h("p", { class: "empty good" }, `None on ${many(told.looked_at, "topic")}.`));
  document.documentElement.dataset.dead = String(n);
}

function topic(found) {
  const body = h("div", {}, h("p", { class: "empty" }, "Reading."));
  const fold = h("details", { class: "topic" },
    h("summary", {}, h("code", {}, found.topic), ` ${many(found.records, "letter")} `,
      found.reasons.map((r) => h("span", { class: "pill warn" }, `${r.reason} \u00d7${count(r.records)} by ${r.by}`, ", newest ",
        since(r.newest.timestamp_ms), " ago"))), body);
  const load = () => into(body, () => ask("/api/letters", { topic: found.topic }), (told) => list(body, told));
  fold.addEventListener("toggle", () => {
    if (!fold.open) { open.delete(found.topic); return; }
    open.add(found.topic);
    load();
  });
  fold.open = open.has(found.topic);
  return fold;
}

function list(body, told) {
  const boxes = told.letters.map((letter) => h("input", { type: "checkbox", "aria-label": `choose ${letter.place}`,
    onchange: () => chosen() }));
  const send = h("button", { type: "button", class: "act", disabled: true, onclick: () => redrive(body, told, picked()) }, "Redrive");
  const every = h("input", { type: "checkbox", id: `all-${told.topic}`, onchange: () => {
    boxes.forEach((box) => { box.checked = every.checked; });
    chosen();
  } });
  const picked = () => told.letters.filter((_, i) => boxes[i].checked);
  const chosen = () => {
    const n = picked().length;
    send.disabled = n === 0;
    say(send, n ? `Redrive ${many(n, "letter")}\u2026` : "Redrive");
    every.checked = n === boxes.length;
  };
  put(body, h("div", { class: "ask" }, every, h("label", { for: `all-${told.topic}` }, "all shown"), send),
    h("ol", { class: "rows letters" }, told.letters.map((letter, i) => row(letter, boxes[i]))),
    told.records > told.letters.length ? h("p", { class: "note" }, `the newest ${told.letters.length} of ${count(told.records)}; `
      + `quantum dlq show ${told.topic} shows others`) : null,
    h("div", { class: "result", role: "status" }));
}

function row(letter, box) {
  const why = letter.dead_letter;
  const from = letter.source ? `${letter.source.topic}-${letter.source.partition}@${letter.source.offset}` : null;
  return h("li", {}, h("div", { class: "line" }, box, h("b", {}, why.reason ?? "-"), h("span", {}, `by ${why.by ?? "-"}`),
    h("span", { class: "dim" }, `${since(letter.timestamp_ms)} ago`)),
  h("p", {}, why.detail ?? "-"), h("p", {}, place(letter.place), from ? " from " : "", from ? place(from) : null),
  h("details", {}, h("summary", {}, letter.error ? `not decoded: ${letter.error.reason}` : `decodes as ${letter.event}`,
    letter.bytes === null ? ", null" : `, ${many(letter.bytes, "byte")}`),
  h("pre", { tabindex: "0", "aria-label": "Bytes and fields" }, letter.dump.join("\n"), letter.value ? `\n\n${JSON.stringify(letter.value, null, 1)}` : "")));
}

async function redrive(body, told, some) {
  const result = body.querySelector(".result");
  const places = some.map((letter) => [letter.partition, letter.offset]);
  try {
    const plan = await order("/api/redrive", { topic: told.topic, places, dry_run: true });
    if (!(await agreed(plan))) return;
    const done = await order("/api/redrive", { topic: told.topic, places, dry_run: false });
    put(result, outcome(done));
  } catch (problem) {
    put(result, h("p", { class: "bad" }, problem instanceof Refused ? problem.message : "quantum ui does not answer; look before you try again"));
  }
}

function agreed(plan) {
  say($("confirm-h"), plan.redriven.length ? `Send ${many(plan.redriven.length, "record")} to ${plan.topic} again?` : "Nothing would be sent");
  put($("confirm-body"), h("p", {}, plan.redriven.length ? "Key, value and headers as they were, to the partition that they came from; two headers more say "
    + "where from and for whom. A redriven record is late: each agent states what it does with late events." : "Every letter chosen is skipped."), outcome(plan));
  const dialog = $("confirm"), yes = dialog.querySelector("[value=yes]");
  yes.hidden = !plan.redriven.length;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

function outcome(told) {
  const verb = told.dry_run ? "would be sent" : "sent";
  return h("div", {}, h("p", {}, h("b", {}, `${count(told.redriven.length)} ${verb}, ${count(told.skipped.length)} skipped`)),
    h("ul", { class: "plan" }, told.redriven.map((r) => h("li", {}, place(r.from), ` \u2192 `, r.to ? place(r.to) : told.topic, `, ${r.reason}, for ${r.for.join(", ")}`)),
      told.skipped.map((k) => h("li", { class: "dim" }, place(k.from), ` skipped: ${k.why}`))));
}
