"""The timeline: what was, from roll-ups or history, and what will be due."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cluster.core.execution.model import Ending
from cluster.core.instants import format_instant
from cluster.core.lifecycle import State
from cluster.core.stats_series import Point
from cluster.store import executions, history, missed_ranges, stats
from cluster.store.missed_ranges import MissedRange
from cluster.store.queries import timeline as records
from cluster.usecases import timeline
from tests.support.api_client import paths
from tests.support.engine import T0
from tests.support.execution_values import attempt, execution

if TYPE_CHECKING:
    from tests.support.api_client import Api

NOW = T0 - T0 % 3_600_000
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def stop_clock(api: Api) -> None:
    api.clock.now_ms = lambda: NOW  # type: ignore[method-assign]


async def ask(api: Api, first: int, until: int, query: str) -> dict[str, Any]:
    answer = await api.call("GET", f"/timeline?from={format_instant(first)}&until={format_instant(until)}&{query}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json)


def rows(answer: dict[str, Any]) -> dict[str | None, dict[str, dict[str, float]]]:
    """By name and time of day, the counts."""
    return {
        r["name"]: {s["at"][11:19]: {k: v for k, v in s.items() if k != "at"} for s in r["steps"]}
        for r in answer["rows"]
    }


def total(row: dict[str, dict[str, float]], what: str) -> float:
    return sum(s.get(what, 0) for s in row.values())


async def end(api: Api, job: str, due: int, state: State = State.SUCCEEDED, drift: int = 5, **more: Any) -> None:
    x = execution(job, due, **more)
    ending = Ending(x, state, due + 100, (attempt(1, due + drift),), drift_ms=drift)
    await history.record(api.db, [ending], 7)


async def some_jobs(api: Api) -> None:
    """Three jobs: two of one tag and host, one in a queue of another host."""
    stop_clock(api)
    common = {"schedule": "0 * * * * *", "startAt": format_instant(NOW - DAY)}
    await api.make(jobId="a", tags=["x", "y"], **common)
    await api.make(jobId="b", tags=["x"], **common)
    await api.make(jobId="c", queue="q", **common, api="http://127.0.0.2:5002/")


async def test_each_second_of_the_past_is_counted_from_history(api: Api) -> None:
    """Where it was planned, by its state; what left late counts as late besides. What is due and not final is unfinished."""
    await some_jobs(api)
    await end(api, "a", NOW - 10_000)
    await end(api, "a", NOW - 9000, drift=2500)
    await end(api, "b", NOW - 9000, State.DEAD)
    await end(api, "b", NOW - HOUR)
    await executions.insert(api.db, [execution("c", NOW - 3000), execution("c", NOW + 3000)])
    found = await ask(api, NOW - 20_000, NOW, "step=1s")
    assert (found["source"], found["step"], found["by"]) == ("history", 1, None)
    at = {format_instant(NOW - s * 1000)[11:19]: s for s in range(20)}
    assert {at[k]: v for k, v in rows(found)[None].items()} == {
        10: {"succeeded": 1},
        9: {"succeeded": 1, "dead": 1, "late": 1},
        3: {"unfinished": 1},
    }


@pytest.mark.parametrize("query", ["", "&by=tag", "&by=job&q=a"])
async def test_attempts_that_were_tried_again_are_counted_besides(api: Api, query: str) -> None:
    """An execution that succeeded with its third attempt counts where it was due, once, with two attempts beside it."""
    await some_jobs(api)
    due = NOW - 10_000
    tries = tuple(attempt(n, due + n * 1000) for n in (1, 2, 3))
    await history.record(api.db, [Ending(execution("a", due), State.SUCCEEDED, NOW, tries, drift_ms=5)], 7)
    found = rows(await ask(api, NOW - MINUTE, NOW, f"step=1s{query}"))
    assert all(list(row.values()) == [{"succeeded": 1, "retried": 2}] for row in found.values()), found
    assert found


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("job", {"a": 2, "b": 1, "c": 1}),
        ("tag", {"x": 3, "y": 2}),
        ("queue", {"q": 1}),
        ("host", {"127.0.0.1:5001": 3, "127.0.0.2:5002": 1}),
    ],
)
async def test_rows_are_jobs_tags_queues_or_hosts(api: Api, by: str, expected: dict[str, int]) -> None:
    """A job with two tags is in both rows; jobs without one are in none."""
    await some_jobs(api)
    for job, due in (("a", 1), ("a", 2), ("b", 2), ("c", 3)):
        await end(api, job, NOW - due * 10_000)
    found = await ask(api, NOW - MINUTE, NOW + 2 * MINUTE, f"by={by}&step=10s")
    assert {name: total(row, "succeeded") for name, row in rows(found).items()} == expected
    ahead = {name: total(row, "due") for name, row in rows(found).items()}
    planned = {"job": {"a": 1, "b": 1, "c": 1}, "tag": {"x": 2, "y": 1}, "queue": {"q": 1}}
    assert ahead == planned.get(by, {"127.0.0.1:5001": 2, "127.0.0.2:5002": 1})


async def test_filters_are_those_of_the_list_of_jobs(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for few jobs, which are looked up by id, and for many."""
    await some_jobs(api)
    for job in ("a", "b", "c"):
        await end(api, job, NOW - 10_000)
    await missed_ranges.record(api.db, [MissedRange("a", "v", NOW - 50_000, NOW - 30_000, 3, "no leader")], NOW, 7)
    for few in (200, 0):
        monkeypatch.setattr(records, "FEW_JOBS", few)
        for query, names in (("tag=y", {"a"}), ("host=127.0.0.2", {"c"}), ("anyTag=x&anyTag=z&q=b", {"b"})):
            found = rows(await ask(api, NOW - MINUTE, NOW + MINUTE, f"by=job&step=10s&{query}"))
            assert set(found) == names, (few, query)
        found = rows(await ask(api, NOW - MINUTE, NOW, "step=10s&tag=y"))
        assert (total(found[None], "succeeded"), round(total(found[None], "missed"))) == (1, 3)
        assert rows(await ask(api, NOW - MINUTE, NOW, "step=10s&tag=nothing")) == {}


