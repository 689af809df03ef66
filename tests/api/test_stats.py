"""Numbers over time: what nodes counted, per step, for the cluster and by name."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cluster.core.execution.lateness import ON_TIME, LatenessParts
from cluster.core.execution.model import Ending
from cluster.core.instants import format_instant
from cluster.core.lifecycle import State
from cluster.core.stats_series import Point, add_lateness
from cluster.stats_rollup import ADD_EVERY_TURNS, StatsRollup
from cluster.store import history, missed_ranges, stats
from cluster.store.missed_ranges import MissedRange
from cluster.store.queries import job_stats
from cluster.worker.metrics import WorkerStats
from tests.support.api_client import paths
from tests.support.engine import T0
from tests.support.execution_values import attempt, execution

if TYPE_CHECKING:
    from cluster.core.execution.model import Attempt
    from tests.support.api_client import Api

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def stop_clock(api: Api, at_ms: int) -> None:
    api.clock.now_ms = lambda: at_ms  # type: ignore[method-assign]


def buckets(at: int) -> list[int]:
    return [int(i == at) * 2 for i in range(32)]


async def count(api: Api, at_ms: int, sent: int = 2, **more: int) -> None:
    await stats.add(api.db, at_ms, {"attempts": sent, **more}, {"drift": buckets(3), "duration": buckets(5)})


async def series(api: Api, query: str) -> tuple[int, list[dict[str, Any]]]:
    answer = await api.call("GET", f"/stats?{query}")
    assert answer.status_code == 200, answer.text
    return answer.json["step"], answer.json["series"]


async def test_the_last_hour_is_counted_by_the_minute(api: Api) -> None:
    """Two nodes' counts are added up; steps in which nothing was counted are zero."""
    stop_clock(api, T0)
    await count(api, T0 - 5 * MINUTE, succeeded=1, dead=1, failed=2, retried=3, missed=4)
    await count(api, T0 - 5 * MINUTE + 59_000 - (T0 % MINUTE), succeeded=1)
    await count(api, T0 - 2 * HOUR)
    step, points = await series(api, "")
    assert (step, len(points)) == (60, 60)
    counted = [p for p in points if p["sent"]]
    assert counted == [
        {
            "at": format_instant(T0 - 5 * MINUTE - T0 % MINUTE),
            "sent": 4,
            "succeeded": 2,
            "failed": 3,
            "retried": 3,
            "missed": 4,
            "latenessP50Ms": 5.0,
            "latenessP99Ms": 5.0,
            "durationP50Ms": 10.0,
            "durationP99Ms": 10.0,
            "latenessParts": None,
        }
    ]
    assert points[0]["latenessP50Ms"] is None


async def test_what_leaders_and_what_workers_recorded_as_missed_is_added_up(api: Api) -> None:
    """A leader records what was not written ahead, a worker what was claimed too late; each is added once."""
    worker, recorded = WorkerStats(), 5
    rollup = StatsRollup(api.db, api.clock, worker, 1.0, lambda: recorded)
    worker.counters["missed"] += 4
    for _ in range(ADD_EVERY_TURNS + 1):
        await rollup.turn()
    recorded += 1
    worker.counters["missed"] += 2
    for _ in range(ADD_EVERY_TURNS):
        await rollup.turn()
    until = format_instant(api.clock.now_ms() + 2 * MINUTE)
    _, points = await series(api, f"until={until}")
    assert sum(p["missed"] for p in points) == 12


@pytest.mark.parametrize(
    ("age", "query", "step"),
    [
        (10 * MINUTE, "step=5m", 300),
        (10 * MINUTE, "step=300", 300),
        (3 * DAY, "step=1m", 180),
        (29 * DAY, "step=1h", 3600),
        (40 * DAY, "step=5m", 3600),
        (89 * DAY, "", 86_400),
        (89 * DAY, "step=1m", 7200),
    ],
)
async def test_the_step_grows_with_the_age(api: Api, age: int, query: str, step: int) -> None:
    """Nothing of 90 days is lost or counted twice, whichever documents answer."""
    stop_clock(api, T0)
    await count(api, T0 - age + 2 * HOUR)
    await count(api, T0 - MINUTE)
    query += f"&from={format_instant(T0 - age)}"
    got, points = await series(api, query)
    assert got == step
    assert sum(p["sent"] for p in points) == (4 if age > HOUR else 2)
    assert len(points) <= 1502


async def test_numbers_of_hosts_queues_and_tags_are_apart(api: Api) -> None:
    """Each with its name; those with most requests if there are many."""
    stop_clock(api, T0)
    for i in range(60):
        point = Point(0, f"h{i}|x.example.com:443")
        point.counts.update(attempts=i + 1, succeeded=i)
        point.drift.add(4)
        await stats.add_named(api.db, T0 - MINUTE, [("host", point), ("tag", point)])
    _, points = await series(api, "by=host&step=1h")
    assert len(points) == 50
    assert {p["name"] for p in points} == {f"h{i}|x.example.com:443" for i in range(10, 60)}
    assert points[0]["missed"] is None
    assert (await series(api, "by=queue"))[1] == []
    old = f"by=tag&from={format_instant(T0 - 3 * DAY)}"
    step, points = await series(api, old)
    assert (step, max(p["sent"] for p in points)) == (3600, 60)


