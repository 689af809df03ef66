"""How long until deliveries are on time again: `make chaos RECOVERY=5`, each fault so many times, one after the other.

`FAULTS=` chooses some. Beside it stands what MongoDB itself needed: the longest time in which a client that does
nothing else, and has no part in Horae, got no write acknowledged by a majority (it gives one up after a second). The table is printed and saved.
"""

from __future__ import annotations

import json
import math
import os
import random
import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from pymongo.write_concern import WriteConcern

from tests.chaos.fault_run import CHOSEN, NODES, SAVED, SEED, judge, run_under_faults
from tests.chaos.observe import now_ms
from tests.support.cluster_progress import every_second
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.chaos.faults import Faults
    from tests.chaos.hand import Cluster

TIMES = int(os.environ.get("RECOVERY") or 0)
JOBS = 20
ON_TIME_MS = 1000
CALM_SECONDS = 8
"""So many seconds in a row without anything late, and the next fault may come."""


class Steady(random.Random):
    """Faults last as long each time: three quarters of the way to the longest, so that leases end and members elect
    another primary. Their victims are still chosen at random."""

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) * 0.75


class Client:
    """A write acknowledged by a majority every 50 ms, if that is possible, from a thread; when they were, in ms."""

    def __init__(self, uri: str) -> None:
        self._client: MongoClient[dict[str, Any]] = MongoClient(
            uri, retryWrites=False, serverSelectionTimeoutMS=500, timeoutMS=1000
        )
        self._ended = threading.Event()
        self.acknowledged: list[int] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        probe = self._client["probe"].get_collection("writes", write_concern=WriteConcern(w="majority", j=True))
        while not self._ended.wait(0.05):
            try:
                probe.update_one({"_id": 0}, {"$inc": {"n": 1}}, upsert=True)
            except PyMongoError:
                continue
            self.acknowledged.append(now_ms())

    def longest_gap(self, start: int, end: int) -> int:
        """The longest time without a write between two instants, ms."""
        return max((b - a for a, b in pairwise([start, *(t for t in self.acknowledged if start < t < end), end])))

    def end(self) -> None:
        self._ended.set()
        self._thread.join(30)
        self._client.close()


@dataclass
class Recovery:
    """One fault, as often as it was done. Durations in ms."""

    lasted: list[int] = field(default_factory=list)
    recovered: list[int] = field(default_factory=list)
    latest: list[int] = field(default_factory=list)
    database: list[int] = field(default_factory=list)


def lateness(cluster: Cluster, since: int, logged: int) -> dict[int, float]:
    """The longest lateness (ms) among the jobs due in each second that is over; infinite while one has not come."""
    first: dict[str, int] = {}
    for a in cluster.receiver.arrivals(logged):
        if a.answer == "200":
            first.setdefault(a.execution, a.at_ms)
    seconds = range(since, now_ms() - ON_TIME_MS, 1000)
    return {t: max(first.get(f"j{i}:{t}", math.inf) - t for i in range(JOBS)) for t in seconds}


def recover(cluster: Cluster, since: int, logged: int) -> dict[int, float]:
    """Wait until all has come, and has been on time for a while; the lateness of each second since."""

    def calm() -> dict[int, float] | None:
        time.sleep(1)  # the log is flushed within a second
        late = lateness(cluster, since, logged)
        last = list(late.values())[-CALM_SECONDS:]
        return late if len(last) == CALM_SECONDS and max(last) <= ON_TIME_MS and max(late.values()) < math.inf else None

    return wait_until(calm, 180, "deliveries on time")


def measured(faults: Faults, client: Client, kind: Callable[[], None], found: Recovery) -> None:
    """One fault, and how long its effect lasted."""
    logged = faults.cluster.receiver.logged()
    time.sleep(3)  # occurrences due just before the fault count too, and have to be in this part of the log
    injected = faults.done(kind)
    start, end = injected.start_ms, injected.end_ms
    late = recover(faults.cluster, start // 1000 * 1000 - 1000, logged)
    behind = [t for t, ms in late.items() if ms > ON_TIME_MS]
    found.lasted.append(end - start)
    found.recovered.append(max(max(behind) + 1000 - start, 0) if behind else 0)
    found.latest.append(int(max(late.values())))
    found.database.append(client.longest_gap(start, now_ms()))
    print(kind.__name__, found.lasted[-1], found.recovered[-1], found.latest[-1], found.database[-1], flush=True)


def table(found: dict[str, Recovery]) -> str:
    """Medians in seconds, for people."""
    lines = [
        "| fault | lasts (s) | on time again, from its start (s) | longest lateness (s) | MongoDB without a write (s) |"
    ]
    lines.append("|---|---|---|---|---|")
    for name, r in found.items():
        columns = (r.lasted, r.recovered, r.latest, r.database)
        lines.append(f"| `{name}` | " + " | ".join(f"{median(c) / 1000:.1f}" for c in columns) + " |")
    return "\n".join(lines)


@pytest.mark.chaos
@pytest.mark.timeout(7200)
def test_how_long_the_effect_of_each_fault_lasts(tmp_path: Path) -> None:
    """Each fault heals, and the whole run is judged like any other."""
    if not TIMES:
        pytest.skip("choose with RECOVERY=5")
    found: dict[str, Recovery] = {}
    SAVED.mkdir(exist_ok=True)

    def inject(faults: Faults, _: random.Random) -> None:
        client = Client(faults.cluster.mongo.uri)
        try:
            for kind in faults.kinds(CHOSEN):
                one = found.setdefault(kind.__name__, Recovery())
                for _time in range(TIMES):
                    measured(faults, client, kind, one)
                    (SAVED / f"recovery-{SEED}.json").write_text(
                        json.dumps({k: vars(r) for k, r in found.items()}, indent=1)
                    )
        finally:
            client.end()
            print(table(found))

    judge(run_under_faults(tmp_path, JOBS, NODES, SEED, inject, full=True, dice=Steady(SEED), jobs=every_second))
