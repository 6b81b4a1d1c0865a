"""The one exception for a record that cannot be taken."""

from __future__ import annotations


class Refused(Exception):
    """A record that cannot be taken: it goes to the dead letters with this reason, bytes intact.

    Args:
        reason: one word in capitals that a person can filter by, e.g. CONFLICT.
        detail: what is wrong, and with which value.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
