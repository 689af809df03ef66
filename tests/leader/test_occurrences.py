"""Which instants a job owes at the edges of its time, and when a spread job is sent."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from tests.support.engine import Crank, job_document, put_jobs, rows

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


async def test_an_occurrence_on_the_very_ms_of_start_or_end_is_owed(database: Database) -> None:
    """An occurrence on the very ms of startAt or endAt is owed; a ms outside it is not. What has been settled agrees
    with what the main pass wrote."""
    from tests.support.engine import T0, lead, settle_all

    start, end = T0 + 5000, T0 + 8000
    edges = {
        "on": (start, end),
        "inside": (start + 1, end - 1),
        "outside": (start - 1, end + 1),
    }
    for name, (first, last) in edges.items():
        await put_jobs(
            database,
            job_document(name, start_at=DatetimeMS(first), end_at=DatetimeMS(last), ends_at=DatetimeMS(last)),
        )
    clock = Crank()
    await settle_all(await lead(database, clock), clock)
    found: dict[str, list[int]] = {name: [] for name in edges}
    for e in await rows(database, "executions"):
        found[e["job_id"]].append((int(e["due_at"]) - T0) // 1000)
    assert found == {"on": [5, 6, 7, 8], "inside": [6, 7], "outside": [5, 6, 7, 8]}


async def test_spread_seconds_spread_jobs_by_a_stable_hash(database: Database) -> None:
    """1,000 jobs of one second with `spreadSeconds` 10: each second of ten gets about its share, a job always the same
    one, and the due time in the id stays what it is."""
    from tests.support.engine import T0, lead, settle_all

    due = T0 + 10_000
    jobs = [job_document(f"j{i}", "@at " + _at(due), spread_seconds=10, ends_at=DatetimeMS(due)) for i in range(1000)]
    await put_jobs(database, *jobs)
    clock = Crank()
    await settle_all(await lead(database, clock), clock)
    found = await rows(database, "executions")
    late = Counter((int(e["send_at"]) - int(e["due_at"])) // 1000 for e in found)
    assert sorted(late) == list(range(10))
    assert all(60 <= n <= 140 for n in late.values()), late
    assert {e["_id"] for e in found} == {f"j{i}:{due}" for i in range(1000)}
    from cluster.core.ids import spread_ms

    assert all(int(e["send_at"]) - int(e["due_at"]) == spread_ms(e["job_id"], 10) for e in found)


def _at(ms: int) -> str:
    from cluster.core.instants import format_instant

    return format_instant(ms)
