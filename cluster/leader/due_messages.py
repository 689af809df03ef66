"""Messages that come due within the look-ahead become executions: executions first, then their batches, then they wait no
more. Every write may be repeated, by this leader, a stale one or the next.

A message that is due later is not read: what waits costs nothing, however much it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from cluster.core.errors import UnreadableDocument
from cluster.core.execution.planning import plan_messages
from cluster.store import batches, executions, history, messages
from cluster.store.enqueue import repair_batches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.execution.model import Execution
    from cluster.leader.context import LeaderContext

log = structlog.get_logger()

AHEAD_MS = 2000
"""So much beyond the look-ahead: a turn may be late, and a message that is accepted for the edge of it is not."""
PAGE = 1000
LARGE_AT_ONCE = 16
"""Large bodies are read one by one, so many in one step."""
FROM_THE_START_EVERY = 5.0
"""The index is read from its start so often (s): a slow request may insert a message behind the place that was reached.
In between it is read from there, because the entries of what was deleted cost time for a while.
"""


@dataclass(frozen=True, slots=True)
class MovedMessages:
    """What one step moved, and whether there is more to move at once."""

    messages: int = 0
    more: bool = False


class MessageMover:
    """The moving of one leader."""

    def __init__(self, context: LeaderContext) -> None:
        self._context = context
        self._db = context.db
        self._from_ms = 0
        self._start_at = float("-inf")

    async def step(self, now_ms: int, nodes: int) -> MovedMessages:
        """Move the next page of messages that come due within the look-ahead."""
        now = self._context.clock.monotonic()
        if now >= self._start_at:
            self._start_at, self._from_ms = now + FROM_THE_START_EVERY, 0
        before_ms = now_ms + int(self._context.timings.lookahead * 1000) + AHEAD_MS
        page, unreadable, last_ms = await messages.due(self._db, self._from_ms, before_ms, PAGE)
        if unreadable:
            await self._end_unreadable(unreadable, now_ms)
        large = [e for e in page if "body_size" in (e.message or {})]
        small = [e for e in page if "body_size" not in (e.message or {})]
        await self._move(small, now_ms, nodes)
        for waiting in large[:LARGE_AT_ONCE]:
            full = await self._in_full(waiting, now_ms)
            if full is not None:
                await self._move([full], now_ms, nodes)
        left = len(large) > LARGE_AT_ONCE
        if page and not left:
            self._from_ms = page[-1].due_ms
        return MovedMessages(len(page), more=left or last_ms is not None)

    async def _move(self, waiting: Sequence[Execution], now_ms: int, nodes: int) -> None:
        if not waiting:
            return
        plan = plan_messages(waiting, nodes, self._context.new_batch_id, now_ms)
        self._context.trusted_term()
        existed = await executions.insert(self._db, plan.executions)
        await batches.insert(self._db, plan.batches)
        if existed:
            # An earlier try may have died before it inserted the batch. Who claims what a cancellation has taken sends nothing.
            owed = (await executions.owed(self._db, existed)).values()
            await repair_batches(self._db, list(owed))
        await messages.delete(self._db, [e.id for e in waiting])

    async def _in_full(self, waiting: Execution, now_ms: int) -> Execution | None:
        try:
            return await messages.in_full(self._db, waiting.id)
        except UnreadableDocument as exc:
            await self._end_unreadable({waiting.id: str(exc)}, now_ms)
            return None

    async def _end_unreadable(self, unreadable: dict[str, str], now_ms: int) -> None:
        """Messages whose documents cannot be read: `dead` in history with the reason."""
        log.error("messages_unreadable", messages=sorted(unreadable))
        await history.insert_unreadable(self._db, unreadable, now_ms, self._context.retention_days)
        await messages.delete(self._db, list(unreadable))
