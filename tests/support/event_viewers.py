"""Viewers of live events for tests: each collects what it gets, until it is ended."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

from cluster.clock import Clock
from cluster.core.events import EventFilter
from cluster.live_events import LiveEvents, ViewerLimits
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cluster.core.events import LiveEvent
    from cluster.event_viewer import LostEvents, Viewer
    from cluster.store.mongo.client import Database


class Watching:
    """What one viewer got so far."""

    def __init__(self, viewer: Viewer, after: str) -> None:
        self.viewer = viewer
        self.events: list[LiveEvent] = []
        self.dropped: list[LostEvents] = []
        self.closing: str | None = None
        self.position = ""
        self.task = asyncio.get_running_loop().create_task(self._collect(after))

    async def _collect(self, after: str) -> None:
        async with aclosing(self.viewer.flushes(after)) as flushes:
            async for flush in flushes:
                self.position = flush.position
                self.events += flush.events
                self.dropped += [flush.dropped] if flush.dropped is not None else []
                self.closing = flush.closing or self.closing

    def data(self, kind: str = "execution") -> list[dict[str, Any]]:
        return [e.data for e in self.events if e.kind == kind]

    def states(self) -> list[tuple[str, str]]:
        return [(e["executionId"], e["state"]) for e in self.data()]

    async def gets(self, count: int, seconds: float = 15.0) -> list[LiveEvent]:
        """The events once there are so many."""

        async def enough() -> bool:
            return len(self.events) >= count

        await eventually(enough, seconds, f"{count} events")
        return self.events


class Hub:
    """The live events of one node."""

    def __init__(self, db: Database, limits: ViewerLimits | None = None) -> None:
        self.closed: str | None = None
        self.live = LiveEvents(db, Clock(), limits or ViewerLimits(), lambda: self.closed)
        self.watching: list[Watching] = []

    async def watch(self, after: str = "", address: str = "::1", **wanted: Any) -> Watching:
        chosen = EventFilter(**{name: frozenset(values) for name, values in wanted.items()})
        found = Watching(await self.live.join(chosen, address), after)
        self.watching.append(found)
        return found

    async def stop(self) -> None:
        await self.live.close("the test is over")
        await asyncio.gather(*(w.task for w in self.watching), return_exceptions=True)


@asynccontextmanager
async def hub(db: Database, limits: ViewerLimits | None = None) -> AsyncIterator[Hub]:
    made = Hub(db, limits)
    try:
        yield made
    finally:
        await made.stop()
