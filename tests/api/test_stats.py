"""Numbers over time: what nodes counted, per step, for the cluster and by name."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from cluster.core.instants import format_instant
from cluster.core.stats_series import Point, add_lateness
from cluster.store import stats
from tests.support.api_client import paths
from tests.support.engine import T0

if TYPE_CHECKING:
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
    assert set(paths(refused)) == {"step", "by", "from", "until", "more"}
    refused = await api.call("GET", "/stats?from=2026-11-02T00:00:00Z&until=2026-11-01T00:00:00Z")
    assert paths(refused) == ["until"]
