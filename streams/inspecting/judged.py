"""The cells of `quantum verify` from a small sample: what `quantum status` and `quantum ui` show beside the rest."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from typing import Any

from agents.contract import Agent
from schemas.codec import Codec
from streams.verify.cells import Report
from streams.verify.judge import verify
from streams.verify.view import Log

SAMPLE = 8  # policy updates made again
BUDGET = 2_000  # input records folded again for each agent


def glance(log: Log, roster: Mapping[str, Agent[Any]], codec: Codec, only: Collection[str] | None = None) -> Report:
    """Judge agents by a sample that is drawn anew each time; the controls are left out.

    Args:
        log: what is judged.
        roster: agents as the worker runs them, by name.
        codec: Avro codec.
        only: agents to judge; None: all of the catalogue.

    Raises:
        NoBroker: the log cannot be reached.
    """
    return verify(log, roster, sample=SAMPLE, sample_seed=secrets.randbits(32), budget=BUDGET, only=only, codec=codec,
                  controls=False)
