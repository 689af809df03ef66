"""For `horae bench --case verify`: duration and peak memory of `horae verify` on a large history.

The documents are inserted directly, as successful runs leave them. The command runs in its own process.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import psutil
from bson.datetime_ms import DatetimeMS
from pymongo import MongoClient

from cluster.core.documents.job_json import read_job
from cluster.core.instants import format_instant
from cluster.core.job import changes
from cluster.core.job.changes import ChangeStamp
from cluster.store.history import DAY_MS
from cluster.store.jobs import new_document
from cluster.store.mongo.schema import INDEXES
from ops.bench.results import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo.database import Database

    from ops.bench.testbed import Testbed

CHUNK = 5000
SAMPLE_SECONDS = 0.02
"""Between two looks at the memory of the command."""


@dataclass(frozen=True, slots=True)
class Shape:
    """`jobs` jobs, each with `each` occurrences `interval` seconds apart, up to the last full hour."""

    jobs: int
    each: int
    interval: int

    @property
    def executions(self) -> int:
        """The number of all executions."""
        return self.jobs * self.each


DENSE = Shape(1000, 1000, 1)
SPARSE = Shape(100_000, 10, 60)


def fill(database: Database[dict[str, Any]], shape: Shape, now_ms: int) -> int:
    """Insert jobs and history, under the indexes of a cluster. Returns the first due time, in ms."""
    for name, indexes in INDEXES.items():
        if indexes:
            database[name].create_indexes(indexes)
    end = now_ms // 3_600_000 * 3_600_000
    began = end - shape.each * shape.interval * 1000
    jobs: list[dict[str, Any]] = []
    documents: list[dict[str, Any]] = []
    for number in range(shape.jobs):
        job = _job(f"verify-{number:06d}", shape, began, end)
        jobs.append(job)
        documents += _runs(job, range(began, end, shape.interval * 1000))
        if len(documents) >= CHUNK:
            database["jobs"].insert_many(jobs)
            database["history"].insert_many(documents, ordered=False)
            jobs, documents = [], []
    if jobs:
        database["jobs"].insert_many(jobs)
        database["history"].insert_many(documents, ordered=False)
    return began


def _job(name: str, shape: Shape, began: int, end: int) -> dict[str, Any]:
    schedule = "* * * * * *" if shape.interval == 1 else "0 * * * * *"
    body = {
        "schedule": schedule,
        "api": "https://example.com/x",
        "type": "ATLEAST_ONCE",
        "endAt": format_instant(end - 1),
    }
    job_to_define = read_job(body, {}).resolve(None)
    change = changes.define(None, name, job_to_define, ChangeStamp(began - 1, uuid.uuid4().hex, ""))
    if change is None:
        raise RuntimeError("a new job is always a change")
    job = new_document(change)
    del job["unsettled"]
    return job


def _runs(job: dict[str, Any], dues: range) -> Iterator[dict[str, Any]]:
    for due in dues:
        answer = {"n": 1, "sent_at": DatetimeMS(due + 40), "node": "host-4711-0badcafe", "token": 1, "ms": 3.2}
        yield {
            "_id": f"{job['_id']}:{due:013d}",
            "job_id": job["_id"],
            "due_at": DatetimeMS(due),
            "send_at": DatetimeMS(due),
            "schedule_version": job["schedule_version"],
            "state": "succeeded",
            "reason": None,
            "attempts": [{**answer, "status": 200, "excerpt": "ok"}],
            "drift_ms": 40,
            "ended_at": DatetimeMS(due + 50),
            "expire_at": DatetimeMS(due + 7 * DAY_MS),
            "trigger": False,
            "asked_at": None,
        }


@dataclass(frozen=True, slots=True)
class VerifyRun:
    """The report of the command, its duration (s), CPU time (s) and the most resident memory that was seen (MB)."""

    report: dict[str, Any]
    seconds: float
    cpu_seconds: float
    peak_mb: float


def run_verify(uri: str, name: str, since_ms: int) -> VerifyRun:
    """Run `horae verify` on all occurrences since then."""
    command = [sys.executable, "-m", "ops", "verify", "--since", format_instant(since_ms), "--json"]
    environment = {**os.environ, "MONGODB_URI": uri, "DB_NAME": name}
    peak = 0
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryFile() as out:
        began = time.perf_counter()
        with subprocess.Popen(command, env=environment, stdout=out) as child:
            process = psutil.Process(child.pid)
            while child.returncode is None:
                # `ru_maxrss` cannot tell: Linux keeps it when a process becomes another program, so it is at least the benchmark's.
                with suppress(psutil.NoSuchProcess):  # it has just ended
                    peak = max(peak, process.memory_info().rss)
                with suppress(subprocess.TimeoutExpired):
                    child.wait(SAMPLE_SECONDS)
        seconds = time.perf_counter() - began
        out.seek(0)
        report: dict[str, Any] = orjson.loads(out.read())
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return VerifyRun(report, seconds, cpu_seconds, peak / 2**20)


def rows(testbed: Testbed) -> list[Row]:
    """A million executions of 1,000 jobs, and a million of 100,000 jobs."""
    result_rows = []
    for shape in (DENSE, SPARSE):
        name = f"bench_{uuid.uuid4().hex[:12]}"
        with MongoClient[dict[str, Any]](testbed.uri) as client:
            since = fill(client[name], shape, int(time.time() * 1000))
            result = run_verify(testbed.uri, name, since)
            client.drop_database(name)
        executions, clean = result.report["executions"], "clean" if result.report["clean"] else "NOT clean"
        row = Row(
            f"verify {shape.executions:,} executions of {shape.jobs:,} jobs",
            rate=executions / result.seconds,
            executions=executions,
            missing=result.report["counts"]["missing"],
            node_mb=result.peak_mb,
            note=f"{result.seconds:.0f} s, of which {result.cpu_seconds:.0f} s CPU; {clean}",
        )
        result_rows.append(row)
    return result_rows