async def test_longer_steps_come_from_the_roll_ups(api: Api) -> None:
    """By tag, queue and host; missed ranges stand where they were due."""
    await some_jobs(api)
    point = Point(0, "x")
    point.counts.update(succeeded=5, dead=2, retried=1)
    point.drift.add(3000)
    await stats.add_named(api.db, NOW - 10 * MINUTE, [("tag", point)])
    await missed_ranges.record(api.db, [MissedRange("b", "v", NOW - 30 * MINUTE, NOW - 26 * MINUTE, 5, "none")], NOW, 7)
    found = await ask(api, NOW - HOUR, NOW + HOUR, "by=tag&step=5m")
    x = rows(found)["x"]
    assert found["source"] == "rollup"
    ten = format_instant(NOW - 10 * MINUTE)[11:19]
    assert x[ten] == {"succeeded": 5, "dead": 2, "retried": 1, "late": 1}
    assert round(total(x, "missed"), 3) == 5
    assert total(x, "due") == 2 * 59  # the occurrence at the last instant is excluded, and the one of now is past
    assert {k for k, v in x.items() if "due" in v} == {format_instant(NOW + i * 5 * MINUTE)[11:19] for i in range(12)}


async def test_what_is_due_regards_the_spread_and_the_end_of_jobs(api: Api) -> None:
    """An occurrence of a spread job is shared out over the steps; a paused job is not due."""
    stop_clock(api)
    await api.make(jobId="s", schedule="0 0 * * * *", spreadSeconds=600)
    await api.make(jobId="e", schedule="0 30 * * * *", endAt=format_instant(NOW + HOUR))
    await api.make(jobId="p", schedule="0 0 * * * *", state="paused")
    found = rows(await ask(api, NOW, NOW + 3 * HOUR, "by=job&step=5m"))
    assert total(found["e"], "due") == 1
    assert found["s"]["18:00:00"]["due"] == found["s"]["18:05:00"]["due"] == 0.5
    assert "p" not in found


async def test_more_rows_than_asked_for_are_added_up(api: Api) -> None:
    """Those with most come by name."""
    stop_clock(api)
    for i in range(5):
        await api.make(jobId=f"j{i}", schedule=f"0 */{10 * (i + 1)} * * * *")
    found = await ask(api, NOW, NOW + 2 * HOUR, "by=job&step=10m&rows=2")
    assert set(rows(found)) == {"j0", "j1"}
    assert found["rest"]["rows"] == 3
    assert sum(s["due"] for s in found["rest"]["steps"]) > 0


async def test_what_is_too_much_is_refused_with_what_to_choose(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fault names its parameter and says what would work."""
    await some_jobs(api)
    for i in range(4):
        await end(api, "a", NOW - i * 1000 - 1000)
    monkeypatch.setattr(records, "MOST_RECORDS", 2)

    async def refused(query: str, first: int = NOW - MINUTE) -> tuple[str, str]:
        answer = await api.call("GET", f"/timeline?from={format_instant(first)}&until={format_instant(NOW)}&{query}")
        assert answer.status_code == 422, answer.text
        return answer.json["errors"][0]["path"], answer.json["errors"][0]["message"]

    for step in ("", "step=1s", "step=1d"):  # a time of 56 years, for which no step is long enough
        assert (await refused(step, first=0))[0] == "until"
    assert await refused("step=1s") == ("step", "more than 2 executions ended in this time: choose 1m or more")
    path, message = await refused("step=1s&by=job")
    assert path == "from"
    assert f"from {format_instant(NOW - 4000)[:16]}" in message
    path, message = await refused("step=1s", NOW - DAY)
    assert (path, "choose 60s or more" in message) == ("step", True)
    path, message = await refused("step=5m&by=tag", NOW - 3 * DAY)
    assert (path, "1h" in message) == ("step", True)
    bad = await api.call("GET", "/timeline?from=x&step=7&by=cluster&rows=0&tags=a")
    assert set(paths(bad)) == {"from", "step", "by", "rows", "tags"}


async def test_a_year_is_counted_within_bounds(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a job that is due each second; what there is no time for is said."""
    stop_clock(api)
    await api.make(jobId="each", schedule="* * * * * *")
    found = await ask(api, NOW, NOW + 365 * DAY, "step=1d")
    assert total(rows(found)[None], "due") <= 365 * 86_400
    assert found["jobsLeftOut"] == 0
    monkeypatch.setattr(timeline, "MOST_WORK", -1)
    assert (await ask(api, NOW, NOW + DAY, "step=1h"))["jobsLeftOut"] == 1
