"""Response times of `GET /jobs` with 100,000 jobs: each sort with each filter, page by page, over a socket.

The jobs are imported and settled as users' jobs are. Only their last results are written directly: no run has to be waited
for. (That every query goes by an index is for `tests/api/test_job_indexes.py` to show.)
"""

from __future__ import annotations

import random
import time
from contextlib import closing
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import click
import orjson
from bson.datetime_ms import DatetimeMS
from pymongo import UpdateMany, UpdateOne

from cluster.core.instants import format_instant
from ops.bench.results import Row
from ops.bench.testbed import running_cluster, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo.database import Database

    from ops.bench.testbed import Testbed

SORTS = ("-createdAt", "createdAt", "name", "-name", "lastRunAt", "-lastRunAt", "nextRunAt", "-nextRunAt")
KINDS = ("invoices", "reports", "sync", "cleanup", "backup", "mail", "prices", "stock")
DAY_MS = 86_400_000
PAGES = 3
"""So many pages of each walk are read: the first, and those behind its cursors."""
LIMITS_MS = (20, 60)
"""The median and the p99 that each filter must keep with each sort."""


def filters(now_ms: int) -> dict[str, str]:
    """Queries by what they are: none, broad and narrow ones of each filter, and some together."""
    return {
        "no filter": "",
        "state=paused": "state=paused",
        "a tag of 1 % of the jobs": "tag=team-17",
        "a tag of half the jobs": "tag=eu",
        "two tags": "tag=eu&tag=team-18",
        "any of two tags": "anyTag=team-17&anyTag=us",
        "a host of 1 %": "host=h7.example.com",
        "a host of half": "host=api.example.com",
        "a schedule of 1 of 1,000": f"schedule={quote('7 3 2 * * *')}",
        "failing=true (1 %)": "failing=true",
        "failing=false": "failing=false",
        "nextRunBefore, in an hour": f"nextRunBefore={quote(format_instant(now_ms + 3_600_000))}",
        "nextRunBefore, in a day": f"nextRunBefore={quote(format_instant(now_ms + DAY_MS))}",
        "q, a word of every job": "q=nightly",
        "q, a word of one in eight": "q=invo",
        "q, two words": "q=nightly+shop-4711",
        "q, tag, host and failing": "q=nightly&tag=eu&host=api.example.com&failing=true",
        "q and tag and state": "q=sync&tag=us&state=active,paused",
    }


def jobs(count: int) -> Iterator[dict[str, Any]]:
    """Jobs on 1,000 schedules, for 51 hosts. Tags, host and state say nothing about each other or the name."""
    luck = random.Random(7)  # noqa: S311 - which job has which tag, guards nothing
    for n in range(count):
        host = luck.choice(["api", f"h{luck.randrange(50)}"])
        schedule = f"{n % 1000 % 60} {n % 1000 // 60} {'2' if n % 5 else '*'} * * *"
        yield {
            "jobId": f"shop-{n}",
            "name": f"Nightly {KINDS[n % 8]} {n * 7919 % count}",
            "description": f"Copies the {KINDS[n * 3 % 8]} of shop {n}",
            "tags": [f"team-{n % 100}", luck.choice(["eu", "us"])],
            "schedule": schedule,
            "api": f"https://{host}.example.com/hooks/{n}",
            "state": "active" if luck.random() < 0.9 else "paused",
        }


def add_results(database: Database[dict[str, Any]], count: int, now_ms: int) -> None:
    """The last results of nine of ten jobs; one in a hundred is failing."""
    writes: list[UpdateOne | UpdateMany] = []
    for n in range(count):
        if n % 10:
            at = DatetimeMS(now_ms - n * 7919 % DAY_MS)
            fields: dict[str, Any] = {"last_run_at": at, "last_state": "succeeded"}
            if n % 100 == 1:
                fields |= {"last_state": "dead", "failing": True}
            writes.append(UpdateOne({"_id": f"shop-{n}"}, {"$set": fields}))
        if len(writes) == 5000:
            database["jobs"].bulk_write(writes, ordered=False)
            writes = []
    if writes:
        database["jobs"].bulk_write(writes, ordered=False)


def rows(testbed: Testbed, count: int, walks: int = 6) -> list[Row]:
    """One row a filter: the response times of its worst sort."""
    with running_cluster(testbed, nodes=1, HORAE_REQUESTS_PER_SECOND="100000") as cluster:
        cluster.load(jobs(count))
        wait_for(cluster.settled, 300, "the jobs were not settled")
        now_ms = int(time.time() * 1000)
        add_results(cluster.db, count, now_ms)
        wanted = filters(now_ms)
        with closing(_connect(cluster.api.url)) as connection:
            measured = {name: _worst(connection, query, walks) for name, query in wanted.items()}
    found = []
    for name, (sort, took) in measured.items():
        p50, p95, p99 = (took[min(len(took) - 1, int(len(took) * q))] for q in (0.5, 0.95, 0.99))
        kept = p50 < LIMITS_MS[0] and p99 < LIMITS_MS[1]
        note = f"response times of its worst sort, {sort}" + ("" if kept else "; SLOWER THAN IT MUST BE")
        found.append(Row(name, executions=len(took), p50=p50, p95=p95, p99=p99, longest=took[-1], note=note))
    return found


def _connect(base_url: str) -> HTTPConnection:
    parts = urlsplit(base_url)
    return HTTPConnection(parts.hostname or "", parts.port, timeout=30)


def _worst(connection: HTTPConnection, query: str, walks: int) -> tuple[str, list[float]]:
    """The sort with the greatest p99, and all its times (ms) in order."""
    by_sort = {}
    for sort in SORTS:
        took: list[float] = []
        for _ in range(walks):
            took += [ms for ms, _ in _walk(connection, f"sort={sort}&{query}")]
        by_sort[sort] = sorted(took)
    return max(by_sort.items(), key=lambda item: item[1][int(len(item[1]) * 0.99)])


def _walk(connection: HTTPConnection, query: str) -> Iterator[tuple[float, int]]:
    """Time (ms) and number of jobs of the first pages."""
    cursor = ""
    for _ in range(PAGES):
        target = f"/jobs?limit=50&{query}{cursor}"
        started = time.perf_counter()
        connection.request("GET", target)
        response = connection.getresponse()
        content = response.read()
        took = (time.perf_counter() - started) * 1000
        page = orjson.loads(content)
        if response.status != 200:
            raise click.ClickException(f"{target}: {response.status} {page}")
        yield took, len(page["items"])
        if page["nextCursor"] is None:
            return
        cursor = f"&cursor={quote(page['nextCursor'])}"
