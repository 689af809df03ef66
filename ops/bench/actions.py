"""Many jobs are paused and resumed by a filter while others are sent: nothing of a job leaves after it was said to be paused.

A job was said to be paused when its page of the action was noted as done: `GET /jobs/actions/{actionId}` counts it from then
on. The promise is that nothing of it leaves later than a second after that.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import replace
from datetime import timedelta
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Self

import click
import psutil

from ops.bench.testbed import caught_up, cpu_of, database_now, measure, running_cluster, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ops.bench.results import Row
    from ops.bench.testbed import Cluster, Testbed

STEADY = {"job_id": {"$regex": "^j"}}
EVERY_S = 1000
"""Each of the many jobs is due once in so many seconds."""
PROMISE_MS = 1000
PER_SECOND = 2000.0
"""What is asked for: more than a busy machine may reach. The row has what was reached."""
SLOWEST = 200.0
"""Jobs a second with which an action must end at least."""
POLL_S = 0.02


def pause_and_resume(testbed: Testbed, many: int, rate: int) -> list[Row]:
    """`many` jobs with a tag are paused and resumed, while `rate` others are due each second."""
    with running_cluster(testbed) as cluster:
        cluster.load(_many(cluster, many))
        cluster.load(cluster.job(n, "* * * * * *") for n in range(rate))
        wait_for(cluster.settled, 120, "the jobs were not settled")
        wait_for(lambda: caught_up(cluster), 60, "the nodes did not reach the rate")
        before = _share_of_leader(cluster, 10)
        found = []
        for kind in ("pause", "resume"):
            seconds = int(many / PER_SECOND) + 8
            with _Acting(cluster, kind, many / SLOWEST) as acting:
                row = measure(cluster, f"{rate}/s while {many:,} jobs are {kind}d by a filter", rate, seconds, STEADY)
            used = acting.leader_cpu / acting.seconds * 100
            note = f"{acting.done / acting.seconds:,.0f} jobs/s; the leader's node used {used:.0f} % of a core (before: {before:.0f} %)"
            row = replace(row, rate=row.executions / seconds, missing=row.missing + many - acting.done, note=note)
            if kind == "pause":
                late, last_ms = _sent_after(cluster, acting.noted_at())
                after = f"; the last request of a job left {last_ms:,.0f} ms after it was said to be paused"
                row = replace(
                    row, missing=row.missing + late, note=note + after + (f"; {late} BROKE THE PROMISE" if late else "")
                )
            found.append(row)
        return found


def _many(cluster: Cluster, count: int) -> Iterator[dict[str, Any]]:
    start = database_now(cluster).replace(microsecond=0) - timedelta(seconds=2 * EVERY_S)
    for n in range(count):
        at = (start + timedelta(seconds=n % EVERY_S)).isoformat().replace("+00:00", "Z")
        yield cluster.job(n, f"@every {EVERY_S}s") | {"jobId": f"m{n}", "tags": ["many"], "startAt": at}


class _Acting:
    """An action that is begun, and followed in a thread until it has ended."""

    def __init__(self, cluster: Cluster, kind: str, seconds: float) -> None:
        self._cluster = cluster
        self._most_seconds = seconds
        asked = {"action": kind, "filter": {"tag": "many"}, "maxPerSecond": PER_SECOND}
        self._id = cluster.api.call("POST", "/jobs/actions", asked)["actionId"]
        self._pages: list[list[str]] = []
        self._seen: list[tuple[int, float]] = []
        self.seconds = self.leader_cpu = 0.0
        self.done = 0
        self._given_up = False
        self._ended = Event()
        self._thread = Thread(target=self._follow)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        ended = self._ended.wait(self._most_seconds)
        self._given_up = True
        self._thread.join()
        if not ended:
            raise click.ClickException(
                f"the action did not end within {self._most_seconds:.0f} s: {self.done:,} jobs were done"
            )

    def _follow(self) -> None:
        db = self._cluster.db
        action = db["actions"].find_one({"_id": self._id}) or {}
        pages = db["action_jobs"].find({"_id": {"$gt": f"{action['pages']}:", "$lt": f"{action['pages']};"}})
        self._pages = [d["jobs"] for d in pages.sort("_id", 1)]
        leader = _leader(self._cluster)
        began, cpu = time.monotonic(), cpu_of(leader)
        while action["state"] == "running" and not self._given_up:
            action = db["actions"].find_one({"_id": self._id}, {"state": 1, "page": 1, "done": 1}) or action
            if not self._seen or self._seen[-1][0] != action["page"]:
                self._seen.append((action["page"], database_now(self._cluster).timestamp() * 1000))
            time.sleep(POLL_S)
        self.seconds, self.leader_cpu, self.done = time.monotonic() - began, cpu_of(leader) - cpu, action["done"]
        self._ended.set()

    def noted_at(self) -> dict[str, float]:
        """When each job was said to be changed (ms): the page that it is of was counted as done."""
        done = [pages for pages, _ in self._seen]
        return {
            job: self._seen[place][1]
            for number, page in enumerate(self._pages)
            if (place := bisect_left(done, number + 1)) < len(done)
            for job in page
        }


def _leader(cluster: Cluster) -> psutil.Process:
    nodes = cluster.api.call("GET", "/cluster")["nodes"]
    return psutil.Process(next(n["pid"] for n in nodes if n["leading"]))


def _share_of_leader(cluster: Cluster, seconds: float) -> float:
    """How much of a core (%) the leader's node uses."""
    leader = _leader(cluster)
    began, cpu = time.monotonic(), cpu_of(leader)
    time.sleep(seconds)
    return (cpu_of(leader) - cpu) / (time.monotonic() - began) * 100


def _sent_after(cluster: Cluster, paused_at: dict[str, float]) -> tuple[int, float]:
    """How many requests left more than a second after their job was said to be paused, and how long after that the last
    request of any job left (ms).
    """
    since = cluster.db["history"].find({"job_id": {"$regex": "^m"}}, {"job_id": 1, "attempts.sent_at": 1})
    after = [
        attempt["sent_at"].timestamp() * 1000 - paused_at[h["job_id"]]
        for h in since
        for attempt in h["attempts"]
        if h["job_id"] in paused_at
    ]
    return sum(ms > PROMISE_MS for ms in after), max([0.0, *after])
