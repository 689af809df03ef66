"""One viewer of live events: what it gets next, what it lost, and where it is.

A viewer that reads slower than events come loses the oldest ones, and is told how many.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cluster.core.errors import HistoryLost, StoreError
from cluster.core.events import demand_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from cluster.core.events import Demand, EventFilter, LiveEvent

FLUSH_SECONDS = 0.2
"""Events go to a viewer at most this often, several at once."""
QUIET_SECONDS = 15.0
"""A viewer without events is told its position this often."""
BUFFERED = 1000
"""Events that wait for one viewer. They are shared, so a viewer costs no memory of its own for them."""


class LiveHub(Protocol):
    """What a viewer needs of the live events of its node."""

    position: str

    def leave(self, viewer: Viewer) -> None:
        """The viewer is gone."""

    def replay(self, demand: Demand, after: str, until: str) -> AsyncGenerator[list[LiveEvent]]:
        """The events between two positions. Raises `HistoryLost`; `TimeoutError` if there are too many."""


@dataclass(frozen=True, slots=True)
class LostEvents:
    """Events that a viewer does not get: how many by kind (empty: not known), and why."""

    reason: str
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Flush:
    """What goes to a viewer next, in this order. `position`: where it is then; `closing`: why its stream ends."""

    position: str
    dropped: LostEvents | None = None
    events: tuple[LiveEvent, ...] = ()
    closing: str | None = None


class Viewer:
    """One viewer. Iterate over `flushes()` once."""

    def __init__(self, hub: LiveHub, wanted: EventFilter, address: str) -> None:
        self.filter = wanted
        self.address = address
        self.position = ""
        self.started = False
        """Whether its response has begun. A caller that is gone before that never begins it."""
        self._hub = hub
        self._events: deque[LiveEvent] = deque()
        self._dropped: Counter[str] = Counter()
        self._reason = ""
        self._closing: str | None = None
        self._wake = asyncio.Event()

    def offer(self, event: LiveEvent) -> None:
        """Keep an event for this viewer if it wants it. The oldest one makes room."""
        if event.id <= self.position or not self.filter.matches(event):
            return
        if len(self._events) >= BUFFERED:
            oldest = self._events.popleft()
            self._dropped[oldest.kind] += 1
            self._reason = f"the viewer reads slower than events come; {BUFFERED} are kept for it"
        self._events.append(event)
        self._wake.set()

    def begin(self, position: str) -> None:
        """It gets what happens behind this position."""
        self.position = position

    def drop(self, reason: str) -> None:
        """Tell the viewer that events are missing, nobody knows how many."""
        self._reason = reason
        self._wake.set()

    def end(self, reason: str) -> None:
        """End the stream of this viewer."""
        self._closing = reason
        self._wake.set()

    async def flushes(self, after: str) -> AsyncGenerator[Flush]:
        """What this viewer gets, from behind `after` (empty: from now) until it is ended. Leaves the hub at its end."""
        self.started = True
        try:
            yield Flush(after or self.position)
            if after and after < self.position:
                async for flush in self._replay(after, self.position):
                    yield flush
            else:
                self.position = max(self.position, after)
            while True:
                flush = self._take()
                yield flush
                if flush.closing is not None:
                    return
                if not self._wake.is_set():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._wake.wait(), QUIET_SECONDS)
                if self._closing is None:
                    await asyncio.sleep(FLUSH_SECONDS)
        finally:
            self._hub.leave(self)

    def _take(self) -> Flush:
        self._wake.clear()
        dropped = LostEvents(self._reason, dict(self._dropped)) if self._reason else None
        events = tuple(self._events)
        self._events.clear()
        self._dropped.clear()
        self._reason = ""
        # Without an event of its own it is where the hub is: everything before was looked at.
        self.position = events[-1].id if events else max(self.position, self._hub.position)
        return Flush(self.position, dropped, events, self._closing)

    async def _replay(self, after: str, until: str) -> AsyncGenerator[Flush]:
        """What came between two positions. New events are kept meanwhile."""
        try:
            async for events in self._hub.replay(demand_of(self.filter), after, until):
                wanted = tuple(e for e in events if self.filter.matches(e))
                yield Flush(events[-1].id if events else after, None, wanted, None)
                if self._closing is not None:
                    return
        except (HistoryLost, TimeoutError) as exc:
            reason = str(exc) or "there was too much since then: not all of it is replayed"
            yield Flush(until, LostEvents(reason, {}))
        except StoreError as exc:
            yield Flush(until, LostEvents(f"the database did not answer: {exc}", {}))
