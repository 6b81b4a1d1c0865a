// The page: one stream of news from the server, handed to its parts.

import { $, say, setNow, since } from "./dom.js";
import * as curves from "./curves.js";
import * as diff from "./diff.js";
import * as feed from "./feed.js";
import * as letters from "./letters.js";
import * as story from "./story.js";
import * as systems from "./systems.js";

const AGAIN_MS = 5000;
const policies = new Map();
let stream = null;
let heard = null;

const follow = (id) => { story.follow(id); $("trade").scrollIntoView(); };
const compare = (policyId, before, after) => { diff.compare(policyId, before, after); $("diff").scrollIntoView(); };

systems.begin();
feed.begin(follow, compare);
story.begin();
curves.begin();
diff.begin();
letters.begin();

function linked(state, text) {
  $("link").dataset.state = state;
  say($("link-text"), text);
}

function troubled(why) {
  $("trouble").hidden = why === null;
  say($("trouble"), why === null ? "" : `${why}; asking again. What stands below is from before.`);
}

function took(changed, gone = []) {
  for (const row of changed) policies.set(row.policy_id, row);
  for (const id of gone) policies.delete(id);
  if (changed.length || gone.length) {
    const rows = [...policies.values()].sort((a, b) => a.policy_id.localeCompare(b.policy_id));
    curves.policies(rows);
    diff.policies(rows);
    systems.policies(rows);
  }
}

const on = {
  snapshot(data) {
    setNow(data.now_ms);
    say($("about"), `Quantum Streams ${data.about.version}, broker ${data.about.broker}`
      + (data.about.prefix ? `, topic prefix ${data.about.prefix}` : "")
      + ". Everything here is read from the log; the commands quantum verify, status, why, policy and dlq print the same.");
    policies.clear();
    took(data.policies);
    systems.judged(data.judged);
    if (data.overview) on.overview(data.overview);
    troubled(data.trouble);
    feed.all(data.feed, data.trades, data.seen);
    document.documentElement.dataset.live = "snapshot";
  },
  overview(data) {
    heard = data.at_ms;
    troubled(null);
    systems.overview(data);
    letters.counts(data.dead_letters);
    document.documentElement.dataset.overview = "1";
  },
  judged: systems.judged,
  news(data) {
    took(data.policies, data.gone);
    feed.more(data.feed, data.trades, data.seen);
  },
  trouble(data) { troubled(data.why); },
};

function open() {
  if (stream !== null) return;
  stream = new EventSource("/api/live");
  stream.onopen = () => linked("on", "live");
  stream.onerror = () => {
    const refused = stream?.readyState === EventSource.CLOSED; // a browser comes back by itself from all else
    close("no answer from quantum ui; trying again", !refused);
    if (refused) setTimeout(() => document.hidden || open(), AGAIN_MS);
  };
  for (const [name, take] of Object.entries(on)) stream.addEventListener(name, (e) => take(JSON.parse(e.data)));
}

function close(text, kept = false) {
  if (!kept) {
    stream?.close();
    stream = null;
  }
  linked("off", text);
}

// A page that nobody sees asks for nothing.
document.addEventListener("visibilitychange", () => (document.hidden ? close("resting") : open()));
addEventListener("pagehide", () => close("left"));
addEventListener("pageshow", open);
open();
setInterval(() => {
  systems.tick();
  feed.tick();
  if (stream?.readyState === EventSource.OPEN) linked("on", heard === null ? "live" : `log seen ${since(heard)} ago`);
}, 1000);
