"""Cases about many jobs: with distinct schedules, once each, and stored without being due.

Each ends by itself. What is not done within its bound is left out of the figures, and the row says so.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ops.bench.results import Row, cpu_per_execution
from ops.bench.testbed import database_now, lateness, running_cluster, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ops.bench.testbed import Cluster, Testbed

SETTLE_SECONDS = 90
SETTLED_PER_SECOND = 2000
"""At least; as many jobs as were asked for have the time that this takes, or `SETTLE_SECONDS`."""
SAMPLE = 20
"""The first is due when all are settled. How long that takes, a part of them tells, one in so many, that is imported before."""
LEAD, LEAST_LEAD = 1.3, 10
"""So many times as long as the sample says, and so many seconds at least."""
SPREAD_MS = 59_000
"""Schedules count whole seconds: what is anchored in the last one of the minute would be due when it is over."""
LATE_SECONDS = 20
"""So long after the last one is due the case waits for what is late."""
IMPORT_SECONDS = 75
"""Of the case `stored`: no further portion is imported after so long, unless a number was asked for."""
PORTION = 50_000
START_SECONDS = 60


def every_minute(testbed: Testbed, size: int) -> list[Row]:
    """`@every 60s` from as many anchors as jobs, spread over a minute: each runs once."""
    name = f"{size:,} jobs `@every 60s` from as many anchors, their first minute"
    with running_cluster(testbed) as cluster:

        def job(n: int, at: str) -> dict[str, Any]:
            return {**cluster.job(n, "@every 60s"), "startAt": at}

        return [_one_minute(cluster, name, size, job)]


def once(testbed: Testbed, size: int) -> list[Row]:
    """One-off jobs, spread over a minute."""
    with running_cluster(testbed) as cluster:
        name = f"{size:,} one-off jobs within one minute"
        return [_one_minute(cluster, name, size, lambda n, at: cluster.job(n, f"@at {at}"))]


def _one_minute(cluster: Cluster, name: str, size: int, job: Callable[[int, str], dict[str, Any]]) -> Row:
    lead = timedelta(seconds=_lead(cluster, size, job))
    first = (database_now(cluster) + lead).replace(microsecond=0)
    last = first + timedelta(seconds=60)

    def at(n: int) -> str:
        return (first + timedelta(milliseconds=SPREAD_MS * n // size)).isoformat(timespec="milliseconds")

    began = time.monotonic()
    took = cluster.load(job(n, at(n).replace("+00:00", "Z")) for n in range(size))
    wait_for(cluster.settled, SETTLE_SECONDS, f"the jobs were not settled within {SETTLE_SECONDS} s")
    settled = time.monotonic() - began
    in_time = database_now(cluster) < first
    wait_for(lambda: database_now(cluster) >= first, 300, "the clock of the database does not advance")
    cpu, memory = cluster.cpu(), 0.0
    history = cluster.db["history"]
    while database_now(cluster) < last or (
        history.count_documents({"due_at": {"$lt": last}}) < size
        and database_now(cluster) < last + timedelta(seconds=LATE_SECONDS)
    ):
        memory = max(memory, cluster.memory())
        time.sleep(1)
    window = {"due_at": {"$gte": first, "$lt": last}}
    spent = [b - a for a, b in zip(cpu, cluster.cpu(), strict=True)]
    fields = lateness(cluster, window)
    done = max(1, fields["executions"])
    note = f"imported at {size / took:,.0f}/s, settled {settled:.0f} s after the import began"
    if not in_time:
        note += ": later than the first were due"
    return Row(
        name,
        rate=done / 60,
        missing=size - fields["executions"],
        node_mb=memory,
        note=note,
        extra={"import_per_second": round(size / took), "settled_seconds": round(settled, 1)},
        **cpu_per_execution(spent, done),
        **fields,
    )


def _lead(cluster: Cluster, size: int, job: Callable[[int, str], dict[str, Any]]) -> float:
    """Seconds within which so many of these jobs are imported and settled."""
    later = (database_now(cluster) + timedelta(hours=2)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    began = time.monotonic()
    cluster.load(job(size + n, later) for n in range(max(1, size // SAMPLE)))
    wait_for(cluster.settled, SETTLE_SECONDS, "the sample was not settled")
    return LEAST_LEAD + LEAD * SAMPLE * (time.monotonic() - began)


def definitions(testbed: Testbed, size: int, distinct: int) -> Row:
    """`size` jobs on `distinct` schedules, none due: the cost of idle jobs."""
    with running_cluster(testbed) as cluster:
        took = cluster.load(_not_due(cluster, range(size), distinct))
        started = time.monotonic()
        wait_for(cluster.settled, 300, "the jobs were not settled")
        settling = time.monotonic() - started
        time.sleep(3)
        cpu, began = cluster.cpu(), time.monotonic()
        time.sleep(15)
        per_node = (cluster.cpu()[0] - cpu[0]) / (time.monotonic() - began) / len(cluster.nodes()) * 100
        return Row(
            f"{size:,} jobs on {distinct:,} schedules, none due",
            node_mb=cluster.memory(),
            note=f"imported in {took:.1f} s; an idle node uses {per_node:.1f} % of a core",
            extra={
                "import_seconds": round(took, 1),
                "settle_seconds": round(settling, 1),
                "node_cpu_percent": round(per_node, 2),
            },
        )


def stored(testbed: Testbed, size: int, *, all_of_them: bool = False) -> list[Row]:
    """`size` jobs, none of them due, and one that is due every second: how fast they are stored, what they cost, and how
    soon after a cold start the one runs. `all_of_them`: however long that takes.
    """
    seconds = math.inf if all_of_them else IMPORT_SECONDS
    patience = max(SETTLE_SECONDS, size / SETTLED_PER_SECOND) if all_of_them else SETTLE_SECONDS
    with running_cluster(testbed, nodes=1) as cluster:
        done, began = 0, time.monotonic()
        while done < size and time.monotonic() - began < seconds:
            portion = range(done, min(size, done + PORTION))
            cluster.load(_not_due(cluster, portion, 1000))
            done += len(portion)
        took = time.monotonic() - began
        cluster.load([{**cluster.job(0, "* * * * * *"), "jobId": "due"}])
        wait_for(cluster.settled, patience, f"the jobs were not settled within {patience:.0f} s")
        settled = time.monotonic() - began
        time.sleep(3)
        cpu, began = cluster.cpu(), time.monotonic()
        time.sleep(10)
        leader, mongod, _ = (
            (b - a) / (time.monotonic() - began) * 100 for a, b in zip(cpu, cluster.cpu(), strict=True)
        )
        memory = cluster.memory()
        with _cold_start(testbed, cluster) as first_run:
            pass
        less = f" of {size:,}: after {IMPORT_SECONDS} s no more were imported" if done < size else ""
        return [
            Row(
                f"{done:,} jobs stored, one due every second",
                node_mb=memory,
                note=f"imported at {done / took:,.0f}/s, settled after {settled:.0f} s{less}; leader {leader:.1f} % of a core, "
                f"mongod {mongod:.1f} %; the first run {first_run:.1f} s after a cold start",
                extra={
                    "import_per_second": round(done / took),
                    "leader_percent": round(leader, 2),
                    "mongod_percent": round(mongod, 2),
                    "first_run_seconds": round(first_run, 2),
                },
            )
        ]


@contextmanager
def _cold_start(testbed: Testbed, before: Cluster) -> Iterator[float]:
    """Stop the node and start another one: seconds until its first request is recorded."""
    before.stop_nodes()
    history = before.db["history"]
    known = history.estimated_document_count()
    began = time.monotonic()
    with running_cluster(testbed, nodes=1, DB_NAME=before.db_name):
        wait_for(lambda: history.estimated_document_count() > known, START_SECONDS, "nothing ran after the start")
        yield time.monotonic() - began


def _not_due(cluster: Cluster, numbers: range, distinct: int) -> Iterator[dict[str, Any]]:
    """Jobs on that many schedules, none of them due within months."""
    month = (database_now(cluster).month + 5) % 12 + 1
    for n in numbers:
        yield cluster.job(n, f"{n % distinct % 60} {n % distinct // 60} 3 1 {month} *")
