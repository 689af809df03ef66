"""The rules of workers after every callback: the invariants of `cluster/README.md`, and the policies of the jobs.

The bounds are computed here from the definitions, not by the code that is under test.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cluster.core.execution.model import FIRST_CLAIM, FIRST_TOKEN
from cluster.core.lifecycle import State
from tests.simulation.leases import Leases
from tests.simulation.world import START_MS, Broken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster.core.execution.model import Execution, RetryPolicy
    from cluster.core.job.definition import Definition
    from tests.simulation.model import Final
    from tests.simulation.nodes import Machines

GRAIN_MS = 250
SLACK_MS = 1000
"""A job read less than a second before its request leaves is not read again, and its age not looked at again."""


@dataclass
class Flight:
    """A request on its way, until the target has answered (s)."""

    job: str
    execution: str
    token: int
    until: float


@dataclass
class Rules:
    """Asked after each callback, at each arrival, and after each drain."""

    machines: Machines
    jobs: Mapping[str, Definition]
    sent: dict[str, list[tuple[int, int, float]]] = field(default_factory=dict)
    """By execution: number, token and time (s) of each request."""
    _flights: list[Flight] = field(default_factory=list)
    _asked: dict[tuple[str, int, int], float] = field(default_factory=dict)
    _heard: set[str] = field(default_factory=set)
    _before: dict[str, Execution] = field(default_factory=dict)
    _first_owners: dict[str, str] = field(default_factory=dict)
    """Who claimed each batch first."""
    _final: dict[str, Final] = field(default_factory=dict)
    _writes: int = 0

    def __post_init__(self) -> None:
        machines = self.machines
        self.leases = Leases(machines.world.store, int(machines.timings.batch_lease * 1000))

    # -- requests ------------------------------------------------------------------------------------------------

    def arrived(self, node: str, what: tuple[str, int, int], until: float, asked: float | None) -> None:
        """A request reached the target. `what` is its execution, number and token."""
        w = self.machines.world
        execution, number, token = what
        job = execution.partition(":")[0]
        self._leased(node, execution)
        retry = self.jobs[job].retry
        if number > retry.max_attempts:
            raise Broken(f"{execution} is sent for the {number}th time, of {retry.max_attempts}")
        self._not_too_old(execution, retry)
        if number > 1:
            self._waited(execution, number, retry)
        if self.jobs[job].overlap == "skip":
            self._alone(job, execution)
        if self.jobs[job].limits.concurrent is not None:
            self._within_limit(job, execution)
        if not w.trouble and any(n == number for n, _, _ in self.sent.get(execution, ())) and not self._in_storm:
            raise Broken(f"attempt {number} of {execution} is sent twice, and nothing was wrong")
        held = self.machines.held(node, execution)
        self.leases.sent(node, "" if held is None else held.batch.id, what)
        self.sent.setdefault(execution, []).append((number, token, w.now))
        self._flights = [f for f in self._flights if f.until > w.now]
        self._flights.append(Flight(job, execution, token, until))
        if asked is not None:
            self._asked[what] = asked

    @property
    def _in_storm(self) -> bool:
        """Whether there ever was trouble in this run."""
        return self.machines.troubled

    def answered(self, execution: str, status: int) -> None:
        """The target's answer reached the node."""
        if status == 200:
            self._heard.add(execution)

    def _leased(self, node: str, execution: str) -> None:
        m = self.machines
        held = m.held(node, execution)
        now = m.workers[node].context.clock.monotonic()
        if held is None or held.lost or now >= held.valid_until:
            raise Broken(f"{execution} is sent after the lease of {node} has ended")
        for other, worker in m.workers.items():
            theirs = worker.held.get(held.batch.id)
            if other == node or other in m.loop.dead or theirs is None or theirs.lost:
                continue
            if worker.context.clock.monotonic() < theirs.valid_until:
                raise Broken(f"{node} and {other} trust their lease of one batch")

    def _not_too_old(self, execution: str, retry: RetryPolicy) -> None:
        if retry.max_age_seconds is None:
            return
        latest = int(execution.partition(":")[2]) + retry.max_age_seconds * 1000 + SLACK_MS
        if START_MS + self.machines.world.now * 1000 > latest:
            raise Broken(f"{execution} is sent although it is older than maxAgeSeconds")

    def _waited(self, execution: str, number: int, retry: RetryPolicy) -> None:
        owed = self.machines.world.store.executions.get(execution)
        before = [] if owed is None else [a for a in owed.attempts if a.number == number - 1]
        if not before:
            return
        now_ms = START_MS + self.machines.world.now * 1000
        ends = [
            a.sent_ms + a.duration_ms + self._delay_ms(retry, execution, number - 1, a.token, -1) - 2 for a in before
        ]
        if now_ms < min(ends):
            raise Broken(f"attempt {number} of {execution} is {min(ends) - now_ms:.0f} ms too early")

    def _delay_ms(self, retry: RetryPolicy, execution: str, number: int, token: int, sign: int) -> float:
        """The least (`sign` -1) or the longest (1) time from an attempt to the next."""
        grown = min(retry.initial_delay_seconds * retry.multiplier ** (number - 1), retry.max_delay_seconds)
        asked = min(self._asked.get((execution, number, token), 0.0), retry.max_delay_seconds)
        return max(grown * (1 + sign * retry.jitter), asked) * 1000

    def _alone(self, job: str, execution: str) -> None:
        """`overlap: skip`: no other occurrence of the job has been sent and is still owed."""
        owed = self.machines.world.store.executions
        for other, before in self.sent.items():
            if other != execution and before and other in owed and other.partition(":")[0] == job:
                raise Broken(f"{execution} is sent while {other} runs, and its job does not overlap")

    def _within_limit(self, job: str, execution: str) -> None:
        """`maxConcurrent` 1: no other request of the job is under way whose node still holds its lease."""
        store, now = self.machines.world.store, self.machines.world
        for f in self._flights:
            if f.job != job or f.execution == execution or f.until <= now.now:
                continue
            e = store.executions.get(f.execution)
            b = None if e is None else store.batches.get(e.batch)
            if e is None or b is None or b.owner is None or (e.token, b.token) != (f.token, f.token):
                continue
            if b.claimable_ms > store.now_ms():
                raise Broken(f"{execution} is sent beside {f.execution}: more than maxConcurrent")

    # -- documents -----------------------------------------------------------------------------------------------

    def after(self, node: str) -> None:
        """The documents after a callback of this node ("" if it was none's)."""
        store = self.machines.world.store
        self.leases.after(late=not node)
        claimed = {b.id: b.owner for b in store.batches.values() if b.token == FIRST_TOKEN and b.owner is not None}
        self._first_owners |= claimed
        if store.executions != self._before:
            for i, e in self._before.items():
                self._changed(i, e, store.executions.get(i), node)
            self._before = dict(store.executions)
        if store.writes != self._writes and not self.machines.owing:
            self._writes = store.writes
            self._listed()
        if store.history != self._final:
            for i, f in store.history.items():
                if self._final.get(i) is not f:
                    self._ended(i, self._final.get(i), f)
            self._final = dict(store.history)

    def _listed(self) -> None:
        """Invariant 1: who claims some batch next sends it, or makes sure of the batch that it names."""
        store = self.machines.world.store
        listed = {i for b in store.batches.values() for i in b.ids}
        lost = store.executions.keys() - listed
        if lost:
            raise Broken(f"{sorted(lost)} are owed by no batch")

    def _changed(self, i: str, e: Execution, now: Execution | None, node: str) -> None:
        if now is None:
            if i not in self.machines.world.store.history:
                raise Broken(f"{i} is neither owed nor final")
            owner = self._first_owners.get(e.batch) if e.owner == FIRST_CLAIM else e.owner
            if node in self.machines.workers and owner != node:
                raise Broken(f"{i} was ended by a node that did not hold it")
        elif now.batch == e.batch and now.owner is not None and now.token < e.token:
            raise Broken(f"{i} was taken back by a node that had lost it")
        elif now.batch != e.batch and len(now.attempts) > len(e.attempts):
            last = now.attempts[-1]
            longest = self._delay_ms(self.jobs[e.job_id].retry, i, last.number, last.token, 1)
            if now.send_ms > START_MS + self.machines.world.now * 1000 + longest + GRAIN_MS:
                raise Broken(f"{i} waits longer than its back-off allows")

    def _ended(self, i: str, before: Final | None, f: Final) -> None:
        if f.state is State.SUCCEEDED:
            if i not in self._heard:
                raise Broken(f"{i} succeeded although no success was heard")
        elif before is not None and before.state is State.SUCCEEDED:
            raise Broken(f"the success of {i} was undone")
        elif not f.reason:
            raise Broken(f"{i} is {f.state} without a reason")
        numbers = {a.number for a in f.attempts}
        most = self.jobs[i.partition(":")[0]].retry.max_attempts
        given_up = f.reason is not None and ("maxAgeSeconds" in f.reason or "node_lost" in f.reason)
        if f.state is State.DEAD and not given_up and max(numbers, default=0) < most:
            raise Broken(f"{i} is dead after attempts {sorted(numbers)} of {most}")

    def drained(self, node: str) -> None:
        """A node that was stopped without faults holds nothing any more."""
        left = [b.id for b in self.machines.world.store.batches.values() if b.owner == node]
        if left:
            raise Broken(f"{node} has stopped and still holds {left}")
