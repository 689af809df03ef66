"""Response times of reads with 100,000 jobs and 1,000,000 executions, over a socket, one request at a time.

The documents are inserted directly, in the form that the use cases write. The reads use the REST API.
"""

from __future__ import annotations

import random
import time
from dataclasses import replace
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson
from bson.datetime_ms import DatetimeMS

from cluster.core.documents.job_json import read_job
from cluster.core.instants import format_instant
from cluster.core.job import changes
from cluster.core.job.changes import ChangeStamp
from cluster.store.history import DAY_MS
from cluster.store.jobs import new_document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pymongo.database import Database

JOBS = 100_000
CHUNK = 2000
RETENTION_MS = 7 * DAY_MS
STATES = ("failed", "dead", "cancelled", "skipped")
UNHAPPY_EVERY = 100


def fill(database: Database[dict[str, Any]], *, jobs: int = JOBS, executions: int = 1_000_000) -> None:
    """Insert jobs and executions of the last day."""
    now_ms = int(time.time() * 1000)
    fill_jobs(database, jobs, now_ms)
    fill_history(database, jobs, executions, now_ms)


def rows(base_url: str, *, jobs: int = JOBS, requests: int = 400) -> list[dict[str, Any]]:
    """One row per kind of read: `read`, `requests`, `p50Ms`, `p95Ms`, `p99Ms`, `longestMs`."""
    now_ms = int(time.time() * 1000)
    luck = random.Random(7)  # noqa: S311 - which job is read, guards nothing

    def some() -> str:
        return f"bench-{luck.randrange(jobs):06d}"

    since = format_instant(now_ms - 3_600_000)
    reads: dict[str, Callable[[], str]] = {
        "GET /jobs/{id}": lambda: f"/jobs/{some()}",
        "GET /jobs, a page of 50": lambda: "/jobs?limit=50",
        "GET /jobs?tag=, a page of 50": lambda: f"/jobs?limit=50&tag=t{luck.randrange(100)}",
        "GET /jobs/{id}/executions, the last 5": lambda: f"/jobs/{some()}/executions",
        "GET /executions?state=failed, a page of 50": lambda: "/executions?state=failed&limit=50",
        "GET /executions?state=failed&since=, a page of 50": lambda: f"/executions?state=failed&since={since}",
        "GET /executions, a page of 50": lambda: "/executions?limit=50",
    }
    parts = urlsplit(base_url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    found = [{"read": name, **_timed(connection, path, requests)} for name, path in reads.items()]
    connection.close()
    return found


def _timed(connection: HTTPConnection, path: Callable[[], str], requests: int) -> dict[str, Any]:
    took = []
    for number in range(requests + 5):
        target = path()
        started = time.perf_counter()
        connection.request("GET", target)
        response = connection.getresponse()
        content = response.read()
        if number >= 5:  # the first ones warm up
            took.append((time.perf_counter() - started) * 1000)
        if response.status != 200:
            raise RuntimeError(f"{target}: {response.status} {orjson.loads(content)}")
    took.sort()
    return {
        "requests": requests,
        "p50Ms": round(took[len(took) // 2], 2),
        "p95Ms": round(took[min(len(took) - 1, int(len(took) * 0.95))], 2),
        "p99Ms": round(took[min(len(took) - 1, int(len(took) * 0.99))], 2),
        "longestMs": round(took[-1], 2),
    }


def fill_jobs(database: Database[dict[str, Any]], count: int, now_ms: int) -> None:
    """Insert active, settled jobs that are due once a year."""
    wanted = read_job(
        {
            "schedule": "0 0 3 1 1 *",
            "api": "https://api.example.com/webhook",
            "name": "a job of the bench",
            "body": {"order": 4711, "lines": [{"sku": "A-1", "count": 2}] * 5},
            "headers": {"X-Tenant": "shop-01"},
        },
        {},
    )
    change = changes.define(None, "x", wanted.resolve(None), ChangeStamp(now_ms, "v", "m"))
    if change is None:
        raise RuntimeError("a new job is a change")
    template = new_document(replace(change, change_id=None))

    def documents() -> Iterator[dict[str, Any]]:
        for i in range(count):
            at = DatetimeMS(now_ms - (count - i) * 10)
            yield template | {"_id": f"bench-{i:06d}", "tags": [f"t{i % 100}"], "created_at": at, "updated_at": at}

    _write(database, "jobs", documents())


def fill_history(database: Database[dict[str, Any]], jobs: int, count: int, now_ms: int) -> None:
    """Insert executions of the last day, evenly over the jobs; one in a hundred was not successful."""

    def documents() -> Iterator[dict[str, Any]]:
        for i in range(count):
            due = now_ms - int((count - i) / count * DAY_MS)
            bad = i % UNHAPPY_EVERY == 0
            attempt = {"n": 1, "sent_at": DatetimeMS(due), "node": "bench", "token": 1, "ms": 12.5, "status": 200}
            yield {
                "_id": f"bench-{i * 7919 % jobs:06d}:{due:013d}",
                "job_id": f"bench-{i * 7919 % jobs:06d}",
                "due_at": DatetimeMS(due),
                "send_at": DatetimeMS(due),
                "schedule_version": "v",
                "state": STATES[i // UNHAPPY_EVERY % 4] if bad else "succeeded",
                "reason": "the target answered 400" if bad else None,
                "attempts": [attempt | ({"status": 400, "excerpt": "no"} if bad else {"excerpt": "ok"})],
                "drift_ms": 3,
                "ended_at": DatetimeMS(due + 13),
                "expire_at": DatetimeMS(due + 13 + RETENTION_MS),
                "trigger": False,
            }

    _write(database, "history", documents())


def _write(database: Database[dict[str, Any]], collection: str, documents: Iterator[dict[str, Any]]) -> None:
    chunk: list[dict[str, Any]] = []
    for document in documents:
        chunk.append(document)
        if len(chunk) == CHUNK:
            database[collection].insert_many(chunk, ordered=False)
            chunk = []
    if chunk:
        database[collection].insert_many(chunk, ordered=False)
