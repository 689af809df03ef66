"""What is due and waits for its host: its breaker is open, or the host uses all the slots it may have on this node."""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING

from cluster.core.limits.circuit_breaker import Admission
from cluster.worker.leases import deferrals_by_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cluster.clock import Clock
    from cluster.core.limits.host_slots import HostSlots
    from cluster.worker.circuit_breakers import CircuitBreakers
    from cluster.worker.leases import Deferral, ReadyExecution

STARTS_PER_LOOK = 4
"""So many may go for one that ended. Their jobs may have to be read again first, so that nobody knows yet who will."""
LOOK_SECONDS = 0.05
"""How often everything that waits for its host is looked at; the host of a request that ended is looked at at once."""


class HostQueues:
    """One line for each host. `free` says whether the node has a slot; `start` is given what may go."""

    def __init__(
        self,
        clock: Clock,
        breakers: CircuitBreakers,
        lanes: HostSlots,
        free: Callable[[], bool],
        start: Callable[[ReadyExecution], None],
    ) -> None:
        self._clock = clock
        self._breakers = breakers
        self._lanes = lanes
        self._free = free
        self._start = start
        self._parked: dict[str, deque[ReadyExecution]] = {}
        self._looked_at = 0.0

    def hosts(self) -> Iterable[str]:
        """Hosts that something waits for."""
        return self._parked

    def add(self, ready: ReadyExecution) -> None:
        """It waits behind what waits for its host already."""
        ready.waiting_since = self._clock.monotonic()
        self._parked.setdefault(ready.job.host, deque()).append(ready)

    def draw(self, host: str) -> ReadyExecution | None:
        """One of those that wait for this host, by chance; None if there is none any more."""
        queue = [r for r in self._parked.pop(host, ()) if r.execution.id in r.held.waiting]
        drawn = queue.pop(random.randrange(len(queue))) if queue else None  # noqa: S311 - no secret depends on it
        if queue:
            self._parked[host] = deque(queue)
        return drawn

    def deferrals(self, since: float) -> list[Deferral]:
        """What waits because a breaker is open, or since that instant (monotonic seconds) for its slow host."""
        found: list[Deferral] = []
        for host, queue in self._parked.items():
            until = self._breakers.open_until_ms(host)
            found += deferrals_by_batch(queue, since if until is None else float("inf"), until, host)
        return found

    def start_waiting(self, host: str | None) -> None:
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
        while queue and started < STARTS_PER_LOOK:
            if queue[0].execution.id not in queue[0].held.waiting:
                queue.popleft()
                continue
            started += 1
            gate = self._breakers.admission(host)
            if gate is Admission.HOLD or not self._free() or not self._lanes.has_room(host, now):
                break
            self._start(queue.popleft())
            if gate is Admission.PROBE:
                break
        if queue:  # what could not go meanwhile stands behind it
            queue.extend(self._parked.get(host, ()))
            self._parked[host] = queue
