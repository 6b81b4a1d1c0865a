// Learning curves: what quantum policy plot draws.

import { Group, chart } from "./chart.js";
import { $, ask, count, h, into, many, put, say } from "./dom.js";

let shown = null;
let drawn = null; // version that the curves end with
let newest = new Map();

export function begin() {
  $("course-policy").addEventListener("change", () => show($("course-policy").value));
  $("course-again").addEventListener("click", () => shown && show(shown));
}

export function policies(rows) {
  newest = new Map(rows.map((row) => [row.policy_id, row]));
  options($("course-policy"), rows);
  if (shown === null && rows.length) {
    // the most versions: the most to see
    const best = rows.filter((r) => r.agent !== "risk_controller").sort((a, b) => b.version - a.version)[0] ?? rows[0];
    $("course-policy").value = best.policy_id;
    show(best.policy_id);
  }
  later();
}

export function options(select, rows) {
  const chosen = select.value;
  const names = rows.map((r) => r.policy_id);
  if (JSON.stringify(names) === select.dataset.names) return;
  select.dataset.names = JSON.stringify(names);
  put(select, names.map((name) => h("option", { value: name }, name)));
  if (names.includes(chosen)) select.value = chosen;
}

function show(policyId) {
  shown = policyId;
  say($("course-note"), "reading the ledger");
  into($("course"), () => ask("/api/course", { policy: policyId }), draw).then(later);
}

function draw(told) {
  const group = new Group(told.points);
  drawn = told.last;
  put($("course"), h("div", { class: "charts" }, told.panels.map((panel) => chart(group, panel))),
    h("p", { class: "note" }, `${many(told.versions, "version")}, ${count(told.first)} to ${count(told.last)}, over event time`
      + (told.points.length < told.versions ? `; drawn: the last of each of ${count(told.points.length)} spans, flips summed` : "")
      + `. quantum policy plot ${told.policy_id} draws the same.`));
  document.documentElement.dataset.course = told.policy_id;
}

function later() {
  const there = newest.get(shown);
  if (!there || drawn === null) return;
  say($("course-note"), there.version > drawn ? `${many(there.version - drawn, "newer version")} since it was read` : "up to date");
}
