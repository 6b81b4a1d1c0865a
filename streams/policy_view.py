"""How a policy looks to a person: newest version of each, its Q-table as rows, as a table, as a heat map.

Everything here is a function of policy records; nothing reads the log.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from rich.table import Table

from agents.algorithms.edge import MIN_OUTCOMES
from agents.algorithms.network_policy import Scaling, read
from agents.algorithms.tensors import loaded
from schemas.events import REGIME_SYMBOLS, Cell, Event, PolicyRecord

Z_95 = 1.96
"""Half-width of a 95 % interval of a normal, in standard errors. It holds for one estimate looked at once; a table of
48 has two or three outside by chance."""


class Held(NamedTuple):
    """A policy and where on the log it was read, `topic-partition@offset`."""

    record: PolicyRecord
    place: str


def newest(rows: Iterable[tuple[str, PolicyRecord | None, str]]) -> dict[str, Held]:
    """The newest version of each policy.

    Args:
        rows: (policy id, record or None for a tombstone, place), in the order of the log.
    """
    held: dict[str, Held] = {}
    for policy_id, record, place in rows:
        if record is None:
            held.pop(policy_id, None)
        elif policy_id not in held or record.version > held[policy_id].record.version:
            held[policy_id] = Held(record, place)
    return held


def cell_rows(record: PolicyRecord, cell: Cell) -> list[dict[str, Any]]:
    """One row for each action of a cell: estimate, 95 % interval (R), visits, probability."""
    return [
        {
            "action": action, "q": q, "q_low": q - Z_95 * se, "q_high": q + Z_95 * se, "se": se, "visits": visits,
            "probability": p, "greedy": action == cell.greedy,
        }
        for action, q, se, visits, p in zip(
            record.actions, cell.q, cell.se, cell.visits, cell.probabilities, strict=True)
    ]


def as_dict(held: Held) -> dict[str, Any]:
    """A policy as one JSON object; its table with intervals."""
    record = held.record
    shown: dict[str, Any] = {
        name: getattr(record, name)
        for name in ("policy_id", "version", "agent", "scope", "status", "reason", "outcomes", "ts_ms",
                     "valid_from_ms", "valid_until_ms", "fallback", "mask", "edge_claim", "command_id", "actor",
                     "obeyed", "restored_version", "unlearned", "source", "origin")
    }
    p = record.provenance
    shown["edge"] = _fields(record.edge)
    shown["limits"] = None if record.limits is None else msgspec.to_builtins(record.limits)
    shown["provenance"] = _fields(p)
    shown["place"] = held.place
    shown["volatility_edges"] = None if record.tabular is None else record.tabular.volatility_edges
    shown["cells"] = None if record.tabular is None else [
        {"state_key": c.state_key, "greedy": c.greedy, "visits": sum(c.visits), "actions": cell_rows(record, c)}
        for c in record.tabular.cells
    ]
    shown["network"] = None if record.network is None else network_dict(record)
    return shown


def network_dict(record: PolicyRecord) -> dict[str, Any]:
    """A network's description: everything but the numbers of its layers; of these shape and norm."""
    n = record.network
    assert n is not None
    return {"inputs": n.inputs, "means": n.means, "deviations": n.deviations, "clip": n.clip,
            "activation": n.activation, "residual_deviation": n.residual_deviation,
            "weights_sha256": n.weights_sha256, "weights_bytes": len(n.weights),
            "tensors": {name: {"shape": list(a.shape), "dtype": a.dtype.name, "norm": float(np.linalg.norm(a))}
                        for name, a in loaded(n.weights).items()}}


def network_table(record: PolicyRecord) -> Table:
    """What the network says of each regime where every other input is at its mean: probabilities, and the value.

    Of the trader it is what it says without a position: what reduces or closes one is not valid then.
    """
    n, trader = record.network, record.agent == "ppo_trader"
    assert n is not None
    allowed = [a not in ("REDUCE", "CLOSE", "EMERGENCY_FLATTEN") or not trader for a in record.actions]
    table = Table(title="Probability of being drawn where all inputs but the regime are at their means" if not trader
                  else "Probability without a position, all inputs but the regime at 0",
                  caption="* greedy. value: what the critic expects of such a state.")
    for name in ("regime", *record.actions, "value, %" if trader else "value, R"):
        table.add_column(name, justify="left" if name == "regime" else "right")
    network = read(n.weights, n.activation, len(n.inputs), len(record.actions))
    scaling = Scaling(means=n.means, deviations=n.deviations, clip=n.clip)
    for regime in REGIME_SYMBOLS:
        numbers = tuple(float(name.removeprefix("regime_") == regime) if name.removeprefix("regime_") in REGIME_SYMBOLS
                        else mean for name, mean in zip(n.inputs, n.means, strict=True))
        found = network.applied(scaling, numbers)
        kept = [p * ok for p, ok in zip(found.probabilities, allowed, strict=True)]
        best = kept.index(max(kept)) if trader else found.greedy
        table.add_row(regime, *(f"{'*' if i == best else ''}{p / sum(kept):.1%}" for i, p in enumerate(kept)),
                      f"{found.value:+.3f}")
    return table


