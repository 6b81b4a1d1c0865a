// The systems of the roster: cells of quantum verify, standing of quantum status.

import { $, age, count, h, many, now, order, place, put, say, signed, since, utc } from "./dom.js";

const KINDS = ["RUNS", "RECEIVES", "LEARNS", "PERSISTS", "APPLIED", "ORIGIN"];
const SIGNS = { PASS: "\u2713", IDLE: "\u25cb", FAIL: "\u2717", STALE: "\u2717", "NOT PROVEN": "?", EXPIRED: "\u2026",
  "NOT APPLICABLE": "\u2013", "NOT BUILT": "\u2013" };
const ORDER = ["PASS", "IDLE", "NOT PROVEN", "EXPIRED", "STALE", "FAIL"];
const rows = new Map();
let judgedState = null;
let seen = null;
let held = [];

export function begin() {
  $("judge-now").addEventListener("click", () => order("/api/verify", {}).catch((e) => say($("judged-age"), e.message)));
}

const slug = (state) => state.toLowerCase().replaceAll(" ", "-");

// ------------------------------------------------------------------ verify
export function judged(state) {
  judgedState = state;
  if (state.report) {
    build(state.report.agents.map(({ agent, cells }) => (
      { agent, cells, why: KINDS.every((kind) => cells[kind].state === "NOT BUILT") ? cells.RUNS.why : null })));
    for (const { agent, cells } of state.report.agents) fill(rows.get(agent), cells);
    bar(state.report.agents);
    controls(state.report.controls);
    document.documentElement.dataset.judged = String(state.report.at_ms);
  }
  $("judge-now").disabled = state.running_since_ms !== null;
  tick();
  figures();
}

// A row for each agent; until verify has spoken (cells null) it says nothing of any cell. why: of one without code.
function build(agents) {
  const form = JSON.stringify(agents.map((a) => [a.agent, a.cells !== null, a.why]));
  if ($("matrix").dataset.form === form) return;
  $("matrix").dataset.form = form;
  rows.clear();
  put($("matrix"), h("table", { role: "table" },
    h("caption", { class: "hidden" }, "Cells of quantum verify for each agent"),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ["system", ...KINDS].map((name) => h("th", { role: "columnheader", scope: "col" }, name)))),
    h("tbody", { role: "rowgroup" }, [...agents.filter((a) => a.why === null), ...agents.filter((a) => a.why !== null)].map(line))));
  if (seen) stands(seen);
}

function line({ agent, cells, why }) {
  const standing = h("span", { class: "standing" }), buttons = new Map();
  const row = h("tr", { role: "row", class: why === null ? null : "unbuilt" },
    h("th", { scope: "row", role: "rowheader" }, h("span", { class: "agent" }, agent), standing));
  if (cells === null || why !== null) {
    row.append(h("td", { role: "cell", colspan: KINDS.length, class: why === null ? "unjudged" : null },
      why === null ? "not judged yet" : `NOT BUILT: ${why}`));
  } else {
    for (const kind of KINDS) {
      buttons.set(kind, h("button", { type: "button", class: "cell", "aria-haspopup": "dialog", onclick: () => open(agent, kind) }));
      row.append(h("td", { role: "cell", "data-kind": kind }, buttons.get(kind)));
    }
  }
  rows.set(agent, { standing, buttons, cells });
  return row;
}

function fill(row, cells) {
  row.cells = cells;
  for (const [kind, button] of row.buttons) {
    const cell = cells[kind];
    button.className = `cell ${slug(cell.state)}`;
    const applies = cell.state !== "NOT APPLICABLE";
    put(button, h("span", { class: "kind" }, kind),
      h("span", { class: "state" }, h("span", { "aria-hidden": "true" }, `${SIGNS[cell.state]} `),
        applies ? cell.state : "n/a"),
      cell.age_s === null ? null : h("span", { class: "age", title: "age of the evidence" }),
      cell.place === null ? null : place(cell.place));
  }
}

function bar(agents) {
  const states = agents.flatMap((a) => KINDS.map((kind) => a.cells[kind].state));
  const parts = ORDER.map((state) => [state, states.filter((x) => x === state).length]).filter(([, n]) => n);
  put($("bar"), parts.map(([state, n]) => {
    const part = h("span", { class: slug(state) }, `${n} ${state}`);
    part.style.flexGrow = n;
    return part;
  }));
  $("bar").setAttribute("aria-label", `Cells: ${parts.map(([state, n]) => `${n} ${state}`).join(", ")}`);
}

function controls(found) {
  put($("controls"), found.length ? h("ul", {}, found.flatMap((c) => [[c.learner, c], ...Object.entries(c.others)].map(
    ([learner, cell]) => h("li", {}, h("span", { class: `pill ${slug(cell.state)}` }, cell.state), " ",
      h("b", {}, `control ${c.symbol}, ${c.kind}, ${learner}`), `: ${cell.why} `, cell.place === null ? null : place(cell.place))))) : null);
}

