// Policies and updates as they come, and the latest trades.

import { $, count, h, many, place, put, say, signed, since, utc } from "./dom.js";

const ROWS = 60;
const lists = { feed: [], trades: [] };
const waiting = { feed: [], trades: [] };
let paused = false;
let seen = {};
let follow, compare;

export function begin(onFollow, onCompare) {
  [follow, compare] = [onFollow, onCompare];
  $("feed-pause").addEventListener("click", () => {
    paused = !paused;
    $("feed-pause").setAttribute("aria-pressed", String(paused));
    say($("feed-pause"), paused ? "Go on" : "Pause");
    if (!paused) more(waiting.feed.splice(0).reverse(), waiting.trades.splice(0).reverse(), seen);
    told();
  });
}

export function all(feed, trades, counts) {
  lists.feed = feed;
  lists.trades = trades;
  seen = counts;
  draw();
}

// new ones come oldest first
export function more(feed, trades, counts) {
  seen = counts;
  const to = paused ? waiting : lists;
  to.feed = [...[...feed].reverse(), ...to.feed].slice(0, ROWS);
  to.trades = [...[...trades].reverse(), ...to.trades].slice(0, ROWS);
  if (paused) told(); else draw();
}

function draw() {
  keepingFocus($("feed"), () => put($("feed"), lists.feed.length ? lists.feed.map(change)
    : h("li", { class: "empty" }, "No policy and no update on the log yet.")));
  keepingFocus($("trade-list"), () => put($("trade-list"), lists.trades.length ? lists.trades.map(trade)
    : h("li", { class: "empty" }, "No trade on the log yet.")));
  told();
  tick();
}

function told() {
  const n = Object.entries(seen).filter(([topic]) => topic !== "execution.trade.closed").reduce((a, [, b]) => a + b, 0);
  say($("feed-count"), (paused ? `paused, ${many(waiting.feed.length, "row")} waiting \u00b7 ` : "")
    + `${many(n, "record")} since this server looks`);
}

export function tick() {
  for (const node of document.querySelectorAll("time[data-ms]")) say(node, since(Number(node.dataset.ms)));
}

const when = (row) => h("time", { "data-ms": row.appended_ms, datetime: row.appended_ms
  ? new Date(row.appended_ms).toISOString() : null, title: row.ts_ms ? `event time ${utc(row.ts_ms)} UTC` : null });

function change(row) {
  if (row.kind !== "policy") {
    return h("li", { class: "update" }, h("div", { class: "line" }, h("b", {}, row.topic), when(row)),
      h("p", {}, row.symbol ? `${row.symbol}: ` : "", row.text), place(row.place));
  }
  const edge = row.edge_mean_r === null ? "" : `, edge ${signed(row.edge_mean_r)} R, bound ${signed(row.edge_lower_r)}`;
  return h("li", { class: `policy ${row.status.toLowerCase()}` },
    h("div", { class: "line" }, h("b", {}, row.policy_id, " ", h("span", { class: "version" }, `v${row.version}`)), when(row)),
    h("p", {}, `${row.status}, ${many(row.outcomes, "outcome")}${edge}${row.actor ? `, by ${row.actor}` : ""}: ${row.reason}`),
    h("div", { class: "line" }, place(row.place), h("span", { class: "links" },
      h("button", { type: "button", class: "link", "data-key": `why ${row.place}`, onclick: () => follow(`${row.policy_id}@${row.version}`) }, "why"),
      row.version > 1 ? h("button", { type: "button", class: "link", "data-key": `diff ${row.place}`,
        onclick: () => compare(row.policy_id, row.version - 1, row.version) }, "diff") : null)));
}

function trade(row) {
  const gain = row.r_multiple >= 0 ? "up" : "down";
  return h("li", { class: "trade" },
    h("button", { type: "button", "data-key": row.place, "data-trade": row.trade_id, onclick: () => follow(row.trade_id) },
      h("span", { class: "line" },
        h("b", {}, `${row.side} ${row.symbol}`),
        h("span", { class: `r ${gain}` }, `${signed(row.r_multiple)} R`), when(row)),
      h("span", { class: "line dim" }, `${row.exit_reason}, ${row.strategy}, book ${row.book_id}`
        + (row.policy_version === null ? "" : `, policy v${count(row.policy_version)}`)
        + (row.origin === "SYNTHETIC" ? ", SYNTHETIC" : "")),
      place(row.place)));
}

// A list that is drawn again gives the focus back to the row that had it.
function keepingFocus(list, change) {
  const key = list.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  change();
  if (key === undefined) return;
  const again = [...list.querySelectorAll("[data-key]")].find((node) => node.dataset.key === key);
  (again ?? list).focus({ preventScroll: true });
}
