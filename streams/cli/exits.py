"""The one table of exit codes, for all commands."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What an exit code means."""

    GOOD = 0
    FAILED = 1
    USAGE = 2
    NOT_PROVEN = 3
    UNREACHABLE = 4
    TOPICS_DIFFER = 5
    OTHER_CODE = 6
    EXPIRED = 7
    INTERRUPTED = 130


MEANING: dict[Exit, str] = {
    Exit.GOOD: "good",
    Exit.FAILED: "failed",
    Exit.USAGE: "wrong usage",
    Exit.NOT_PROVEN: "not proven",
    Exit.UNREACHABLE: "broker or registry unreachable, or it denies login or right",
    Exit.TOPICS_DIFFER: "topics differ from the catalogue",
    Exit.OTHER_CODE: "made by other code, configuration or platform",
    Exit.EXPIRED: "input is deleted",
    Exit.INTERRUPTED: "interrupted",
}
