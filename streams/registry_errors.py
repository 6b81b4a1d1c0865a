"""What may be wrong with the schema registry; apart, so that the command line knows them without its client."""

from __future__ import annotations


class RegistryUnreachable(Exception):
    """No answer; the message says which address, why, and what to do."""


class RegistryRefused(Exception):
    """The registry answered and refused, or what answered is no registry.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status

    @property
    def denied(self) -> bool:
        """Whether it denies the login, or a right."""
        return self.status in (401, 403)
