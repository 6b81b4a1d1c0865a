"""Who takes partitions up and lets them go, between the group's rebalances and Faust's services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from faust.tables.manager import TableManager
from faust.types import TP

from streams.transport.poll import FetchFailed


class Owner(Protocol):
    """What an app's partitions belong to."""

    async def take_up(self, tps: set[TP], committed: Mapping[TP, int | None]) -> dict[TP, int]:
        """Make ready for these partitions, all at once; nothing else is assigned any more.

        Args:
            tps: partitions that the group gave.
            committed: the group's committed offset of each.

        Returns:
            Offset at which each partition starts (`confluent_kafka.OFFSET_BEGINNING` included).
        """
        ...

    async def let_go(self) -> None:
        """Finish what was begun, commit it, give everything up; within `drain_timeout_s`, whatever happens."""
        ...

    async def explained(self, failed: FetchFailed) -> BaseException | None:
        """What a partition's trouble comes from, in a person's words; None where it has passed."""
        ...

    def went_down(self, reason: BaseException) -> None:
        """The app has crashed; called once."""
        ...

    def commit_failed(self) -> None:
        """A commit has to be made again."""
        ...


class NoTables(TableManager):
    """Faust's table manager without its second of waiting for tables to register: state is not in Faust's tables."""

    async def on_start(self) -> None:
        """Start the recovery service, which drives the end of every rebalance."""
        if not self.should_stop:
            await self._update_channels()
            await self.recovery.start()
