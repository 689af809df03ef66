"""What is due and waits for its host: its breaker is open, or the host uses all the slots it may have on this node."""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING

from cluster.core.limits.circuit_breaker import Gate
from cluster.worker.leases import by_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cluster.clock import Clock
    from cluster.core.limits.host_slots import Lanes
    from cluster.worker.circuit_breakers import Breakers
    from cluster.worker.leases import Parked, Ready

UNPARKED = 4
"""So many may go for one that ended. Their jobs may have to be read again first, so that nobody knows yet who will."""
LOOK_SECONDS = 0.05
"""How often everything that waits for its host is looked at; the host of a request that ended is looked at at once."""


class Parking:
    """One line for each host. `free` says whether the node has a slot; `start` is given what may go."""

    def __init__(
        self,
        clock: Clock,
        breakers: Breakers,
        lanes: Lanes,
        free: Callable[[], bool],
        start: Callable[[Ready], None],
    ) -> None:
        self._clock = clock
        self._breakers = breakers
        self._lanes = lanes
        self._free = free
        self._start = start
        self._parked: dict[str, deque[Ready]] = {}
        self._looked_at = 0.0

    def hosts(self) -> Iterable[str]:
        """Hosts that something waits for."""
        return self._parked

    def park(self, ready: Ready) -> None:
        """It waits behind what waits for its host already."""
        ready.parked_at = self._clock.monotonic()
        self._parked.setdefault(ready.job.host, deque()).append(ready)

    def draw(self, host: str) -> Ready | None:
        """One of those that wait for this host, by chance; None if there is none any more."""
        queue = [r for r in self._parked.pop(host, ()) if r.execution.id in r.held.waiting]
        drawn = queue.pop(random.randrange(len(queue))) if queue else None  # noqa: S311 - no secret depends on it
        if queue:
            self._parked[host] = deque(queue)
        return drawn

    def parked(self, since: float) -> list[Parked]:
        """What waits because a breaker is open, or since that instant (monotonic seconds) for its slow host."""
        found: list[Parked] = []
        for host, queue in self._parked.items():
            until = self._breakers.until_ms(host)
            found += by_batch(queue, since if until is None else float("inf"), until, host)
        return found

    def unpark(self, host: str | None) -> None:
        """Slots came free: what waits longest for this host may go, and now and then what waits for any."""
        if not self._parked:
            return
        now = self._clock.monotonic()
        if host is None or now - self._looked_at > LOOK_SECONDS:
            self._looked_at = now
            for name in list(self._parked):
                self._unpark_one(name, now)
        else:
            self._unpark_one(host, now)

    def _unpark_one(self, host: str, now: float) -> None:
        queue = self._parked.pop(host, None)
        if queue is None:
            return
        started = 0
        while queue and started < UNPARKED:
            if queue[0].execution.id not in queue[0].held.waiting:
                queue.popleft()
                continue
            started += 1
            gate = self._breakers.gate(host)
            if gate is Gate.HOLD or not self._free() or not self._lanes.room(host, now):
                break
            self._start(queue.popleft())
            if gate is Gate.PROBE:
                break
        if queue:  # what could not go meanwhile stands behind it
            queue.extend(self._parked.get(host, ()))
            self._parked[host] = queue
