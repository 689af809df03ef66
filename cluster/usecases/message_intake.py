"""Accepting messages on one node: requests that arrive while a write is under way share the next one (group commit).

So a thousand requests a second are some hundred writes, and a request on an idle node does not wait for any other. What
waits here is bounded; beyond that, requests are refused before anything of them is written.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from cluster.core.errors import Conflict, TooMany
from cluster.store.mongo import schema
from cluster.store.mongo.deadlines import within
from cluster.store.mongo.operation import retry_while_unavailable
from cluster.usecases.messages import accept, new_execution_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.clock import Clock
    from cluster.core.errors import InvalidInput
    from cluster.core.job.message import NewMessage
    from cluster.store.mongo.client import Database
    from cluster.usecases.messages import Accepted

MAX_WRITE = 1000
"""Messages of one write; of a request that has more, all of them."""
MAX_WAITING = 5000
MAX_WAITING_BYTES = 32 * 1024 * 1024
WRITERS = 2
"""Writes at once: while one waits for the disk, the next is prepared."""
WRITE_SECONDS = 4.0
"""A write that MongoDB does not answer is repeated for so long. The requests that share it are answered within 5 s."""


@dataclass(slots=True)
class _Request:
    messages: Sequence[tuple[NewMessage, str]]
    answer: asyncio.Future[list[Accepted | InvalidInput]] = field(repr=False)
    size: int


class MessageIntake:
    """The group commit of one node."""

    def __init__(self, db: Database, clock: Clock, lookahead_seconds: float) -> None:
        self._db = replace(db, work=db.api)
        self._clock = clock
        self._lookahead_ms = int(lookahead_seconds * 1000)
        self._waiting: deque[_Request] = deque()
        self._count = 0
        self._bytes = 0
        self._writers: set[asyncio.Task[None]] = set()
        self._schema_known = False
        self._written = asyncio.Event()

    @property
    def has_room(self) -> bool:
        """Whether a request may wait for the next write."""
        return self._count < MAX_WAITING and self._bytes < MAX_WAITING_BYTES

    async def wait_for_room(self) -> None:
        """Wait until a request may wait for the next write."""
        while not self.has_room:
            self._written.clear()
            await self._written.wait()

    def require_room(self) -> None:
        """Raises `TooMany` if this node is at its limit."""
        if not self.has_room:
            raise TooMany(f"{self._count} messages wait for MongoDB on this node; nothing of this request was accepted")

    async def accept(self, messages: Sequence[NewMessage]) -> list[Accepted | InvalidInput]:
        """Accept these messages, in one write that others may share. Raises `TooMany` or `StoreError`.

        When it returns, they are durable.
        """
        self.require_room()
        if not self._schema_known:
            await self._require_schema()
        named = [(m, m.execution_id or new_execution_id(m)) for m in messages]
        request = _Request(named, asyncio.get_running_loop().create_future(), sum(m.size for m in messages))
        self._waiting.append(request)
        self._count += len(named)
        self._bytes += request.size
        if len(self._writers) < WRITERS:
            # A context of its own: the deadline of the request that comes first is not that of those that join it.
            writer = asyncio.get_running_loop().create_task(self._write_all(), context=contextvars.Context())
            self._writers.add(writer)
            writer.add_done_callback(self._writers.discard)
        return await request.answer

    async def _require_schema(self) -> None:
        """Nodes of the release before would cancel the executions of messages, so they must be gone for good."""
        if (await schema.version_of(self._db) or 0) < schema.MESSAGES_VERSION:
            raise Conflict(
                f"messages need schema version {schema.MESSAGES_VERSION}: replace every node, then run `horae db migrate`"
            )
        self._schema_known = True

    async def _write_all(self) -> None:
        while self._waiting:
            taken = [self._waiting.popleft()]
            count = len(taken[0].messages)
            while self._waiting and count + len(self._waiting[0].messages) <= MAX_WRITE:
                taken.append(self._waiting.popleft())
                count += len(taken[-1].messages)
            try:
                await self._write(taken)
            finally:
                self._count -= count
                self._bytes -= sum(r.size for r in taken)
                self._written.set()

    async def _write(self, taken: Sequence[_Request]) -> None:
        together = [m for r in taken for m in r.messages]
        now_ms = self._clock.now_ms()
        try:
            with within(WRITE_SECONDS):
                results = await retry_while_unavailable(
                    partial(accept, self._db, together, now_ms, self._lookahead_ms),
                    seconds=WRITE_SECONDS / 2,
                    during="accept_messages",
                )
        except Exception as exc:  # each of the requests has this error, whatever it is
            for r in taken:
                if not r.answer.done():
                    r.answer.set_exception(exc)
            return
        first = 0
        for r in taken:
            if not r.answer.done():
                r.answer.set_result(results[first : first + len(r.messages)])
            first += len(r.messages)
