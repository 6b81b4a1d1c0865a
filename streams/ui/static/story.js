// One trade, decision or policy version, as quantum why tells it.

import { $, ask, count, h, into, many, place, put, s, say, short, signed } from "./dom.js";

const GROUPS = [[/^(market|system)\./, "market"], [/^policy\.(ledger|current|commands)/, "policy"],
  [/^(rl\.meta\.strategy_selected|rl_v3\.decision|decision\.|policy\.applied)/, "decision"], [/^execution\./, "trade"],
  [/^(learning|rl)\./, "learning"], [/\.dlq-/, "bad"]];

export function begin() {
  $("why-form").addEventListener("submit", (e) => {
    e.preventDefault();
    follow($("why-id").value.trim());
  });
}

export function follow(id) {
  if (!id) return;
  $("why-id").value = id;
  put($("story"), h("p", { class: "empty" }, "Reading the log."));
  into($("story"), () => ask("/api/why", { id }), draw);
}

function draw(told) {
  const verdicts = told.verdicts ?? [];
  put($("story"),
    h("p", { class: "verdicts" }, verdicts.map((v, i) => h("span", { class: `verdict ${i ? "" : "main"} ${v.verdict}` },
      h("b", {}, v.verdict), ` ${v.text}`))),
    h("div", { class: "told" }, h("ol", { class: "steps" }, told.steps.map(step)), h("div", { class: "sides" }, sides(told))),
    h("p", { class: "note" }, `looked at ${many(Object.values(told.looked_at).reduce((a, b) => a + b, 0), "record")} on `
      + `${many(Object.keys(told.looked_at).length, "topic")}`));
  say($("said"), `${told.id}: ${verdicts.length ? verdicts[0].verdict : "told"}, ${many(told.steps.length, "step")}`);
  document.documentElement.dataset.story = told.id;
}

function step({ what, place: at, text }) {
  const group = GROUPS.find(([form]) => form.test(at))?.[1] ?? "none";
  const bad = text.includes("DOES NOT AGREE");
  return h("li", { class: `${group} ${bad ? "wrong" : ""}` }, h("b", {}, what), at === "-" ? null : place(at), h("p", {}, text));
}

function sides(told) {
  const found = [];
  const before = told.learning?.before?.cell, after = told.learning?.after?.cell;
  if (before && after && before.state_key === after.state_key) {
    found.push(cells(`Cell ${after.state_key}: what was learned`, before, after,
      `version ${told.learning.before.version}`, `version ${told.learning.after.version}`));
  }
  if (told.policy?.cell) found.push(cells(`Cell ${told.policy.cell.state_key} in force`, null, told.policy.cell, "", `version ${told.policy.version}`));
  const sums = told.arithmetic?.checks;
  if (sums) {
    const done = sums.filter((c) => c.agrees !== null);
    found.push(h("figure", {}, h("figcaption", {}, `Arithmetic done again: ${done.filter((c) => c.agrees).length} of `
      + `${done.length} agree`), h("ul", { class: "checks" }, sums.map((c) => h("li", {
      class: c.agrees === null ? "dim" : c.agrees ? "pass" : "fail", title: c.how },
    `${c.agrees === null ? "\u2013" : c.agrees ? "\u2713" : "\u2717"} ${c.check}`)))));
  }
  return found;
}

// Probabilities of a cell's actions as bars, those before as a mark.
function cells(title, before, after, was, is) {
  const actions = Object.keys(after.probabilities);
  return h("figure", {}, h("figcaption", {}, title),
    h("table", { class: "cellbars" }, h("thead", {}, h("tr", {}, ["action", "probability", "Q, R", "visits"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, actions.map((a) => h("tr", { class: a === after.greedy ? "greedy" : "" },
        h("th", { scope: "row" }, a),
        h("td", {}, shares(before?.probabilities[a], after.probabilities[a])),
        h("td", {}, before && before.q[a] !== after.q[a] ? `${signed(before.q[a])} \u2192 ${signed(after.q[a])}` : signed(after.q[a])),
        h("td", {}, count(after.visits[a])))))),
    h("p", { class: "note" }, before ? `mark: ${was}, bar: ${is}; bold: greedy` : `${is}; bold: greedy`));
}

export function shares(before, after) {
  const has = (x) => typeof x === "number";
  const text = has(before) && before !== after ? `${before.toFixed(3)} \u2192 ${has(after) ? after.toFixed(3) : "none"}`
    : has(after) ? after.toFixed(3) : "none";
  return h("span", { class: "share" },
    s("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
      s("rect", { class: "track", x: 0, y: 2, width: 100, height: 6, rx: 2 }),
      has(after) ? s("rect", { class: "fill", x: 0, y: 2, width: short(after * 100), height: 6, rx: 2 }) : null,
      has(before) ? s("rect", { class: "mark", x: Math.min(98.5, before * 100), y: 0, width: 1.5, height: 10 }) : null), text);
}
