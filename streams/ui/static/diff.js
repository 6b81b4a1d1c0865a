// What changed between two versions: quantum policy diff.

import { options } from "./curves.js";
import { $, ask, count, h, into, many, place, put, say, signed } from "./dom.js";
import { shares } from "./story.js";

const ROWS = 24;
let newest = new Map();

export function begin() {
  $("diff-policy").addEventListener("change", suggest);
  $("diff-form").addEventListener("submit", (e) => {
    e.preventDefault();
    compare($("diff-policy").value, $("diff-before").value, $("diff-after").value);
  });
}

export function policies(rows) {
  newest = new Map(rows.map((row) => [row.policy_id, row]));
  options($("diff-policy"), rows);
  if (!$("diff-after").value && rows.length) suggest();
}

function suggest() {
  const version = newest.get($("diff-policy").value)?.version;
  if (version === undefined) return;
  $("diff-before").value = Math.max(1, version - 1);
  $("diff-after").value = version;
}

export function compare(policyId, before, after) {
  if (!policyId) return;
  $("diff-policy").value = policyId;
  $("diff-before").value = before;
  $("diff-after").value = after;
  put($("difference"), h("p", { class: "empty" }, "Reading the ledger."));
  into($("difference"), () => ask("/api/diff", { policy: policyId, before, after }), draw);
}

function draw(told) {
  const fields = Object.entries(told.fields);
  put($("difference"),
    h("p", { class: "ends" }, ["before", "after"].map((end) => h("span", {}, h("b", {}, `${told[end].policy_id}@${told[end].version}`), " ", place(told[end].place)))),
    told.greedy_flips.length ? h("ul", { class: "flips" }, told.greedy_flips.map((f) => h("li", {},
      `greedy of ${f.state_key}: `, h("b", {}, f.before), " \u2192 ", h("b", {}, f.after)))) : null,
    moves(told),
    fields.length ? h("details", { open: !told.moves.length }, h("summary", {}, `${many(fields.length, "field")} of the envelope differ`),
      h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Fields of the envelope" }, h("table", {},
        h("thead", {}, h("tr", {}, ["field", "before", "after"].map((n) => h("th", { scope: "col" }, n)))),
        h("tbody", {}, fields.map(([name, f]) => h("tr", {}, h("th", { scope: "row" }, name),
          h("td", {}, plain(f.before)), h("td", {}, plain(f.after)))))))) : h("p", { class: "note" }, "no field of the envelope differs"));
  say($("said"), `${told.before.policy_id}, ${told.before.version} to ${told.after.version}: ${many(told.moves.length, "row")} changed`);
  document.documentElement.dataset.diff = `${told.before.version}..${told.after.version}`;
}

const plain = (value) => (value === null || value === undefined ? "none" : typeof value === "object" ? JSON.stringify(value) : String(value));
const moved = (a, b, form) => (a === b ? form(b) : `${a === null ? "none" : form(a)} \u2192 ${b === null ? "none" : form(b)}`);

function moves(told) {
  if (!told.moves.length) {
    return h("p", { class: "note" }, told.cells ? `no estimate, probability or count differs in ${many(told.cells, "cell")}`
      : "this policy has no table: what differs stands in its fields");
  }
  return h("div", {}, h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Actions that changed" }, h("table", { class: "moves" },
    h("thead", {}, h("tr", {}, ["state", "action", "probability", "estimate, R", "visits"].map((n) => h("th", { scope: "col" }, n)))),
    h("tbody", {}, told.moves.slice(0, ROWS).map((m) => h("tr", {}, h("th", { scope: "row" }, m.state_key), h("td", {}, m.action),
      h("td", {}, shares(m.p_before, m.p_after)), h("td", {}, moved(m.q_before, m.q_after, (x) => signed(x, 4))),
      h("td", {}, moved(m.visits_before, m.visits_after, count))))))),
  h("p", { class: "note" }, "mark: before, bar: after" + (told.moves.length > ROWS ? `; ${many(told.moves.length - ROWS, "more row")} changed less` : "")));
}
