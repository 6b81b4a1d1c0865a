// A panel of a policy's course as SVG: steps over event time, or bars; one cross-hair for all panels.

import { h, s, short, signed, utc } from "./dom.js";

const WIDTH = 360, HEIGHT = 150, LEFT = 44, RIGHT = 8, TOP = 8, BOTTOM = 20;

export class Group {
  constructor(points) {
    this.points = points;
    this.times = points.map((p) => p.ts_ms);
    this.begin = Math.min(...this.times);
    this.end = Math.max(...this.times, this.begin + 1);
    this.at = null;
    this.listeners = [];
  }

  x(ms) { return LEFT + (ms - this.begin) / (this.end - this.begin) * (WIDTH - LEFT - RIGHT); }

  nearest(x) {
    const ms = this.begin + (x - LEFT) / (WIDTH - LEFT - RIGHT) * (this.end - this.begin);
    let best = 0;
    this.times.forEach((t, i) => { if (Math.abs(t - ms) < Math.abs(this.times[best] - ms)) best = i; });
    return best;
  }

  move(at) {
    this.at = at === null ? null : Math.max(0, Math.min(this.points.length - 1, at));
    this.listeners.forEach((listen) => listen(this.at));
  }
}

export function chart(group, panel) {
  const series = Object.entries(panel.series);
  const values = series.flatMap(([, some]) => some).filter((v) => typeof v === "number");
  const title = h("span", { class: "title" }, panel.title);
  const said = h("span", { class: "said" });
  if (!values.length) {
    return h("figure", { class: "chart" }, h("figcaption", {}, title, h("span", { class: "said" }, "not evaluated")));
  }
  const [low, high] = range(panel, values);
  const y = (v) => TOP + (1 - (v - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const cross = s("line", { class: "cross", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  const image = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, tabindex: "0", role: "img", "aria-label": summary(panel, series) },
    axes(group, low, high, y, panel), series.map(([, some], i) => (panel.bars ? bars(group, some, y) : steps(group, some, y, i))), cross);
  image.addEventListener("pointermove", (e) => {
    const box = image.getBoundingClientRect();
    group.move(group.nearest((e.clientX - box.left) / box.width * WIDTH));
  });
  image.addEventListener("pointerleave", () => group.move(null));
  image.addEventListener("blur", () => group.move(null));
  image.addEventListener("keydown", (e) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[e.key];
    const to = by ? (group.at ?? (by > 0 ? -1 : group.points.length)) + by : { Home: 0, End: group.points.length - 1 }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    group.move(to);
  });
  const several = series.length > 1;
  const shown = series.map(() => h("span", {}));
  const read = (at) => {
    const i = at ?? group.points.length - 1;
    series.forEach(([, some], n) => { shown[n].textContent = some[i] === null ? "none" : short(some[i]); });
    const where = at === null ? "" : `v${group.points[i].version}, ${utc(group.times[i])}`;
    said.textContent = several ? where : [where, shown[0].textContent].filter(Boolean).join(": ");
  };
  group.listeners.push((at) => {
    cross.setAttribute("visibility", at === null ? "hidden" : "visible");
    if (at !== null) {
      const x = group.x(group.times[at]);
      cross.setAttribute("x1", x);
      cross.setAttribute("x2", x);
    }
    read(at);
  });
  read(null);
  return h("figure", { class: "chart" }, h("figcaption", {}, title, said), image, several
    ? h("ul", { class: "legend" }, series.map(([name], i) => h("li", { class: `c${i % 6}` }, `${name} `, shown[i]))) : null);
}

function range(panel, values) {
  if (panel.whole) return [0, 1];
  let low = Math.min(...values), high = Math.max(...values);
  if (panel.zero || panel.bars) [low, high] = [Math.min(0, low), Math.max(0, high)];
  if (low === high) [low, high] = [low - 1, high + 1];
  const space = panel.bars ? 0 : (high - low) * 0.05;
  return [low < 0 ? low - space : Math.max(0, low - space), high > 0 ? high + space : Math.min(0, high + space)];
}

function axes(group, low, high, y, panel) {
  const label = (v, anchor) => s("text", { x: LEFT - 5, y: y(v) + anchor, "text-anchor": "end" }, short(Number(v.toPrecision(3))));
  const foot = HEIGHT - 6;
  return [
    s("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM }),
    panel.zero && low < 0 && high > 0 ? s("line", { class: "zero", x1: LEFT, x2: WIDTH - RIGHT, y1: y(0), y2: y(0) }) : null,
    label(high, 8), label(low, 0),
    s("text", { x: LEFT, y: foot }, utc(group.begin).slice(0, 10)),
    s("text", { x: WIDTH - RIGHT, y: foot, "text-anchor": "end" }, utc(group.end).slice(0, 10)),
  ];
}

function steps(group, values, y, i) {
  let path = "", last = null;
  values.forEach((v, n) => {
    if (typeof v !== "number") return;
    const x = group.x(group.times[n]).toFixed(1);
    path += last === null ? `M${x} ${y(v).toFixed(1)}` : `H${x}V${y(v).toFixed(1)}`;
    last = v;
  });
  if (last !== null) path += `H${WIDTH - RIGHT}`;
  return s("path", { class: `curve c${i % 6}`, d: path });
}

function bars(group, values, y) {
  return values.map((v, n) => (v ? s("line", { class: "curve c0", x1: group.x(group.times[n]), x2: group.x(group.times[n]),
    y1: y(0), y2: y(v) }) : null));
}

function summary(panel, series) {
  return series.map(([name, some]) => {
    const there = some.filter((v) => typeof v === "number");
    return there.length ? `${panel.title}${name ? ` ${name}` : ""}: first ${signed(there[0])}, last ${signed(there.at(-1))}, `
      + `low ${signed(Math.min(...there))}, high ${signed(Math.max(...there))}` : `${panel.title} ${name}: not evaluated`;
  }).join("; ") + ". Arrow keys move through the versions.";
}
