"""Nodes that are away while executions come due: what `catchUp` then makes of what was written in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from cluster.core.execution.model import RetryPolicy
from cluster.core.job.definition import Definition
from cluster.core.lifecycle import State
from cluster.core.limits.permits import Limits
from tests.simulation.model import turn
from tests.simulation.nodes import Machines
from tests.simulation.world import START_MS, Broken, World

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFETCH_MS = 1000
UNCLAIMED_MS = 12_000
"""A batch lease and 2 s, as the product's timings have it."""
EVERY_MS = 3000
WINDOW_SECONDS = 15
RETRY = RetryPolicy(3, 1.0, 1.0, 2.0, 0.0)


def _job(catch_up: str, **fields: object) -> Definition:
    return Definition("@every 3s", "http://t/", 0, catch_up=catch_up, retry=RETRY, **fields)  # type: ignore[arg-type]


class Away(Machines):
    """No node is there for up to 40 s. Three jobs, one of each policy."""

    definitions: ClassVar[Mapping[str, Definition]] = {
        "none": _job("none"),
        "latest": _job("latest"),
        "all": _job("all", catch_up_window_seconds=WINDOW_SECONDS),
    }
    statuses: ClassVar[tuple[int, ...]] = (200, 200, 500)

    def __init__(self, seed: int, trouble: float = 0.0) -> None:
        super().__init__(seed, trouble)
        self._missed: set[str] = set()
        self._back_at = self.world.random.random() * 40

    def run(self) -> World:
        try:
            self._in(None, self.owe(self.dues))
            for n in range(2):
                self._in(None, self._come(f"n{n}"))
            if self.troubled:
                self._in(None, self._all_die())
            self.loop.run(self._back_at + (60.0 if self.troubled else 25.0), self._after, self._between)
            self._calm()
            self._all_ends(self.dues, 120)
        finally:
            for worker in self.workers.values():
                worker.dispatcher.run_queue.stop()
            self.loop.failure = None
            self.loop.close()
        return self.world

    async def _come(self, name: str) -> None:
        await turn(self._back_at)
        self.begin(name)

    async def _all_die(self) -> None:
        """Every node at once, when executions are on their way, and new ones come long after their leases."""
        random = self.world.random.random
        await turn(self._back_at + random() * 8)
        names = list(self._current)
        for name in names:
            owner = self._current.pop(name)
            self.loop.kill(owner)
            self.rules.leases.died(owner)
        await turn(20 + random() * 20)
        for name in names:
            self.begin(name)

    def _after(self, node: str) -> None:
        self.rules.after(node)
        now_ms = START_MS + self.world.now * 1000
        for i, final in self.world.store.history.items():
            if final.state is State.MISSED and i not in self._missed:
                self._missed.add(i)
                self._may_be_missed(i, now_ms)
        self._nothing_sent_against_its_policy()

    def _may_be_missed(self, i: str, now_ms: float) -> None:
        """Only what no node was there for, and what its policy leaves out."""
        job, due = i.partition(":")[0], int(i.partition(":")[2])
        if self.rules.sent.get(i):
            raise Broken(f"{i} is missed, and it was sent")
        if now_ms - (due - PREFETCH_MS) < UNCLAIMED_MS:
            raise Broken(f"{i} is missed, and nodes were there")
        if job == "latest" and now_ms < due + EVERY_MS:  # the schedule goes on, though no more was written in this run
            raise Broken(f"{i} is missed, and it was the latest")
        if job == "all" and now_ms - due < WINDOW_SECONDS * 1000:
            raise Broken(f"{i} is missed within its window")

    def _nothing_sent_against_its_policy(self) -> None:
        for i, sent in self.rules.sent.items():
            job, due = i.partition(":")[0], int(i.partition(":")[2])
            _, token, at = sent[0]
            # The first claim has token 1. A slow store or a freeze may keep what was claimed in time for one lease.
            late_ms = (at + START_MS / 1000 - due / 1000) * 1000 + PREFETCH_MS
            limit_ms = UNCLAIMED_MS + (self.timings.batch_lease * 1000 if self.troubled else 500)
            if token == 1 and late_ms > limit_ms and job == "none":
                raise Broken(f"{i} is sent {late_ms:.0f} ms after it was claimable, although catchUp is none")


class HeldBack(Machines):
    """A node is there all the time; limits hold executions back for longer than a lease and 2 s. None is missed."""

    definitions: ClassVar[Mapping[str, Definition]] = {
        "own": _job("none", limits=Limits(per_second=0.05)),
        "queued": _job("none", queue="q"),
        "more": _job("none", queue="q"),
    }
    storm_seconds: ClassVar = 60.0

    def __init__(self, seed: int) -> None:
        super().__init__(seed, 0.0)

    def run(self) -> World:
        try:
            self._in(None, self.owe(self.dues))
            self.begin("n0")
            if self.world.random.random() < 0.5:
                self._in(None, self._sigterm())
            self.loop.run(self.storm_seconds, self._after, self._between)
            self._all_ends(self.dues, 400)
            self._after("")
        finally:
            for worker in self.workers.values():
                worker.dispatcher.run_queue.stop()
            self.loop.failure = None
            self.loop.close()
        return self.world

    def _after(self, node: str) -> None:
        self.rules.after(node)
        for i, final in self.world.store.history.items():
            if final.state is State.MISSED:
                raise Broken(f"{i} is missed, and nodes were there")
