"""Controls: markets with a known answer, run beside the real ones as in a laboratory.

    lab = draw(seed=7)                 # names, order and markets follow from the seed
    done = publish(settings, lab.loaded, costs=lab.costs, own_clocks=True, lead=LEAD, outcomes=OUTCOMES)
    reveal(settings, lab, done.candles)    # the key, once the run has closed

Three of them: one with a planted edge that hangs on the regime (PLANTED), its twin in which other strategies pay
(REVERSED), and a fair random walk in which none pays after costs (FAIR). Their candles are labelled synthetic and pass
through the same features, regimes, decisions, costs and execution as all others. Their symbols are neutral names drawn
from the seed: until `control.reveal` is published nothing but the seed tells which is which, and no code asks. Each has
a clock of its own, which runs as fast as the agents come along.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from hashlib import sha256

import polars as pl
from confluent_kafka import Producer
from msgspec.structs import replace

from agents.algorithms import market
from agents.algorithms.counter import uniform
from schemas.events import Control, ControlKind, ControlReveal
from streams.calibrated import generator
from streams.ingest.merge import Loaded
from streams.ingest.publish import Costs
from streams.ingest.synthetic import made_candles, planted_costs
from streams.log import NoBroker
from streams.records import encode_event
from streams.settings import Settings
from streams.subjects import codec_for
from streams.transport.logs import LIBRDKAFKA
from streams.verify.controls import NEEDED, REVEAL

OUTCOMES = NEEDED
"""Outcomes of each control: as many as verify asks for."""
LEAD = 160
"""Bars in flight of each control. Paper execution holds 192 at most (docs/decisions/0051)."""
BARS = 16_000  # more than 3,000 outcomes take: the run ends by outcomes
INTERVAL_MS = 3_600_000
START_MS = 1_704_067_200_000  # 2024-01-01
KINDS: tuple[ControlKind, ...] = ("PLANTED", "REVERSED", "FAIR")
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
_ACK_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Lab:
    """The controls of one run.

    Attributes:
        run_id: named in the reveal.
        seed: from which everything follows.
        controls: in order of their symbols; nothing of them is published yet.
        loaded: their candles, in order of event time.
        costs: what their edge is calibrated for.
    """

    run_id: str
    seed: int
    controls: tuple[Control, ...]
    loaded: Loaded
    costs: Costs

    @property
    def symbols(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(c.symbol for c in self.controls)


def draw(seed: int, *, bars: int = BARS, taken: Collection[str] = ()) -> Lab:
    """The controls that follow from a seed.

    Args:
        seed: of names, order and markets.
        bars: candles made of each.
        taken: symbols that are in use already.
    """
    names = _names(seed, set(taken))
    kinds = sorted(KINDS, key=lambda kind: uniform(seed, "controls", "order", kind))
    controls = tuple(
        Control(symbol=name, kind=kind, market_seed=_market_seed(seed, kind), bars=bars, published=0,
                interval_ms=INTERVAL_MS, first_open_ms=START_MS)
        for name, kind in zip(sorted(names), kinds, strict=True)
    )
    frame = pl.concat([candles(c) for c in controls]).sort("ts_ms", "symbol", maintain_order=True)
    loaded = Loaded(frame=frame, series=(), symbols=tuple(sorted(names)))
    return Lab(run_id=f"controls-{seed}", seed=seed, controls=controls, loaded=loaded, costs=planted_costs())


def candles(control: Control) -> pl.DataFrame:
    """All candles of a control, made from its seed; columns as `Candle` has them [bars, columns]."""
    made = market.generate(control.market_seed, control.bars, market.MARKETS[control.kind.lower()])
    return made_candles(made, control.symbol, control.interval_ms, control.first_open_ms, control.market_seed)


def _names(seed: int, taken: set[str]) -> list[str]:
    """Names that tell nothing: letters drawn from the seed, and a quote currency like any other."""
    names: list[str] = []
    n = 0
    while len(names) < len(KINDS):
        drawn = [uniform(seed, "controls", "name", f"{n}/{i}") for i in range(4)]
        name = "".join(_LETTERS[int(u * len(_LETTERS))] for u in drawn[:3 + (drawn[3] < 0.5)]) + "USDT"
        n += 1
        if name not in taken:
            taken.add(name)
            names.append(name)
    return names


def _market_seed(seed: int, kind: ControlKind) -> int:
    return int.from_bytes(sha256(f"controls/{seed}/{kind}".encode()).digest()[:4], "big")


def revealed(lab: Lab, published: Mapping[str, int]) -> ControlReveal:
    """The key of a run.

    Args:
        lab: the controls.
        published: candles published, by symbol.
    """
    controls = tuple(replace(c, published=published.get(c.symbol, 0)) for c in lab.controls)
    last_ms = max(c.first_open_ms + c.published * c.interval_ms for c in controls)
    source = "+".join(sorted(f"synthetic:{c.market_seed}" for c in controls))
    return ControlReveal(run_id=lab.run_id, ts_ms=last_ms, seed=lab.seed, generator=generator(), controls=controls,
                         source=source, origin="SYNTHETIC")


def reveal(settings: Settings, lab: Lab, published: Mapping[str, int]) -> ControlReveal:
    """Publish the key of a run; the run must have closed.

    Raises:
        NoBroker: it was not acknowledged.
    """
    event, codec = revealed(lab, published), codec_for(settings, writes=True)
    row = encode_event(codec, REVEAL, event, f"reveal:{lab.run_id}/{event.ts_ms}", event.source)
    producer = Producer(settings.producer(), logger=LIBRDKAFKA)
    producer.produce(settings.topic(REVEAL), row.value, row.key, headers=list(row.headers))
    if producer.flush(_ACK_S):
        raise NoBroker(f"the broker {settings.broker} did not acknowledge {REVEAL}")
    return event
