"""Live events for the viewers of one node: one change stream while there are viewers, bounded viewers and buffers.

A viewer that names the event that it saw last gets what came since, from a stream of its own that ends when it has caught
up; one viewer at a time.
Nothing here waits for a viewer, and no engine step waits for anything here.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from contextvars import Context
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from cluster.core.errors import HistoryLost, HoraeError, NoChangeStreams, StoreError
from cluster.core.events import Demand, EventFilter, demand_of
from cluster.event_viewer import FLUSH_SECONDS, Viewer
from cluster.loops import cancel_and_wait
from cluster.store.queries.change_feed import ChangeFeed, tags_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from cluster.clock import Clock
    from cluster.core.events import LiveEvent
    from cluster.store.mongo.client import Database

log = structlog.get_logger()

CLOSING_SECONDS = 0.25
REOPEN_SECONDS = 1.0
START_SECONDS = 10.0
REPLAYED = 20_000
REPLAY_SECONDS = 20.0
"""So much is replayed for one viewer. What is left after that is dropped, and it is told so."""
TAGS_KEPT = 50_000


class TooManyViewers(HoraeError):
    """All places for viewers of this node are taken, or those for one address (`of_address`)."""

    def __init__(self, *, of_address: bool) -> None:
        self.of_address = of_address
        super().__init__("too many viewers")


class EventsClosed(HoraeError):
    """This node takes no viewers now; the message says why."""


@dataclass(frozen=True, slots=True)
class ViewerLimits:
    """How many viewers a node has at most, and how many from one address."""

    most: int = 50
    most_per_address: int = 50


class LiveEvents:
    """The viewers of one node and the stream that they share. `closed`: why the node takes no viewers; None: it does.

    One task reads the stream, while there are viewers. Only it opens and closes the stream, so none is read twice.
    """

    def __init__(
        self, db: Database, clock: Clock, limits: ViewerLimits, closed: Callable[[], str | None] = lambda: None
    ) -> None:
        self._db = db
        self._clock = clock
        self.limits = limits
        self._closed = closed
        self._viewers: set[Viewer] = set()
        self._joining: dict[Viewer, asyncio.Future[None]] = {}
        self._places: Counter[str] = Counter()
        self._replaying = asyncio.Lock()
        self._tags: OrderedDict[str, frozenset[str]] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self.position = ""
        """Up to where the shared stream was passed on; empty: there is none."""

    @property
    def viewers(self) -> int:
        """How many there are now."""
        return len(self._viewers)

    async def join(self, wanted: EventFilter, address: str) -> Viewer:
        """A new viewer, from now on. Raises `TooManyViewers`, `EventsClosed`, `NoChangeStreams`, `StoreUnavailable`."""
        reason = self._closed()
        if reason is not None:
            raise EventsClosed(reason)
        if self._places.total() >= self.limits.most:
            raise TooManyViewers(of_address=False)
        if self._places[address] >= self.limits.most_per_address:
            raise TooManyViewers(of_address=True)
        viewer = Viewer(self, wanted, address)
        self._places[address] += 1
        try:
            joined = asyncio.get_running_loop().create_future()
            self._joining[viewer] = joined
            if self._task is None:
                # Not in the context of the first viewer's request: a deadline of it would end the stream of all.
                self._task = asyncio.get_running_loop().create_task(self._run(), name="events", context=Context())
            await joined
        except BaseException:
            self._joining.pop(viewer, None)
            self.leave(viewer)
            raise
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """The viewer is gone. The stream ends soon after the last one."""
        self._viewers.discard(viewer)
        self._places[viewer.address] -= 1
        self._places += Counter()  # without those that are at zero

    async def close(self, reason: str) -> None:
        """End the streams of all viewers, and the shared one."""
        for viewer in self._viewers:
            viewer.end(reason)
        self._refuse(EventsClosed(reason))
        if self._task is not None:
            await cancel_and_wait([self._task])

    async def replay(self, demand: Demand, after: str, until: str) -> AsyncGenerator[list[LiveEvent]]:
        """The events between two positions. Raises `HistoryLost`; `TimeoutError` if there are too many."""
        async with asyncio.timeout(REPLAY_SECONDS):
            await self._replaying.acquire()
        try:
            feed = await ChangeFeed.open(self._db, demand, after)
            try:
                left, end = REPLAYED, self._clock.monotonic() + REPLAY_SECONDS
                while feed.position < until:
                    events = [e for e in await feed.next() if e.id <= until]
                    left -= len(events)
                    if left < 0 or self._clock.monotonic() > end:
                        raise TimeoutError
                    await self._look_up_tags(events, wanted=demand.tags)
                    if events:
                        yield events
            finally:
                await feed.close()
        finally:
            self._replaying.release()

    # The shared stream

    async def _run(self) -> None:
        """Read and pass on, as long as there are viewers."""
        watcher = asyncio.get_running_loop().create_task(self._watch_closed())
        feed: ChangeFeed | None = None
        demand = Demand()
        try:
            while self._viewers or self._joining:
                wanted = _together([*self._viewers, *self._joining])
                try:
                    if feed is None or not demand.covers(wanted):
                        feed, demand = await self._open(feed, wanted), wanted
                    self._let_in()
                    events = await feed.next()
                    await self._look_up_tags(events, wanted=demand.tags)
                except StoreError as exc:
                    await self._interrupted(feed, exc)
                    feed = None
                    continue
                self._publish(events, feed.position)
                if events:  # let some more come, so that each read returns several
                    await asyncio.sleep(FLUSH_SECONDS)
        finally:
            watcher.cancel()
            self._task, self.position = None, ""
            self._tags.clear()
            if feed is not None:
                await feed.close()

    async def _open(self, old: ChangeFeed | None, demand: Demand) -> ChangeFeed:
        """A stream that begins where the last one was passed on; else now."""
        feed = await ChangeFeed.open(self._db, demand, self.position)
        if old is not None:
            await old.close()
        self.position = feed.position
        return feed

    def _let_in(self) -> None:
        while self._joining:
            viewer, joined = self._joining.popitem()
            if not joined.done():
                viewer.begin(self.position)
                self._viewers.add(viewer)
                joined.set_result(None)

    def _refuse(self, error: Exception) -> None:
        while self._joining:
            _, joined = self._joining.popitem()
            if not joined.done():
                joined.set_exception(error)

    async def _interrupted(self, feed: ChangeFeed | None, error: StoreError) -> None:
        """The stream ended. It is opened again where it was passed on; if that is not kept, viewers are told so."""
        log.warning("event_stream_interrupted", viewers=len(self._viewers), error=str(error))
        self._refuse(error)
        if isinstance(error, HistoryLost):
            self.position = ""
            for viewer in self._viewers:
                viewer.drop(str(error))
        elif isinstance(error, NoChangeStreams):
            for viewer in self._viewers:
                viewer.end(f"the database does not tell changes: {error}")
        if feed is not None:
            await feed.close()
        if self._viewers:
            await asyncio.sleep(REOPEN_SECONDS)

    def _publish(self, events: Iterable[LiveEvent], position: str) -> None:
        for event in events:
            for viewer in self._viewers:
                viewer.offer(event)
        self.position = position

    async def _watch_closed(self) -> None:
        """End all viewers when the node takes none any more: it is drained, and they go to another node. Viewers that
        never begin lose their places.
        """
        idle: set[Viewer] = set()
        look_again = self._clock.monotonic() + START_SECONDS
        while True:
            reason = self._closed()
            if self._clock.monotonic() >= look_again:
                look_again += START_SECONDS
                for viewer in idle & {v for v in self._viewers if not v.started}:
                    self.leave(viewer)
                idle = {v for v in self._viewers if not v.started}
            if reason is not None:
                for viewer in self._viewers:
                    viewer.end(reason)
            await asyncio.sleep(CLOSING_SECONDS)

    async def _look_up_tags(self, events: Iterable[LiveEvent], *, wanted: bool) -> None:
        """Give events the tags of their jobs, as they are when the event is passed on."""
        about = [e for e in events if e.job_id is not None]
        if not wanted or not about:
            return
        for e in about:
            if e.kind == "job":  # its tags may have changed
                self._tags.pop(str(e.job_id), None)
        unknown = {str(e.job_id) for e in about} - self._tags.keys()
        if unknown:
            self._tags.update(await tags_of(self._db, unknown))
            while len(self._tags) > TAGS_KEPT:
                self._tags.popitem(last=False)
        for e in about:
            e.know_tags(self._tags.get(str(e.job_id), frozenset()))


def _together(viewers: Iterable[Viewer]) -> Demand:
    demand = Demand()
    for viewer in viewers:
        demand |= demand_of(viewer.filter)
    return demand
