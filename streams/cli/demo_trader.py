"""The PPO trader in the demo: a few training runs of the real symbols, by a configuration that stands on the log.

Its own schedule, every 30 minutes of event time, would train at every bar of hourly candles: years of them in a minute.
The controls are SYNTHETIC, and those it leaves out by itself.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from math import ceil
from typing import Any

import click

from agents.roster import ROSTER
from schemas.codec import Codec
from schemas.events import PolicyConfig, TraderDecision, TrainingCompleted
from streams.commanding import said
from streams.commits import Commits
from streams.configuring import TOPIC, standing
from streams.ingest import Loaded
from streams.log import LogReader, Start
from streams.records import encode_event, readable
from streams.settings import Settings
from streams.subjects import codec_for

NAME, COMPLETED, DECISIONS = "ppo_trader", "rl_v3.training.completed", "rl_v3.decision"
INTERVAL = "rl_v3.training.interval_minutes"
RUNS = 3
"""Slots that the candles are divided into; a run takes a process of its own, and about a second of its time."""
TAKEN_S = 60.0  # the workers start within some seconds
MINUTE_MS, DAY_MINUTES = 60_000, 24 * 60
MAX_MINUTES = 366 * DAY_MINUTES


def configure(settings: Settings, loaded: Loaded) -> None:
    """Set the trader's schedule, unless somebody has configured it on this log before."""
    agent, codec = ROSTER[NAME](), codec_for(settings, writes=True)
    with LogReader(settings) as log:
        if standing(log, codec, agent).event is not None:
            return
    values = schedule(loaded)
    agent.configured(values)
    event = PolicyConfig(config_id="config-demo", agent=NAME, ts_ms=0, values=values, actor="quantum demo",
                         reason=f"some {RUNS} training runs over all candles, not one a bar")
    said(settings, encode_event(codec, TOPIC, event, event.config_id, event.actor))


def await_taken(settings: Settings, look: Callable[[], None]) -> None:
    """Until the trader's inbox holds the configurations that stand on the log: what a relay copies first comes first,
    and candles that overtook the schedule would be trained by the default one, at every bar.

    Args:
        settings: broker and names.
        look: called between two looks; raises where the workers are gone.

    Raises:
        click.ClickException: they are not taken in time.
    """
    with LogReader(settings) as log:
        _, end = log.bounds(TOPIC, 0)
    place, give_up = (settings.topic(TOPIC), 0), time.monotonic() + TAKEN_S
    with closing(Commits(settings)) as commits:
        while commits.of(settings.group(NAME), [place]).get(place, 0) < end:
            if time.monotonic() > give_up:
                raise click.ClickException(f"{NAME} has not taken {TOPIC}-0 up to {end} within {TAKEN_S:.0f} s; its "
                                           f"worker's last words are above")
            look()
            time.sleep(0.1)


def schedule(loaded: Loaded) -> str:
    """Values that divide the time of the candles into `RUNS` slots; a version serves until the second after it ends."""
    times = loaded.frame["ts_ms"]
    span_ms = int(times.max() - times.min()) if len(times) else 0  # type: ignore[operator, arg-type]
    minutes = min(MAX_MINUTES, max(30, ceil(span_ms / MINUTE_MS / RUNS)))
    return json.dumps({INTERVAL: minutes, "valid_for_ms": 2 * minutes * MINUTE_MS})


def told(settings: Settings, symbols: Collection[str]) -> dict[str, Any]:
    """What became of it, as plain data.

    Args:
        symbols: the real symbols.
    """
    agent, codec = ROSTER[NAME](), codec_for(settings)
    with LogReader(settings) as log:
        now = standing(log, codec, agent)
        ends = [e for e in _events(log, codec, COMPLETED) if isinstance(e, TrainingCompleted)]
        newest: dict[str, TraderDecision] = {}
        for d in _events(log, codec, DECISIONS, Start.last(len(symbols) * 4)):
            if isinstance(d, TraderDecision) and d.symbol in symbols:
                newest[d.symbol] = d
    skipped: Counter[str] = Counter()
    for e in ends:
        if e.skipped is not None:
            skipped[e.skipped] += e.slots
    shown = ("symbol", "slot_end_ms", "rows", "steps", "avg_reward", "entropy", "approx_kl", "explained_variance")
    return {
        "interval_minutes": getattr(now.config, "training_interval_minutes", None), "config": now.place,
        "mode": getattr(now.config, "mode", None),
        "runs": [{name: getattr(e, name) for name in shown} for e in ends if e.success],
        "failed": sum(e.status == "FAILED" for e in ends), "skipped": dict(sorted(skipped.items())),
        "accounts": {s: {"equity": d.equity, "action": d.action, "forced_reason": d.forced_reason,
                         "policy_version": d.policy_version} for s, d in sorted(newest.items())},
    }


def _events(log: LogReader, codec: Codec, topic: str, start: Start | None = None) -> Iterator[Any]:
    records = log.read(topic) if start is None else log.read(topic, start=start)
    return (event for _, event in readable(codec, topic, records))


def lines(trader: Mapping[str, Any]) -> list[str]:
    """For the closing screen: how many runs, by which schedule, what came out, what was not trained and why."""
    minutes, runs = trader["interval_minutes"], trader["runs"]
    by = f"policy.config has it at {trader['config']}" if trader["config"] else "its default"
    paper = ", in which nothing is applied" if trader["mode"] in ("OFF", "SHADOW") else ""
    out = [f"ppo_trader trained {len(runs)} times, a slot being {minutes / DAY_MINUTES:,.1f} days of event time "
           f"({by}); mode {trader['mode']}{paper}."]
    if runs:
        rewards = ", ".join(f"{r['avg_reward']:+.1f}" for r in runs)
        last = runs[-1]
        out.append(f"  reward of an episode, percent: {rewards}; last run: entropy {last['entropy']:.2f} nats, KL "
                   f"{last['approx_kl']:.4f}.")
    for symbol, a in trader["accounts"].items():
        why = f" ({a['forced_reason']})" if a["forced_reason"] else ""
        out.append(f"  {symbol}: its account on paper stands at {a['equity']:,.0f}, last action {a['action']}{why}.")
    told_ = ", ".join(f"{why} {n:,}" for why, n in trader["skipped"].items()) or "none"
    return [*out, f"  slots without a run: {told_}; failed attempts: {trader['failed']}."]
