"""Halts in force, from `policy.commands`, by the rule of the agents that obey them.

Of HALT and RESUME the newest by event time counts, of those of a symbol and those of all together, and a halt wins over
a resume of the same time.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.codec import Codec
from schemas.events import PolicyCommand
from schemas.refused import Refused
from streams.log import LogReader

COMMANDS = "policy.commands"


@dataclass(frozen=True)
class Halt:
    """A halt that is in force.

    Attributes:
        symbol: what is halted; None: all symbols.
        but: symbols that were resumed since.
        place: of the command.
    """

    symbol: str | None
    but: tuple[str, ...]
    actor: str
    reason: str
    ts_ms: int
    place: str

    @property
    def sentence(self) -> str:
        """In words."""
        but = f" but {', '.join(self.but)}" if self.but else ""
        return f"HALT of {self.symbol or 'all symbols'}{but}, by {self.actor}: {self.reason}"


def halts(log: LogReader, codec: Codec) -> list[Halt]:
    """Halts in force, that of all symbols first.

    Raises:
        NoBroker: the broker does not answer.
    """
    newest: dict[str | None, tuple[PolicyCommand, str]] = {}
    for record in log.read(COMMANDS):
        try:
            event = codec.decode(COMMANDS, record.value)
        except Refused:
            continue
        if isinstance(event, PolicyCommand) and event.command in ("HALT", "RESUME"):
            known = newest.get(event.symbol)
            if known is None or _rank(event) > _rank(known[0]):
                newest[event.symbol] = event, record.place
    of_all = newest.pop(None, None)
    since = (-1, False) if of_all is None else _rank(of_all[0])
    own = [(symbol, *found) for symbol, found in sorted(newest.items(), key=lambda kv: kv[0] or "")
           if _rank(found[0]) > since]
    out = []
    if of_all is not None and of_all[0].command == "HALT":
        but = tuple([symbol for symbol, c, _ in own if symbol is not None and c.command == "RESUME"])
        out.append(_halt(None, but, *of_all))
    return out + [_halt(symbol, (), c, place) for symbol, c, place in own if c.command == "HALT"]


def _rank(command: PolicyCommand) -> tuple[int, bool]:
    return command.ts_ms, command.command == "HALT"


def _halt(symbol: str | None, but: tuple[str, ...], command: PolicyCommand, place: str) -> Halt:
    return Halt(symbol, but, command.actor, command.reason, command.ts_ms, place)
