"""What is due and waits for a permit of its limit: one line for each limit, for which one task asks.

A permit is asked for shortly before it is used, and given back as soon as it is known that it will not be.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import structlog

from cluster.core.errors import StoreError
from cluster.core.limits.permits import HORIZON_MS, STALE_MS, Grant, Permit, Permits
from cluster.worker.leases import deferrals_by_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cluster.clock import Clock
    from cluster.worker.leases import Deferral, ReadyExecution
    from cluster.worker.rate_limiter import RateLimiter
    from cluster.worker.run_queue import RunQueue

log = structlog.get_logger()

MAX_ASKED = 256
"""So many permits are asked for at once."""
FAR_MS = 2 * HORIZON_MS
"""Permits are for instants nearer than this."""
ASK_SECONDS = 0.1
"""How often a limit on what runs at once is asked for again; what ends on this node is known at once."""
REREAD_MS = 150


@dataclass(slots=True)
class LimitQueue:
    """Executions that wait for permits of one limit; one task asks for them. `wake` is set when some came back."""

    waiting: deque[ReadyExecution] = field(default_factory=deque)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    next_ask_ms: int | None = None


class LimitQueues:
    """The lines of one node. What has got its permit goes to the run queue, for the instant of the permit."""

    def __init__(
        self, clock: Clock, gates: RateLimiter, queue: RunQueue, spawn: Callable[[Any], asyncio.Task[None]]
    ) -> None:
        self._clock = clock
        self._gates = gates
        self._queue = queue
        self._spawn = spawn
        self._lines: dict[str, LimitQueue] = {}

    def saturated(self) -> tuple[str, ...]:
        """Limits that something waits for here already: nothing more should be claimed for them."""
        return tuple(self._lines)

    def deferrals(self, since: float) -> list[Deferral]:
        """What has waited for its limit since that instant (monotonic seconds)."""
        return [p for line in self._lines.values() for p in deferrals_by_batch(line.waiting, since, line.next_ask_ms)]

    def admit(self, ready: ReadyExecution) -> bool:
        """Whether its limit lets it through now; if not, it waits for a permit or for the instant of the one it has."""
        now_ms = self._clock.now_ms()
        name = str(ready.job.limit_key)
        if ready.permit is not None and ready.permit.limit_key != name:
            self.return_permit(ready)  # its job was given other limits while it waited for its instant
        permit = ready.permit
        if permit is not None:
            if now_ms < permit.at_ms <= now_ms + FAR_MS:
                self._queue.put(permit.at_ms, ready)
                self._queue.wake_at(permit.at_ms)
                return False
            if permit.at_ms <= now_ms <= permit.at_ms + STALE_MS:
                return True
            # It came too late for its instant; or that is one of a clock that was wrong, and is so far off for no limit.
        ready.waiting_since = self._clock.monotonic()
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = LimitQueue()
            self._spawn(self._ask(name, line))
        line.waiting.append(ready)
        return False

    def return_permit(self, ready: ReadyExecution) -> None:
        """It will not be sent now, if ever: others may use its permit, and it asks for another one if it needs one.

        If this is not done, the permit counts until the lease is given back.
        """
        permit, ready.permit = ready.permit, None
        if permit is not None and permit.permit_id is not None:
            self._spawn(self._gates.release([permit]))

    def wake(self, gates: Iterable[str]) -> None:
        """Something that ran under these limits has ended: whoever waits may ask at once."""
        for name in gates:
            line = self._lines.get(name)
            if line is not None:
                line.woken.set()

    async def _ask(self, name: str, line: LimitQueue) -> None:
        """Ask for permits until nobody waits for them here."""
        try:
            while not self._queue.stopped:
                asked = [r for r in line.waiting if r.unsent]
                line.waiting.clear()
                line.woken.clear()
                if not asked:
                    return
                again_ms, unserved = await self._ask_for(name, asked[:MAX_ASKED])
                # Whoever came meanwhile stands behind those who asked before.
                line.waiting.extendleft(reversed([*unserved, *asked[MAX_ASKED:]]))
                line.next_ask_ms = again_ms
                self._queue.start_due()
                if unserved:
                    pause = ASK_SECONDS if again_ms is None else max(0.0, self._clock.seconds_until(again_ms))
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(line.woken.wait(), min(pause, 1.0))
        finally:
            self._lines.pop(name, None)
            for r in line.waiting:  # only if something went wrong: they begin anew
                self._queue.enqueue(r)

    async def _ask_for(self, name: str, asked: list[ReadyExecution]) -> tuple[int | None, list[ReadyExecution]]:
        """Permits for some. Returns when to ask again, and who got none."""
        try:
            limits = await self._gates.limits_of(asked[0].job)
            if not limits.limited:
                at = dict.fromkeys((r.execution.id for r in asked), self._clock.now_ms())
                granted = Grant(at, Permits())
            else:
                granted = await self._gates.acquire(name, limits, {r.execution.id: _mark(r) for r in asked})
        except StoreError as exc:
            log.warning("permits_unavailable", gate=name, error=str(exc))
            return self._clock.now_ms() + 500, asked
        for r in asked:
            instant = granted.at_ms.get(r.execution.id)
            if instant is not None:
                r.permit = Permit(name, r.execution.id, instant, granted.permits.granted.get(r.execution.id))
                # Early enough to read its job again, if it will have been read too long ago by then.
                self._queue.put(instant - REREAD_MS, r)
        return granted.ask_again_ms, [r for r in asked if r.execution.id not in granted.at_ms]


def _mark(ready: ReadyExecution) -> str:
    """A new one, unless it has a permit that it came too late for: it may keep that for a later instant."""
    known = None if ready.permit is None else ready.permit.permit_id
    return known or token_hex(8)
