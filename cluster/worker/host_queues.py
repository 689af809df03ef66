"""Executions that are due and wait for their host: its breaker is open, or it uses all the slots it may have here."""

from __future__ import annotations

import random
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from cluster.core.limits.circuit_breaker import FEW_JOBS, Admission
from cluster.worker.model import deferrals_by_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from cluster.worker.context import WorkerContext
    from cluster.worker.model import Deferral, ReadyExecution

STARTS_PER_LOOK = 4
"""So many may start for one that ended. Their jobs may have to be read again first, so it is not known which one will."""
BEHIND_SECONDS = 4.0
"""So much longer than for a slow host an execution waits for one that answers quickly."""
LOOK_SECONDS = 0.05
"""How often all hosts are looked at; the host of a request that ended is looked at at once."""
MANY = 64
OTHERS_PER_LOOK = 2
"""So many others are looked at with it: hundreds of hosts, with an execution each, wait for each other's slots."""


class HostQueues:
    """One queue for each host. `start` is given each execution that may go."""

    def __init__(self, context: WorkerContext, start: Callable[[ReadyExecution], None]) -> None:
        self._clock = context.clock
        self._breakers = context.breakers
        self._slots = context.slots
        self._start = start
        self._queues: dict[str, deque[ReadyExecution]] = {}
        self._looked_at = 0.0

    def hosts(self) -> Collection[str]:
        """Hosts that an execution waits for."""
        return self._queues.keys()

    def add(self, ready: ReadyExecution) -> None:
        """It waits behind what waits for its host already."""
        ready.begin_waiting(self._clock.monotonic())
        self._queues.setdefault(ready.job.host, deque()).append(ready)

    def draw(self, host: str, failed_jobs: Sequence[str] = (), *, others_only: bool = False) -> ReadyExecution | None:
        """Take out one of those that wait for this host, by chance; None if there is none any more.

        Jobs in `failed_jobs` stand behind all others, the one that failed last at the very end. With `others_only` that one is
        not taken, and none of them while they are few: then the host may be well, and another job waits for it elsewhere.
        """
        queue = [r for r in self._queues.pop(host, ()) if r.execution.id in r.held.waiting]
        places = {job_id: place for place, job_id in enumerate(failed_jobs)}
        first = min((places.get(r.source, -1) for r in queue), default=-1)
        drawn = None
        untaken = 0 if len(failed_jobs) < FEW_JOBS else len(failed_jobs) - 1
        if queue and not (others_only and failed_jobs and first >= untaken):
            suited = [i for i, r in enumerate(queue) if places.get(r.source, -1) == first]
            drawn = queue.pop(random.choice(suited))  # noqa: S311 - no secret depends on it
        if queue:
            self._queues[host] = deque(queue)
        return drawn

    def deferrals(self, since: float) -> list[Deferral]:
        """Executions that wait because a breaker is open, or since that instant (monotonic seconds) for their slow host.

        A host that answers quickly is not what they wait for: the node is behind, and they leave in their order. To release
        them would cost more than to send them, and would make them later by seconds; only after `BEHIND_SECONDS` more may
        another node be sooner.
        """
        deferrals: list[Deferral] = []
        now = self._clock.monotonic()
        for host, queue in self._queues.items():
            until_ms = self._breakers.open_until_ms(host)
            waited_since = since - BEHIND_SECONDS if self.takes_turns(host, now) else since
            deferrals += deferrals_by_batch(queue, waited_since if until_ms is None else float("inf"), until_ms, host)
        return deferrals

    def takes_turns(self, host: str, now: float) -> bool:
        """Whether what waits for this host leaves one after another: it answers quickly, and no breaker holds it back."""
        return self._breakers.admission(host) is Admission.ALLOW and self._slots.takes_turns(host, now)

    def count_moving(self, host: str) -> int:
        """How many wait for this host, if it answers quickly."""
        queue = self._queues.get(host)
        return len(queue) if queue and self.takes_turns(host, self._clock.monotonic()) else 0

    def many_move(self) -> bool:
        """Whether at least `MANY` wait for hosts that answer quickly, as far as a few of them tell."""
        waiting = 0
        now = self._clock.monotonic()
        for host in islice(self._queues, MANY):
            queue = self._queues[host]
            if self.takes_turns(host, now):
                waiting += sum(r.execution.id in r.held.waiting for r in islice(queue, MANY - waiting))
                if waiting >= MANY:
                    return True
        return False

    def count_waiting(self, host: str = "") -> int:
        """How many wait for this host; without a name, for all of them, at most `MANY` of each."""
        return len(self._queues.get(host, ())) if host else sum(min(len(q), MANY) for q in self._queues.values())

    def start_waiting(self, host: str | None) -> None:
        """A slot is free: start the executions that wait longest for this host and the next ones, and now and then (None: now)
        for any.
        """
        if not self._queues:
            return
        now = self._clock.monotonic()
        if host is None or now - self._looked_at > LOOK_SECONDS:
            self._looked_at = now
            for name in list(self._queues):
                self._start_waiting_for(name, now)
            return
        self._start_waiting_for(host, now)
        for name in list(islice(self._queues, OTHERS_PER_LOOK)):
            if name == host:
                continue
            allowed = self._breakers.admission(name) is Admission.ALLOW  # a probe is drawn by lot, and not so often
            if allowed and self._slots.waits_its_turn(name, now):
                return
            if allowed and self._slots.has_room(name, now):
                self._start_waiting_for(name, now, most=1)
            if name in self._queues:
                self._queues[name] = self._queues.pop(name)  # behind the others

    def _start_waiting_for(self, host: str, now: float, most: int = STARTS_PER_LOOK) -> None:
        queue = self._queues.pop(host, None)
        if queue is None:
            return
        started = 0
        passed_by: list[ReadyExecution] = []
        while queue and started < most:
            if queue[0].execution.id not in queue[0].held.waiting:
                queue.popleft()
                continue
            started += 1
            admission = self._breakers.admission(host)
            if admission is Admission.HOLD or not self._slots.available() or not self._slots.has_room(host, now):
                break
            ready = queue.popleft()
            if not self._slots.has_room(host, now, ready.job.target.unread_bytes):
                if not self._slots.bodies_stuck():
                    ready.begin_waiting(now)  # there will be room in a moment: it is not to be released for that
                passed_by.append(ready)  # the others may have small bodies
                continue
            self._start(ready)
            if admission is Admission.PROBE:
                break
        queue.extendleft(reversed(passed_by))
        if queue:  # executions that were deferred meanwhile stand behind it
            queue.extend(self._queues.get(host, ()))
            self._queues[host] = queue
