"""`/events`: what happens, as server-sent events.

A stream is one response without an end. It holds a connection and no thread, and no deadline of a request ends it. So the
number of viewers is bounded, and by address to half of the connections that an address may have: the rest is for requests.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import falcon
import orjson

from api.http.addresses import client_address, limit_name
from api.http.requests import QueryParameters
from api.resources.jobs import Resource
from cluster.core.errors import Fault, InvalidInput, NoChangeStreams
from cluster.core.events import EXECUTION_STATES, KINDS, EventFilter, position_time
from cluster.live_events import EventsClosed, TooManyViewers

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from falcon.asgi import Request, Response

    from api.http.context import Services
    from cluster.core.events import LiveEvent
    from cluster.event_viewer import Flush, Viewer
    from cluster.live_events import LiveEvents

RETRY_AFTER_SECONDS = 5
RECONNECT_MS = 2000
CHECK_KEY_SECONDS = 15.0
MOST_SECONDS = 86_400
MOST_NAMES = 32
AHEAD_S = 3600
"""A position so far in the future is of another database: its viewer would wait for ever."""


class _Parameters(QueryParameters):
    def names(self, name: str, max_length: int) -> frozenset[str]:
        """Several texts, separated by commas or one a parameter."""
        value = self._params.get(name)
        values = [] if value is None else [value] if isinstance(value, str) else value
        found = [part.strip() for v in values for part in v.split(",")]
        if len(found) > MOST_NAMES or not all(1 <= len(v) <= max_length and "\0" not in v for v in found):
            self._fault(name, f"must be 1 to {MOST_NAMES} names of 1 to {max_length} characters, separated by commas")
            return frozenset()
        return frozenset(found)


class Events(Resource):
    """`/events`. `check_key` raises when the key of a request does not count any more."""

    def __init__(
        self, services: Services, live: LiveEvents, check_key: Callable[[Request, Response], Awaitable[None]]
    ) -> None:
        super().__init__(services)
        self._live = live
        self._check_key = check_key
        self._trusted = services.settings.trusted_proxies

    async def on_get(self, req: Request, resp: Response) -> None:
        """Stream events from now on, or from behind `Last-Event-ID`."""
        q = _Parameters(req, ("tag", "job", "state", "kind", "seconds", "lastEventId"))
        wanted = EventFilter(
            kinds=q.choices("kind", KINDS),
            jobs=q.names("job", 80),
            tags=q.names("tag", 64),
            states=q.choices("state", EXECUTION_STATES),
        )
        seconds = q.number("seconds", MOST_SECONDS, MOST_SECONDS)
        after = self._position(req, q)
        q.raise_faults()
        try:
            viewer = await self._live.join(wanted, limit_name(client_address(req, self._trusted)))
        except TooManyViewers as exc:
            raise self._too_many(of_address=exc.of_address) from exc
        except EventsClosed as exc:
            raise falcon.HTTPServiceUnavailable(
                description=f"{exc}; connect again, to another node", retry_after=RETRY_AFTER_SECONDS
            ) from exc
        except NoChangeStreams as exc:
            raise falcon.HTTPNotImplemented(
                description="this database has no change streams, which live events are made of: a replica set has them, "
                f"and its user needs the role readWrite ({exc}); poll GET /executions instead"
            ) from exc
        resp.content_type = "text/event-stream"
        resp.set_header("X-Accel-Buffering", "no")  # nginx would keep the events back
        resp.stream = self._stream(req, resp, viewer, after, seconds)

    def _position(self, req: Request, q: _Parameters) -> str:
        header, parameter = req.get_header("Last-Event-ID"), q.text("lastEventId", 4096)
        after = header or parameter or ""
        at = position_time(after) if after else None
        if after and (at is None or at[0] > self.clock.now_ms() / 1000 + AHEAD_S):
            name = "Last-Event-ID" if header else "lastEventId"
            raise InvalidInput([Fault(name, "is not the id of an event of this cluster; leave it out to begin now")])
        return after

    def _too_many(self, *, of_address: bool) -> falcon.HTTPError:
        if of_address:
            return falcon.HTTPTooManyRequests(
                description=f"this address watches {self._live.limits.most_per_address} streams already: close one",
                retry_after=RETRY_AFTER_SECONDS,
            )
        return falcon.HTTPServiceUnavailable(
            description=f"this node has {self._live.limits.most} viewers (HORAE_EVENT_VIEWERS): close one, or connect to "
            "another node",
            retry_after=RETRY_AFTER_SECONDS,
        )

    async def _stream(
        self, req: Request, resp: Response, viewer: Viewer, after: str, seconds: int
    ) -> AsyncGenerator[bytes]:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(seconds, viewer.end, "the time that was asked for is over")
        checked = loop.time()
        try:
            async with aclosing(viewer.flushes(after)) as flushes:
                yield f"retry: {RECONNECT_MS}\n".encode()
                async for flush in flushes:
                    yield _frames(flush)
                    if loop.time() - checked >= CHECK_KEY_SECONDS:
                        checked = loop.time()
                        try:
                            await self._check_key(req, resp)
                        except falcon.HTTPError as exc:
                            viewer.end(f"the key is not accepted any more: {exc.description}")
        finally:
            timer.cancel()


def _frames(flush: Flush) -> bytes:
    parts = []
    if flush.dropped is not None:
        dropped = {"reason": flush.dropped.reason, "counts": flush.dropped.counts or None}
        parts.append(_frame("dropped", dropped))
    parts += [_event_frame(e) for e in flush.events]
    if not parts or (flush.events == () and flush.position):
        # A comment keeps proxies from closing the connection. The id is where a viewer begins again that saw no event.
        parts.append(b": heartbeat\n" + (f"id: {flush.position}\n".encode() if flush.position else b"") + b"\n")
    if flush.closing is not None:
        parts.append(_frame("closing", {"reason": flush.closing}))
    return b"".join(parts)


def _event_frame(e: LiveEvent) -> bytes:
    return e.frame or e.keep_frame(f"id: {e.id}\n".encode() + _frame(e.kind, e.data))


def _frame(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: ".encode() + orjson.dumps(data) + b"\n\n"
