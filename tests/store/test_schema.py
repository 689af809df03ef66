"""The schema of a database that holds much already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pymongo import AsyncMongoClient
from pymongo.monitoring import CommandListener

from cluster.store.mongo import schema
from cluster.store.mongo.client import Database

if TYPE_CHECKING:
    from pymongo.monitoring import CommandFailedEvent, CommandStartedEvent, CommandSucceededEvent

DEADLINE_MS = 5000
MINUTE_MS = 60_000


class Deadlines(CommandListener):
    """The deadlines (ms) that MongoDB was given for the building of indexes."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name == "createIndexes":
            self.seen.append(event.command.get("maxTimeMS", 0))

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """The beginning says it all."""

    def failed(self, event: CommandFailedEvent) -> None:
        """The same."""


async def test_no_deadline_of_an_operation_ends_the_building_of_an_index(mongodb_uri: str, db_name: str) -> None:
    """MongoDB gives up an index at its deadline, so one that takes longer than that would never be there."""
    deadlines = Deadlines()
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
        mongodb_uri, timeoutMS=DEADLINE_MS, event_listeners=[deadlines]
    )
    handle = client.get_database(db_name)
    await schema.ensure(Database(handle, handle, handle, (client,)))
    await client.close()
    assert deadlines.seen
    assert min(deadlines.seen) > MINUTE_MS
