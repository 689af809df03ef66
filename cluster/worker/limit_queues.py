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
from cluster.core.limits.permits import HORIZON_MS, STALE_MS, Granted, Permit, Permits
from cluster.worker.leases import by_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cluster.clock import Clock
    from cluster.worker.leases import Parked, Ready
    from cluster.worker.rate_limiter import Gates
    from cluster.worker.run_queue import RunQueue

log = structlog.get_logger()

ASKED = 256
"""So many permits are asked for at once."""
FAR_MS = 2 * HORIZON_MS
"""Permits are for instants nearer than this."""
ASK_SECONDS = 0.1
"""How often a limit on what runs at once is asked for again; what ends on this node is known at once."""
REREAD_MS = 150


@dataclass(slots=True)
class Line:
    """Executions that wait for permits of one limit; one task asks for them. `wake` is set when some came back."""

    waiting: deque[Ready] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    again_ms: int | None = None


class Lines:
    """The lines of one node. What has got its permit goes to the run queue, for the instant of the permit."""

    def __init__(self, clock: Clock, gates: Gates, queue: RunQueue, spawn: Callable[[Any], asyncio.Task[None]]) -> None:
        self._clock = clock
        self._gates = gates
        self._queue = queue
        self._spawn = spawn
        self._lines: dict[str, Line] = {}

    def shut(self) -> tuple[str, ...]:
        """Limits that something waits for here already: nothing more should be claimed for them."""
        return tuple(self._lines)

    def parked(self, since: float) -> list[Parked]:
        """What has waited for its limit since that instant (monotonic seconds)."""
        return [p for line in self._lines.values() for p in by_batch(line.waiting, since, line.again_ms)]

    def permitted(self, ready: Ready) -> bool:
        """Whether its limit lets it through now; if not, it waits for a permit or for the instant of the one it has."""
        now_ms = self._clock.now_ms()
        name = str(ready.job.gate)
        if ready.permit is not None and ready.permit.gate != name:
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
        ready.parked_at = self._clock.monotonic()
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = Line()
            self._spawn(self._ask(name, line))
        line.waiting.append(ready)
        return False

    def return_permit(self, ready: Ready) -> None:
        """It will not be sent now, if ever: others may use its permit, and it asks for another one if it needs one.

        If this is not done, the permit counts until the lease is given back.
        """
        permit, ready.permit = ready.permit, None
        if permit is not None and permit.mark is not None:
            self._spawn(self._gates.give_back([permit]))

    def some_back(self, gates: Iterable[str]) -> None:
        """Something that ran under these limits has ended: whoever waits may ask at once."""
        for name in gates:
            line = self._lines.get(name)
            if line is not None:
                line.wake.set()

    async def _ask(self, name: str, line: Line) -> None:
        """Ask for permits until nobody waits for them here."""
        try:
            while not self._queue.stopped:
                asked = [r for r in line.waiting if r.unsent]
                line.waiting.clear()
                line.wake.clear()
                if not asked:
                    return
                again_ms, unserved = await self._ask_for(name, asked[:ASKED])
                # Whoever came meanwhile stands behind those who asked before.
                line.waiting.extendleft(reversed([*unserved, *asked[ASKED:]]))
                line.again_ms = again_ms
                self._queue.pump()
                if unserved:
                    pause = ASK_SECONDS if again_ms is None else max(0.0, self._clock.until(again_ms))
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(line.wake.wait(), min(pause, 1.0))
        finally:
            self._lines.pop(name, None)
            for r in line.waiting:  # only if something went wrong: they begin anew
                self._queue.line_up(r)

    async def _ask_for(self, name: str, asked: list[Ready]) -> tuple[int | None, list[Ready]]:
        """Permits for some. Returns when to ask again, and who got none."""
        try:
            limits = await self._gates.limits(asked[0].job)
            if not limits.any:
                at = dict.fromkeys((r.execution.id for r in asked), self._clock.now_ms())
                granted = Granted(at, Permits())
            else:
                granted = await self._gates.ask(name, limits, {r.execution.id: _mark(r) for r in asked})
        except StoreError as exc:
            log.warning("permits_disturbed", gate=name, error=str(exc))
            return self._clock.now_ms() + 500, asked
        for r in asked:
            instant = granted.at_ms.get(r.execution.id)
            if instant is not None:
                r.permit = Permit(name, r.execution.id, instant, granted.then.held.get(r.execution.id))
                # Early enough to read its job again, if it will have been read too long ago by then.
                self._queue.put(instant - REREAD_MS, r)
        return granted.again_ms, [r for r in asked if r.execution.id not in granted.at_ms]


def _mark(ready: Ready) -> str:
    """A new one, unless it has a permit that it came too late for: it may keep that for a later instant."""
    known = None if ready.permit is None else ready.permit.mark
    return known or token_hex(8)
