"""Speed of the generated codec beside the closures that judge it, in microseconds and as a ratio, in one run.

Events are the examples of the catalogue, states those that the agents hold after some bars of three made markets.
Processor time, the best of a few runs that take turns.

    python -m benchmarks.codec_speed
"""

from __future__ import annotations

import json
import timeit
from collections.abc import Callable, Iterator
from functools import partial
from time import process_time
from typing import Any

import click
import msgspec

from agents.algorithms.market import generate
from agents.roster import ROSTER
from schemas.codec import Codec
from schemas.events import Candle
from schemas.pages import EXAMPLES
from schemas.reading import compile_reader, read_whole
from schemas.released import resolved, schema_names
from schemas.structs import avro_schema_of
from schemas.writing import compile_writer, write_whole
from streams.driver import Driver, ObjectCodec

HOUR_MS = 3_600_000
START_MS = 1_700_000_400_000 // HOUR_MS * HOUR_MS  # time stamps of today take six bytes


def ways(codec: Codec, bars: int) -> Iterator[tuple[str, int, list[Callable[[], Any]]]]:
    """(name, bytes, [encode by closures, by the codec, decode by closures, by the codec]) of events and states."""
    for topic in schema_names():
        path = EXAMPLES / f"{topic}.json"
        if path.exists():
            current = codec._current[topic]
            event = msgspec.convert(json.loads(path.read_text()), current.event)
            data = current.encode(b"", event)
            yield topic, len(data), [
                partial(write_whole, current.write, b"", event), partial(current.encode, b"", event),
                partial(read_whole, current.read, data, 0), partial(current.decode, data, 0),
            ]
    for name, state in states(bars).items():
        schema = resolved(avro_schema_of(type(state)))
        write, read = compile_writer(schema, ranges=False), compile_reader(schema, ranges=False)
        data = codec.encode_state(state)
        yield f"state of {name}", len(data), [
            partial(write_whole, write, b"", state), partial(codec.encode_state, state),
            partial(_converted, read, data, type(state)), partial(codec.decode_state, type(state), data),
        ]


def _converted(read: Any, data: bytes, kept: type[Any]) -> Any:
    return msgspec.convert(read_whole(read, data, 0), kept)


def states(bars: int) -> dict[str, Any]:
    """The largest state of each agent after so many bars; `bars`, which makes them of trades, has none then."""
    driver = Driver({name: agent() for name, agent in ROSTER.items()}, codec=ObjectCodec())
    made = {f"S{seed}": generate(seed, bars) for seed in range(3)}
    driver.run(("market.candles", Candle(
        symbol=symbol, interval_ms=HOUR_MS, open_time_ms=START_MS + t * HOUR_MS, ts_ms=START_MS + (t + 1) * HOUR_MS,
        open=float(m.open[t]), high=float(m.high[t]), low=float(m.low[t]), close=float(m.close[t]),
        source="synthetic:0", origin="SYNTHETIC")) for t in range(bars) for symbol, m in made.items())
    sizes = Codec()
    held = {name: [scope.state for fold in folds for scope in fold.scopes.values()]
            for name, folds in driver.folds.items()}
    return {name: max(of_one, key=lambda state: len(sizes.encode_state(state)))
            for name, of_one in held.items() if of_one}


def microseconds(calls: list[Callable[[], Any]], repeat: int) -> list[float]:
    """Processor time of one call of each, the best of `repeat` rounds in which they take turns."""
    for call in calls:
        timeit.timeit(call, number=50)  # the first use generates, the next ones let the interpreter specialise
    times = [max(1, int(2e-3 / max(timeit.timeit(call, timer=process_time, number=3) / 3, 1e-7))) for call in calls]
    rounds = [[timeit.timeit(c, timer=process_time, number=n) / n for c, n in zip(calls, times, strict=True)]
              for _ in range(repeat)]
    return [min(row) * 1e6 for row in zip(*rounds, strict=True)]


@click.command(help=__doc__)
@click.option("--repeat", default=15, show_default=True, help="Rounds.")
@click.option("--bars", default=700, show_default=True, help="Bars behind the states.")
def main(repeat: int, bars: int) -> None:
    """Print the table."""
    codec = Codec()
    print(f"{'':28} {'bytes':>6} | {'encode':>8} {'closures':>8} {'ratio':>6} | "
          f"{'decode':>8} {'closures':>8} {'ratio':>6}")
    for name, size, calls in ways(codec, bars):
        w_slow, w_fast, r_slow, r_fast = microseconds(calls, repeat)
        print(f"{name:28} {size:6} | {w_fast:8.1f} {w_slow:8.1f} {w_slow / w_fast:6.1f} | "
              f"{r_fast:8.1f} {r_slow:8.1f} {r_slow / r_fast:6.1f}")


if __name__ == "__main__":
    main()
