"""Where a deliberately broken build is hurt at the one point that its missing protection guards."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

from tests.chaos.evidence import Fault, Run
from tests.chaos.hooks import FAKETIME, at_point, cut_off, hooked
from tests.chaos.observe import collect, now_ms
from tests.support.cluster_progress import every_second, next_second, recorded_until, settle, wait_past
from tests.support.processes import Nodes, Receiver, end
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.mongo import ReplicaSet


CHOSEN = frozenset((os.environ.get("BROKEN") or "").replace(",", " ").split())
JOBS = 20
TIMINGS = {
    "HORAE_LEADER_LEASE_SECONDS": "3",
    "HORAE_LOOKAHEAD_SECONDS": "8",
    "HORAE_BATCH_LEASE_SECONDS": "5",
}


class Ground:
    """Where one run takes place: a receiver, nodes of one build, and the points at which they can be stopped."""

    def __init__(self, directory: Path, uri: str, db_name: str, build: str) -> None:
        self._directory, self._uri, self._db_name = directory, uri, db_name
        self.points = directory / "points"
        self.points.mkdir()
        self._environment = {**TIMINGS, **hooked(self.points, build)}
        self.receiver = Receiver(directory)
        self.serves: list[Nodes] = []

    def start(self, nodes: int, **environment: str) -> Nodes:
        """One more `horae serve` of this build."""
        directory = self._directory / f"serve{len(self.serves)}"
        directory.mkdir()
        serve = Nodes(directory, self._uri, self._db_name, nodes, **{**self._environment, **environment})
        self.serves.append(serve)
        return serve

    def at(self, point: str, what: str, seconds: float = 0) -> Fault:
        """Do something to the next process that comes to a function; returns when it has."""
        start = now_ms()
        at_point(self.points, point, what, seconds)
        return Fault(f"{what} at {point}", start, now_ms())

    def judge(self, jobs: list[dict[str, Any]], hurt: Callable[[], list[Fault]]) -> Run:
        """Run these jobs for a while, hurt the cluster meanwhile, and see how it ends."""
        first = self.serves[0]
        first.load(jobs)
        settle(first)
        start = next_second(first) + 2000
        wait_past(first, start + 2000)
        done = hurt()
        finish = wait_until(lambda: next_second(first), 60, "time") + 12_000
        wait_past(first, finish)
        with contextlib.suppress(
            AssertionError
        ):  # a broken build may never record everything: an execution may be an orphan
            wait_until(lambda: recorded_until(first, finish) or None, 60, "everything due is recorded")
        time.sleep(1)  # the receiver flushes its log five times a second
        return collect(first, self.receiver, None, JOBS, (start, finish), done)

    def close(self) -> None:
        for serve in reversed(self.serves):
            serve.close()
        end(self.receiver.process)


def blocked_leader(ground: Ground, _: ReplicaSet | None) -> Run:
    """The leader is blocked after it has inserted executions, before its row moves; a successor repeats it."""
    ground.start(2)
    return ground.judge(
        every_second(ground.receiver, JOBS), lambda: [ground.at("cluster.store.schedules.advance", "block", 12)]
    )


def blocked_owner(ground: Ground, _: ReplicaSet | None) -> Run:
    """A node is blocked for longer than its lease when it is about to move executions whose attempts failed."""
    ground.start(2)
    retry = {"maxAttempts": 8, "initialDelaySeconds": 12, "multiplier": 1, "jitter": 0}
    jobs = [
        {**job, "api": f"{ground.receiver.url}/fail/1/{i}", "retry": retry} if i < 2 else job
        for i, job in enumerate(every_second(ground.receiver, JOBS))
    ]  # few fail, or the breaker opens
    return ground.judge(jobs, lambda: [ground.at("cluster.store.executions.move", "block", 9)])


def wrong_clocks(ground: Ground, _: ReplicaSet | None) -> Run:
    """A node that is 60 s ahead joins one whose requests take longer than a lease. No fault is reported: nothing
    excuses. (Had both begun together, the one ahead would have taken every batch long before the other.)"""
    ground.start(1)
    jobs = [
        {**job, "api": f"{ground.receiver.url}/slow/6000/{i}"} if i < 3 else job
        for i, job in enumerate(every_second(ground.receiver, JOBS))
    ]  # few are slow, or their host gets too few slots

    def hurt() -> list[Fault]:
        ground.start(1, LD_PRELOAD=str(FAKETIME), FAKETIME="+60s", FAKETIME_DONT_FAKE_MONOTONIC="1")
        return []

    return ground.judge(jobs, hurt)


def killed_leader(ground: Ground, _: ReplicaSet | None) -> Run:
    """The leader dies when it is about to write executions down."""
    ground.start(2)
    return ground.judge(
        every_second(ground.receiver, JOBS), lambda: [ground.at("cluster.store.executions.insert", "kill")]
    )


def lonely_primary(ground: Ground, mongo: ReplicaSet | None) -> Run:
    """The primary loses both secondaries, takes writes for 5 s that no other member sees, and dies; the others go on."""
    assert mongo is not None
    ground.start(2)

    def hurt() -> list[Fault]:
        start = now_ms()
        port = wait_until(mongo.primary, 60, "a primary")
        cut_off(mongo, port, 5)
        return [Fault("lonely primary", start, now_ms())]

    return ground.judge(every_second(ground.receiver, JOBS), hurt)


BUILDS: dict[str, tuple[Callable[[Ground, ReplicaSet | None], Run], str]] = {
    "no-unique-id": (blocked_leader, "one token"),
    "no-token": (blocked_owner, "order"),
    "lease-by-clocks": (wrong_clocks, "duplicate"),
    "cursor-first": (killed_leader, "miss"),
    "no-majority": (lonely_primary, "one token"),
}