export function tick() {
  const state = judgedState;
  if (state === null) return;
  const { report } = state;
  const parts = [];
  if (report) {
    parts.push(`judged ${since(report.at_ms)} ago in ${age(state.took_s)}, ${many(report.sample, "update")} drawn with seed `
      + `${report.sample_seed}` + (state.small ? "; a first look by a small sample" : ", as quantum verify does"));
    for (const row of rows.values()) {
      for (const [kind, button] of row.buttons) {
        const at = button.querySelector(".age");
        if (at) say(at, age(row.cells[kind].age_s + (now() - report.at_ms) / 1000));
      }
    }
  }
  if (state.running_since_ms !== null) parts.push(`verify is reading the log, ${since(state.running_since_ms)} so far`);
  if (state.error !== null) parts.push(`the last run gave no report: ${state.error}`);
  say($("judged-age"), parts.join(" \u00b7 "));
  $("judged-age").classList.toggle("bad", state.error !== null);
}

function open(agent, kind) {
  const cell = rows.get(agent).cells[kind];
  const { report } = judgedState;
  put($("cell-h"), `${agent} `, h("span", { class: "kind" }, kind), " ",
    h("span", { class: `pill ${slug(cell.state)}` }, cell.state));
  put($("cell-body"),
    h("p", {}, cell.why),
    h("dl", {},
      h("dt", {}, "evidence"), h("dd", {}, cell.place === null ? "no record is named" : place(cell.place)),
      h("dt", {}, "its age"), h("dd", {}, cell.age_s === null ? "not known"
        : `${age(cell.age_s)} when judged, ${age(cell.age_s + (now() - report.at_ms) / 1000)} now`),
      h("dt", {}, "judged"), h("dd", {}, `${utc(report.at_ms)} UTC, ${since(report.at_ms)} ago`),
      Object.entries(cell.figures).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, count(value))])));
  $("cell").showModal();
}

// ------------------------------------------------------------------ status
export function overview(data) {
  seen = data;
  if (!judgedState?.report) {
    build(data.agents.map((a) => ({ agent: a.agent, cells: null, why: a.state === "NOT BUILT" ? a.why : null })));
  }
  stands(data);
  notes(data);
  figures();
}

function stands(data) {
  for (const standing of data.agents) {
    const row = rows.get(standing.agent);
    if (!row) continue;
    row.standing.className = `standing ${slug(standing.state)}`;
    row.standing.title = standing.why;
    say(row.standing, standing.state === "NOT BUILT" ? "" : `${standing.state}, lag ${count(standing.lag ?? 0)}`
      + (standing.per_s >= 0.05 ? `, ${standing.per_s.toFixed(1)}/s` : ""));
  }
}

export function policies(found) {
  held = found;
  figures();
}

function notes(data) {
  const lines = [
    ...data.alerts.map((a) => ["bad", `health alert: ${a.component} ${a.status}: ${a.reason}`, a.place]),
    ...data.held.map((p) => ["warn", `${p.policy_id} is ${p.status} since version ${p.version}, by ${p.actor}: `
      + `${p.reason}`, p.place]),
    ...(data.risk ? [[data.risk.forced ? "warn" : "", `risk mode ${data.risk.said}`, data.risk.place]] : []),
    ...data.learners.map((l) => ["", learned(l), l.place]),
  ];
  const text = JSON.stringify(lines);
  if ($("notes").dataset.text === text) return;
  $("notes").dataset.text = text;
  put($("notes"), h("ul", {}, lines.map(([kind, said, at]) => h("li", { class: kind }, said, " ", place(at)))));
}

function learned(l) {
  const parts = [l.reward === null ? "no reward" : `reward ${signed(l.reward)} ${l.unit}`, many(l.n, l.unit === "R" ? "outcome" : "episode")];
  for (const [name, value] of [["entropy", l.entropy], ["KL", l.approx_kl], ["explained variance", l.explained_variance]]) {
    if (value !== null) parts.push(`${name} ${value.toFixed(3)}`);
  }
  return `${l.agent} ${l.symbol}: newest update ${parts.join(", ")}`;
}

function figures() {
  const agents = judgedState?.report?.agents, roster = seen?.agents;
  const cells = agents?.flatMap((a) => Object.values(a.cells).map((c) => c.state));
  const open = cells?.filter((c) => c === "FAIL" || c === "STALE").length;
  const letters = seen && Object.values(seen.dead_letters).reduce((a, b) => a + b, 0);
  const lag = seen?.agents.reduce((a, b) => a + (b.lag ?? 0), 0);
  put($("figures"), [
    ["systems built", roster ? `${roster.filter((a) => a.state !== "NOT BUILT").length} of ${roster.length}` : null],
    ["cells PASS", cells ? count(cells.filter((c) => c === "PASS").length) : null],
    ["FAIL or STALE", cells ? count(open) : null, open ? "bad" : ""],
    ["policies", held.length || seen ? count(held.length) : null],
    ["records waiting", seen ? count(lag) : null],
    ["dead letters", seen ? count(letters) : null, letters ? "warn" : ""],
    ["risk mode", seen ? seen.risk?.mode ?? "none" : null, "word"],
  ].map(([name, value, kind]) => h("div", { class: `figure ${kind ?? ""}`, "data-figure": name },
    h("b", {}, value ?? "\u2026"), h("span", {}, name))));
}