def head_lines(held: Held) -> list[str]:
    """What stands above the table: version, validity, what it was learned from, provenance."""
    r, p = held.record, held.record.provenance
    until = "no end" if r.valid_until_ms is None else utc(r.valid_until_ms)
    what = "training runs" if r.agent == "ppo_trader" else "outcomes"
    lines = [
        f"{r.policy_id}  version {r.version}  {r.status}  ({r.reason})",
        f"valid     {utc(r.valid_from_ms)} to {until}; past it: {r.fallback}",
        f"learned   {r.outcomes} {what}; source {r.source}, {r.origin}",
        f"edge      {edge_sentence(r)}",
        f"read at   {held.place}",
    ]
    if r.command_id is not None:
        back = "" if r.restored_version is None else f"; the state of version {r.restored_version}"
        lines.append(f"command   {r.command_id} by {r.actor}{back}" + ("" if r.obeyed else ", refused"))
    if r.unlearned:
        lines.append(f"unlearned {r.unlearned} outcomes that came while it was frozen or retired")
    if p is None:
        return [*lines, "inputs    no provenance on this record"]
    lines += [
        f"inputs    {p.input_topic}-{p.input_partition}@{p.from_offset}..{p.to_offset} since its parent",
        f"hashes    state {p.state_hash[:12]}  parent {(p.parent_hash or 'none')[:12]}  code {p.code_hash[:12]}  "
        f"config {p.config_hash[:12]}  seed {p.seed}",
        f"platform  {p.platform}",
    ]
    if r.tabular is not None:
        edges = ", ".join(f"{e:.6g}" for e in r.tabular.volatility_edges)
        lines.append(f"buckets   volatility_30 at {edges}")
    if r.network is not None:
        layers = " ".join(f"{name.removesuffix('.weight')} {a.shape[0]}x{a.shape[1]}"
                          for name, a in loaded(r.network.weights).items() if name.endswith(".weight"))
        lines += [f"network   {layers}, {r.network.activation}; {len(r.network.weights):,} bytes, "
                  f"{r.network.weights_sha256[:12]}",
                  f"state     {', '.join(r.network.inputs)}", f"dropped   {', '.join(r.mask) or 'none'}"]
    return lines


def edge_sentence(record: PolicyRecord) -> str:
    """What the policy claims of its own outcomes, and what it rests on, in words."""
    e = record.edge
    if record.agent == "ppo_trader":
        return "none is claimed: it learns in a simulated market, not from outcomes"
    if record.edge_claim is None or e is None:
        few = f", {record.outcomes} of {MIN_OUTCOMES} outcomes" if record.outcomes < MIN_OUTCOMES else ""
        return f"not evaluated{few}"
    seen = f"mean {e.mean_r:+.3f} R of {e.n} outcomes (deviation {e.sd_r:.2f}), lower bound {e.lower_r:+.3f} R"
    least = f"{e.smallest_r:.3f} R is the smallest mean that {e.n} outcomes could have shown"
    return f"{'claimed' if record.edge_claim else 'not claimed'}: {seen}; {least}"


def _fields(event: Event | None) -> dict[str, Any] | None:
    return None if event is None else {f: getattr(event, f) for f in event.__struct_fields__}


def utc(ts_ms: int) -> str:
    """Event time as text, UTC.

    >>> utc(1_700_000_000_000)
    '2023-11-14 22:13:20Z'
    """
    return datetime.fromtimestamp(ts_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def q_table(record: PolicyRecord) -> Table:
    """The Q-table: a row a cell; for each action estimate and 95 % interval in R, visits, probability of drawing it.

    The greedy action of a cell is marked with a star, so that it shows without colours.
    """
    table = Table(title="Estimated net result in R [95 % interval], n visits, probability of being drawn",
                  caption="* greedy: the highest estimate. An interval holds for one cell looked at once.")
    table.add_column("state")
    for action in record.actions:
        table.add_column(action, justify="right")
    for cell in record.tabular.cells if record.tabular is not None else ():
        texts = []
        for row in cell_rows(record, cell):
            star, style = ("*", "bold") if row["greedy"] else (" ", "dim" if not row["visits"] else "none")
            interval = f"[{row['q_low']:+.2f} {row['q_high']:+.2f}]" if row["visits"] else "[no visits]"
            text = f"{star}{row['q']:+.3f} {interval}\nn={row['visits']} {row['probability']:.0%}"
            texts.append(f"[{style}]{text.replace('[', chr(92) + '[')}[/]")
        table.add_row(cell.state_key, *texts)
    return table


def heat_map(record: PolicyRecord, path: Path) -> None:
    """Draw the Q-table as a PNG: colour is the estimate in R around 0, the text its interval and visits.

    Raises:
        ValueError: the policy has no table.
        OSError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if record.tabular is None:
        raise ValueError(f"{record.policy_id} version {record.version} has no table")
    cells = record.tabular.cells
    figure = Figure(figsize=(2.2 + 2.1 * len(record.actions), 1.6 + 0.48 * len(cells)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    limit = max((abs(q) for c in cells for q in c.q), default=0.0) or 1.0
    image = axes.imshow([c.q for c in cells], cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    figure.colorbar(image, ax=axes, label="estimated net result, R")
    axes.set_xticks(range(len(record.actions)), record.actions)
    axes.set_yticks(range(len(cells)), [c.state_key for c in cells])
    axes.set_title(f"{record.policy_id} version {record.version}, {record.outcomes} outcomes, {record.origin}")
    for y, cell in enumerate(cells):
        for x, row in enumerate(cell_rows(record, cell)):
            half = f"±{row['q_high'] - row['q']:.2f}" if row["visits"] else "unvisited"
            axes.text(x, y, f"{row['q']:+.2f} {half}\nn={row['visits']}", ha="center", va="center", fontsize=7,
                      color="white" if abs(row["q"]) > 0.6 * limit else "black",
                      fontweight="bold" if row["greedy"] else "normal")
    figure.savefig(path, format="png", dpi=120)