async def test_lateness_is_split_into_its_parts(api: Api) -> None:
    """As means over first attempts, for the cluster and by name; they add up over minutes and nodes."""
    stop_clock(api, T0)
    counts: Counter[str] = Counter()
    add_lateness(counts, (0, 100, 20, 0, 4))
    add_lateness(counts, (60, 0, 0, 40, 0))
    await stats.add(api.db, T0 - MINUTE, counts, {})
    await stats.add(api.db, T0 - 5 * MINUTE, {"late_counted": 2}, {})
    point = Point(0, "x", counts)
    await stats.add_named(api.db, T0 - MINUTE, [("tag", point)])
    _, points = await series(api, "step=1h")
    expected = {"writtenMs": 15.0, "claimedMs": 25.0, "waitedMs": 5.0, "heldBackMs": 10.0, "sentMs": 1.0}
    assert [p["latenessParts"] for p in points if p["latenessParts"]] == [expected]
    _, points = await series(api, "by=tag")
    assert points[0]["latenessParts"]["claimedMs"] == 50.0


async def test_minutes_and_hours_expire_by_themselves(api: Api) -> None:
    """Minutes of the cluster after 30 days, of a name after one; hours after 90 days."""
    point = Point(0, "a")
    point.counts["attempts"] = 1
    await count(api, T0)
    await stats.add_named(api.db, T0, [("tag", point)])
    expiry = {str(d["_id"])[:9]: int(d["expire_at"]) async for d in api.db.api["stats"].find()}
    minute, hour = T0 - T0 % MINUTE, T0 - T0 % HOUR
    assert sorted(expiry.values()) == sorted([minute + 30 * DAY, hour + 90 * DAY, minute + DAY, hour + 90 * DAY])


async def test_wrong_parameters_of_the_numbers_are_reported_together(api: Api) -> None:
    """Each names its parameter."""
    refused = await api.call("GET", "/stats?step=90s&by=job&from=x&until=y&more=1")
    assert set(paths(refused)) == {"step", "job", "from", "until", "more"}
    assert paths(await api.call("GET", "/stats?by=host&job=a")) == ["by"]
    refused = await api.call("GET", "/stats?from=2026-11-02T00:00:00Z&until=2026-11-01T00:00:00Z")
    assert paths(refused) == ["until"]


async def end(
    api: Api, due: int, state: State = State.SUCCEEDED, drift: int = 0, *more: Attempt, job: str = "a"
) -> None:
    """An execution that ended; `drift`: it was claimed so late."""
    late = LatenessParts(claimed=drift - 20, waited=20) if drift else ON_TIME
    attempts = (replace(attempt(1, due + drift), late=late), *more)
    await history.record(api.db, [Ending(execution(job, due), state, due + 500, attempts, drift_ms=drift)], 7)


async def test_the_numbers_of_a_job_come_from_its_history(api: Api) -> None:
    """Where its executions were due, with the parts of their lateness; other jobs do not count."""
    begin = T0 - T0 % HOUR
    stop_clock(api, begin)
    await api.make(jobId="a")
    await end(api, begin - 9 * MINUTE)
    await end(api, begin - 9 * MINUTE + 1000, State.SUCCEEDED, 320, attempt(2, begin))
    await end(api, begin - 2 * MINUTE, State.DEAD)
    await end(api, begin - 2 * MINUTE, job="a-2")
    _, points = await series(api, "job=a")
    assert len(points) == 60
    counted = {p["at"]: p for p in points if p["sent"]}
    first, second = counted.values()
    assert list(counted) == [format_instant(begin - m * MINUTE) for m in (9, 2)]
    assert [(p["name"], p["sent"], p["succeeded"], p["failed"], p["retried"]) for p in (first, second)] == [
        ("a", 3, 2, 0, 1), ("a", 1, 0, 1, 0)
    ]  # fmt: skip
    assert first["latenessParts"] == {"writtenMs": 0, "claimedMs": 150, "waitedMs": 10, "heldBackMs": 0, "sentMs": 0}
    assert (first["latenessP99Ms"], second["latenessP99Ms"], first["durationP50Ms"]) == (400, 1, 150)
    shown = (await api.call("GET", f"/executions/a:{begin - 9 * MINUTE + 1000:013d}")).json["attempts"]
    assert shown[0]["latenessParts"]["claimedMs"] == 300
    assert "latenessParts" not in shown[1]


async def test_missed_ranges_of_a_job_are_spread_over_their_time(api: Api) -> None:
    """Also one that began before the span: no occurrence is counted twice, whatever the span."""
    begin = T0 - T0 % HOUR
    stop_clock(api, begin)
    await api.make(jobId="a")
    first, last = begin - 70 * MINUTE, begin - 50 * MINUTE - 1000
    await missed_ranges.record(api.db, [MissedRange("a", "v", first, last, 1200, "no node")], begin, 7)
    minutes = (await series(api, f"job=a&step=1m&from={format_instant(begin - 2 * HOUR)}"))[1]
    assert [p["missed"] for p in minutes[48:72]] == [0, 0, *[60] * 20, 0, 0]
    assert sum(p["missed"] for p in (await series(api, "job=a"))[1]) == 600


async def test_numbers_of_a_job_that_never_was_are_not_found(api: Api) -> None:
    """One that was deleted has its history; one with more than can be added up is refused."""
    assert (await api.call("GET", "/stats?job=nobody")).status_code == 404
    assert (await api.call("GET", "/stats?job=a%20b")).status_code == 404
    await end(api, T0, job="gone")
    assert (await api.call("GET", "/stats?job=gone")).status_code == 200
    await api.make(jobId="new")
    assert all(p["sent"] == 0 for p in (await series(api, "job=new&step=1h"))[1])


async def test_numbers_of_a_job_with_too_many_records_are_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer says what to do."""
    stop_clock(api, T0)
    monkeypatch.setattr(job_stats, "MOST_RECORDS", 1)
    await end(api, T0 - 1000)
    assert (await api.call("GET", "/stats?job=a")).status_code == 200
    await end(api, T0 - 2000)
    assert paths(await api.call("GET", "/stats?job=a")) == ["from"]
