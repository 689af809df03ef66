"""For `horae bench --case verify`: duration and peak memory of `horae verify` on a large history.

The documents are inserted directly, as successful runs leave them. The command runs in its own process.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from bson.datetime_ms import DatetimeMS
from pymongo import MongoClient

from cluster.core.documents.job_json import read_job
from cluster.core.instants import format_instant
from cluster.core.job import changes
from cluster.core.job.changes import ChangeStamp
from cluster.store.history import DAY_MS
from cluster.store.jobs import new_document
from ops.bench.results import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo.database import Database

    from ops.bench.testbed import Testbed

CHUNK = 5000


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
    """Insert jobs and history. Returns the first due time, in ms."""
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
    wanted = read_job(body, {}).resolve(None)
    change = changes.define(None, name, wanted, ChangeStamp(began - 1, uuid.uuid4().hex, ""))
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
    """The report of the command, its duration (s), CPU time (s) and peak memory (MB)."""

    report: dict[str, Any]
    seconds: float
    cpu_seconds: float
    peak_mb: float


def run_verify(uri: str, name: str, since_ms: int) -> VerifyRun:
    """Run `horae verify` on all occurrences since then."""
    with tempfile.TemporaryFile() as out:
        began = time.perf_counter()
        command = [sys.executable, "-m", "ops", "verify", "--since", format_instant(since_ms), "--json"]
        child = os.posix_spawn(
            sys.executable,
            command,
            {**os.environ, "MONGODB_URI": uri, "DB_NAME": name},
            file_actions=[(os.POSIX_SPAWN_DUP2, out.fileno(), 1)],
        )
        _, _, used = os.wait4(child, 0)
        seconds = time.perf_counter() - began
        out.seek(0)
        report: dict[str, Any] = orjson.loads(out.read())
    return VerifyRun(report, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def rows(testbed: Testbed) -> list[Row]:
    """A million executions of 1,000 jobs, and a million of 100,000 jobs."""
    result_rows = []
    for shape in (DENSE, SPARSE):
        name = f"bench_{uuid.uuid4().hex[:12]}"
        with MongoClient[dict[str, Any]](testbed.uri) as client:
            since = fill(client[name], shape, int(time.time() * 1000))
            done = run_verify(testbed.uri, name, since)
            client.drop_database(name)
        executions, clean = done.report["executions"], "clean" if done.report["clean"] else "NOT clean"
        row = Row(
            f"verify {shape.executions:,} executions of {shape.jobs:,} jobs",
            rate=executions / done.seconds,
            executions=executions,
            missing=done.report["counts"]["missing"],
            node_mb=done.peak_mb,
            note=f"{done.seconds:.0f} s, of which {done.cpu_seconds:.0f} s CPU; {clean}",
        )
        result_rows.append(row)
    return result_rows
