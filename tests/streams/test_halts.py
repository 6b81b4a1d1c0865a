"""Which halts are in force: as `decision` obeys them, told by `quantum status`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agents.decision import DecisionAgent
from schemas.codec import Codec
from schemas.events import PolicyCommand
from streams.inspecting.halts import halts
from streams.log import Record

CODEC = Codec()
SYMBOLS = ("A", "B")


class Log:
    """The topic of commands, in memory."""

    def __init__(self, commands: list[PolicyCommand]) -> None:
        self._commands = commands

    def read(self, topic: str) -> Iterator[Record]:
        for offset, command in enumerate(self._commands):
            yield Record(topic, 0, offset, command.command_id.encode(), CODEC.encode(topic, command), (), None)
        yield Record(topic, 0, len(self._commands), b"x", b"what nobody can read", (), None)


def command(n: int, word: Any, symbol: str | None, ts_ms: int) -> PolicyCommand:
    return PolicyCommand(command_id=str(n), ts_ms=ts_ms, command=word, symbol=symbol, actor="ann", reason="news")


def test_a_halt_of_all_and_a_symbol_that_was_resumed() -> None:
    log: Any = Log([command(0, "HALT", None, 10), command(1, "RESUME", "A", 20), command(2, "HALT", "B", 5)])
    (found,) = halts(log, CODEC)
    assert (found.symbol, found.but, found.place) == (None, ("A",), "policy.commands-0@0")
    assert found.sentence == "HALT of all symbols but A, by ann: news"
    log = Log([command(0, "RESUME", None, 10), command(1, "HALT", "B", 10)])
    assert [h.sentence for h in halts(log, CODEC)] == ["HALT of B, by ann: news"]


WORDS = st.sampled_from(["HALT", "RESUME"])
COMMANDS = st.lists(st.tuples(WORDS, st.sampled_from([None, *SYMBOLS]), st.integers(1, 5)),
                    max_size=12)


@settings(deadline=None, max_examples=200)
@given(COMMANDS)
def test_they_are_those_that_the_agent_obeys(given_: list[tuple[str, str | None, int]]) -> None:
    commands = [command(n, word, symbol, ts_ms) for n, (word, symbol, ts_ms) in enumerate(given_)]
    log: Any = Log(commands)
    found = halts(log, CODEC)
    of_all = next((h for h in found if h.symbol is None), None)
    agent = DecisionAgent()
    for symbol in SYMBOLS:
        state = agent.new(symbol)
        for event in commands:
            if event.symbol in (None, symbol):
                state, _ = agent.step(state, event)
        told = any(h.symbol == symbol for h in found) or (of_all is not None and symbol not in of_all.but)
        assert told == state.halted
