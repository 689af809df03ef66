"""Executions that are due and wait for a permit of their limit: one queue for each limit, for which one task asks.

A permit is asked for shortly before it is used, and returned as soon as it is known that it will not be.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from secrets import token_hex
from typing import TYPE_CHECKING

import structlog

from cluster.core.errors import StoreError
from cluster.core.limits.permits import HORIZON_MS, STALE_MS, Grant, Permit, Permits
from cluster.worker.model import deferrals_by_batch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster.worker.context import WorkerContext
    from cluster.worker.model import Deferral, ReadyExecution
    from cluster.worker.run_queue import RunQueue

log = structlog.get_logger()

MAX_ASKED = 256
"""So many permits are asked for at once."""
FAR_MS = 2 * HORIZON_MS
"""Permits are for instants nearer than this."""
ASK_SECONDS = 0.1
"""How often a limit on what runs at once is asked for again; what ends on this node is known at once."""
MAX_PAUSE_SECONDS = 1.0
UNAVAILABLE_MS = 500
REREAD_MS = 150


class LimitQueue:
    """The executions of one node that wait for permits of one limit."""

    def __init__(self, limit_key: str, context: WorkerContext, run_queue: RunQueue) -> None:
        self._limit_key = limit_key
        self._clock = context.clock
        self._rate_limiter = context.rate_limiter
        self._run_queue = run_queue
        self._waiting: deque[ReadyExecution] = deque()
        self._woken = asyncio.Event()
        self._next_ask_ms: int | None = None

    def join(self, ready: ReadyExecution) -> None:
        """It waits behind what waits for this limit already."""
        ready.begin_waiting(self._clock.monotonic())
        self._waiting.append(ready)

    def wake(self) -> None:
        """A permit was returned: ask at once."""
        self._woken.set()

    def deferrals(self, since: float) -> list[Deferral]:
        """Executions that have waited since that instant (monotonic seconds)."""
        return deferrals_by_batch(self._waiting, since, self._next_ask_ms)

    async def serve(self) -> None:
        """Ask for permits until no execution waits for them here."""
        asking: list[ReadyExecution] = []
        try:
            while not self._run_queue.stopped:
                asking = [r for r in self._waiting if r.unsent]
                self._waiting.clear()
                self._woken.clear()
                if not asking:
                    return
                ask_again_ms, unserved = await self._ask_for(asking[:MAX_ASKED])
                # Executions that came meanwhile stand behind those that asked before.
                self._waiting.extendleft(reversed([*unserved, *asking[MAX_ASKED:]]))
                asking = []
                self._next_ask_ms = ask_again_ms
                self._run_queue.start_due()
                if unserved:
                    await self._pause(ask_again_ms)
        finally:
            for r in (*asking, *self._waiting):  # only if something went wrong: they begin again with their send time
                self._run_queue.enqueue(r)

    async def _pause(self, ask_again_ms: int | None) -> None:
        pause = ASK_SECONDS if ask_again_ms is None else max(0.0, self._clock.seconds_until(ask_again_ms))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), min(pause, MAX_PAUSE_SECONDS))

    async def _ask_for(self, asking: list[ReadyExecution]) -> tuple[int | None, list[ReadyExecution]]:
        """Permits for some. Returns when to ask again, and which got none."""
        try:
            limits = await self._rate_limiter.limits_of(asking[0].job)
            if not limits.limited:
                at_ms = dict.fromkeys((r.execution.id for r in asking), self._clock.now_ms())
                grant = Grant(at_ms, Permits())
            else:
                wanted = {r.execution.id: _permit_id(r) for r in asking}
                grant = await self._rate_limiter.acquire(self._limit_key, limits, wanted)
        except StoreError as exc:
            log.warning("permits_unavailable", gate=self._limit_key, error=str(exc))
            return self._clock.now_ms() + UNAVAILABLE_MS, asking
        for r in asking:
            at = grant.at_ms.get(r.execution.id)
            if at is not None:
                permit_id = grant.permits.granted.get(r.execution.id)
                r.grant(Permit(self._limit_key, r.execution.id, at, permit_id))
                # Early enough to read its job again, if it will have been read too long ago by then.
                self._run_queue.put(at - REREAD_MS, r)
        return grant.ask_again_ms, [r for r in asking if r.execution.id not in grant.at_ms]


class LimitQueues:
    """The queues of one node. An execution that got its permit goes to the run queue, for the instant of the permit."""

    def __init__(self, context: WorkerContext, run_queue: RunQueue) -> None:
        self._context = context
        self._clock = context.clock
        self._run_queue = run_queue
        self._queues: dict[str, LimitQueue] = {}

    def saturated(self) -> tuple[str, ...]:
        """Limits that an execution waits for here already: nothing more should be claimed for them."""
        return tuple(self._queues)

    def deferrals(self, since: float) -> list[Deferral]:
        """Executions that have waited for their limit since that instant (monotonic seconds)."""
        return [deferral for queue in self._queues.values() for deferral in queue.deferrals(since)]

    def admit(self, ready: ReadyExecution) -> bool:
        """Let it through its limit, or have it wait for a permit or for the instant of the one it has (False)."""
        now_ms = self._clock.now_ms()
        limit_key = str(ready.job.limit_key)
        if ready.permit is not None and ready.permit.limit_key != limit_key:
            self.return_permit(ready)  # its job was given other limits while it waited for its instant
        permit = ready.permit
        if permit is not None:
            if now_ms < permit.at_ms <= now_ms + FAR_MS:
                self._run_queue.put(permit.at_ms, ready)
                self._run_queue.wake_at(permit.at_ms)
                return False
            if permit.at_ms <= now_ms <= permit.at_ms + STALE_MS:
                return True
            # It came too late for its instant; or a clock that was wrong gave one that is too far off for any limit.
        queue = self._queues.get(limit_key)
        if queue is None:
            queue = self._queues[limit_key] = LimitQueue(limit_key, self._context, self._run_queue)
            self._context.tasks.spawn(self._serve(limit_key, queue))
        queue.join(ready)
        return False

    def return_permit(self, ready: ReadyExecution) -> None:
        """It is not sent now, if ever: others may use its permit, and it asks for another one if it needs one.

        A permit that is not returned counts until the lease is released.
        """
        permit = ready.take_permit()
        if permit is not None and permit.permit_id is not None:
            self._context.tasks.spawn(self._context.rate_limiter.release([permit]))

    def wake(self, limit_keys: Iterable[str]) -> None:
        """An execution that ran under these limits has ended: those that wait for them may ask at once."""
        for limit_key in limit_keys:
            queue = self._queues.get(limit_key)
            if queue is not None:
                queue.wake()

    async def _serve(self, limit_key: str, queue: LimitQueue) -> None:
        try:
            await queue.serve()
        finally:
            del self._queues[limit_key]


def _permit_id(ready: ReadyExecution) -> str:
    """A new one, unless it has a permit that it came too late for: it may keep that for a later instant."""
    kept = None if ready.permit is None else ready.permit.permit_id
    return kept or token_hex(8)
