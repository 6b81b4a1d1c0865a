"""How source and origin of what was made from two records follow from theirs."""

from __future__ import annotations

from typing import Literal

Origin = Literal["CHECKED", "CLAIMED", "SYNTHETIC", "MIXED"]
MAX_SOURCE_LENGTH = 512


def merge_origin(a: Origin, b: Origin) -> Origin:
    """Origin of what both touched: theirs if they agree; SYNTHETIC if either is; else MIXED.

    >>> merge_origin("CHECKED", "CHECKED"), merge_origin("CHECKED", "CLAIMED"), merge_origin("CHECKED", "SYNTHETIC")
    ('CHECKED', 'MIXED', 'SYNTHETIC')
    """
    if a == b:
        return a
    return "SYNTHETIC" if "SYNTHETIC" in (a, b) else "MIXED"


def merge_source(a: str, b: str) -> str:
    """Sources of both, each once, sorted and joined by a plus; cut to what a schema holds.

    >>> merge_source("binance", "binance"), merge_source("synthetic:1", "binance")
    ('binance', 'binance+synthetic:1')
    """
    if a == b:
        return a
    return "+".join(sorted({*a.split("+"), *b.split("+")}))[:MAX_SOURCE_LENGTH]
