"""A page of `GET /jobs` reads a bounded number of jobs, whatever it is filtered by, and says where the next one begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from bson.datetime_ms import DatetimeMS

from cluster.core.instants import format_instant
from cluster.store.queries import job_list, job_walks, narrowed_jobs, next_runs
from ops.bench import find
from tests.support.api_client import walk
from tests.support.engine import T0, lead, settle_all
from tests.support.job_pages import imported, pages

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.api_client import Api

TRIED, MOST = 10, 40
"""Jobs that each way is tried for, and that a page reads at most by the one that came furthest."""


def stop_clock(api: Api, at_ms: int) -> None:
    api.clock.now_ms = lambda: at_ms  # type: ignore[method-assign]


def say_few(patch: pytest.MonkeyPatch, few: int = 2) -> None:
    patch.setattr(narrowed_jobs, "FEW", few)
    patch.setattr(narrowed_jobs, "MANY", few)
    patch.setattr(job_list, "FEW", few)
    patch.setattr(job_walks, "PASSED_OVER", TRIED)
    patch.setattr(job_walks, "FIRST_CHUNK", TRIED)
    patch.setattr(job_walks, "MOST_READ", MOST)


async def settled(api: Api, jobs: list[dict[str, Any]]) -> None:
    stop_clock(api, T0)
    await imported(api, jobs)
    await settle_all(await lead(api.db, api.clock), api.clock)  # type: ignore[arg-type]


@pytest.mark.parametrize("schedules", [1, 7, 240])
async def test_two_tags_that_hardly_any_job_has_together_are_looked_for_page_by_page(
    api: Api, monkeypatch: pytest.MonkeyPatch, schedules: int
) -> None:
    """No page reads more than its share of them, in any order; together the pages hold each such job once."""
    say_few(monkeypatch)
    both = {31, 150, 239}
    jobs = [
        {
            "jobId": f"j{n:03}",
            "name": f"n{n * 7 % 240:03}",
            "tags": ["eu", "us"] if n in both else ["eu" if n % 2 else "us"],
            "schedule": f"{n % schedules % 60} {n % schedules // 60} 3 * * *",
        }
        for n in range(240)
    ]
    await settled(api, jobs)
    at = {"last_run_at": DatetimeMS(T0 - 1000)}
    await api.db.api["jobs"].update_many({"_id": {"$gte": "j100"}}, {"$set": at})
    for sort in find.SORTS:
        read = await pages(api, f"sort={sort}&limit=3&tag=eu&tag=us", 100)
        assert sorted(i for ids, _ in read for i in ids) == [f"j{n:03}" for n in sorted(both)], sort
        assert len(read) > 1, sort
        assert max(examined for _, examined in read) <= 3 * TRIED + MOST + 20, (sort, read)


@pytest.mark.parametrize("sort", find.SORTS)
async def test_jobs_of_a_state_that_few_with_a_tag_are_in_are_looked_for_page_by_page(
    api: Api, monkeypatch: pytest.MonkeyPatch, sort: str
) -> None:
    """The jobs of a tag are in the order of their names and ages, with those in every state among them."""
    say_few(monkeypatch)
    paused = {3, 100, 101, 199}
    jobs = [
        {"jobId": f"j{n:03}", "name": f"n{n:03}", "tags": ["all"], "state": "paused" if n in paused else "active"}
        for n in range(200)
    ]
    await settled(api, jobs)
    for query, wanted in (("tag=all&state=paused", paused), ("q=all&state=paused", paused)):
        read = await pages(api, f"sort={sort}&limit=3&{query}", 100)
        assert sorted(i for ids, _ in read for i in ids) == [f"j{n:03}" for n in sorted(wanted)]
        assert max(examined for _, examined in read) <= 3 * TRIED + MOST + 10, read


@pytest.mark.parametrize("sort", find.SORTS)
async def test_the_few_jobs_that_do_not_fail_are_found_without_reading_the_others(api: Api, sort: str) -> None:
    """`failing=false` has an index as `failing=true` has."""
    await settled(api, [{"jobId": f"j{n:03}", "schedule": f"{n % 60} {n // 60} 3 * * *"} for n in range(200)])
    await api.db.api["jobs"].update_many({"_id": {"$nin": ["j007", "j190"]}}, {"$set": {"failing": True}})
    ((ids, examined),) = await pages(api, f"sort={sort}&failing=false", 2)
    assert sorted(ids) == ["j007", "j190"]
    assert examined <= 10


@pytest.mark.parametrize("sort", find.SORTS)
async def test_many_jobs_that_fail_before_those_that_do_not_end_a_page(
    api: Api, monkeypatch: pytest.MonkeyPatch, sort: str
) -> None:
    """More of both kinds than can be sorted."""
    say_few(monkeypatch)
    await settled(api, [{"jobId": f"j{n:03}", "name": f"n{n:03}"} for n in range(200)])
    await api.db.api["jobs"].update_many({"_id": {"$gt": "j009", "$lt": "j190"}}, {"$set": {"failing": True}})
    read = await pages(api, f"sort={sort}&limit=3&failing=false", 100)
    well = [f"j{n:03}" for n in (*range(10), *range(190, 200))]
    assert sorted(i for ids, _ in read for i in ids) == well
    assert max(examined for _, examined in read) <= TRIED + MOST + 10, read


async def test_jobs_that_begin_later_are_looked_for_page_by_page(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some at one instant, and on the way to the few that match, in both directions."""
    say_few(monkeypatch)
    jobs = [
        {
            "jobId": f"j{n:03}",
            "startAt": format_instant(T0 + 86_400_000 * (n // 30 + 1)),
            "tags": ["x", "y"] if n % 50 == 49 else ["x" if n % 2 else "y"],
        }
        for n in range(200)
    ]
    await settled(api, jobs)
    wanted = [f"j{n:03}" for n in (49, 99, 149, 199)]
    assert await walk(api, "sort=nextRunAt&limit=2&tag=x&tag=y") == wanted
    assert await walk(api, "sort=-nextRunAt&limit=2&tag=x&tag=y") == wanted[::-1]


@pytest.mark.parametrize("sort", ["nextRunAt", "-nextRunAt"])
@pytest.mark.parametrize("turn", range(5))
async def test_a_schedule_that_is_moved_on_while_a_page_is_read_keeps_its_place(
    api: Api, monkeypatch: pytest.MonkeyPatch, sort: str, turn: int
) -> None:
    """Between any two questions of the page: its row is ahead then, and the occurrence before is still to come."""
    await settled(api, [{"jobId": f"j{n}", "schedule": f"{n} 0 3 * * *"} for n in range(3)])
    row = await api.db.api["schedules"].find_one({"_id": {"$regex": "^cron.1 0 3 "}}) or {}
    moved = {"next_at": DatetimeMS(int(row["next_at"]) + 86_400_000), "stride_at": row["next_at"]}
    asked = 0

    def before(question: Callable[..., Any]) -> Callable[..., Any]:
        async def ask(*arguments: Any, **named: Any) -> Any:
            nonlocal asked
            if asked == turn:
                await api.db.api["schedules"].update_one({"_id": row["_id"]}, {"$set": moved})
            asked += 1
            return await question(*arguments, **named)

        return ask

    for name in ("_behind", "_unsettled_keys", "_rows", "_moved_since"):
        monkeypatch.setattr(next_runs, name, before(getattr(next_runs, name)))
    stop_clock(api, int(row["next_at"]) - 5000)
    listed = await walk(api, f"sort={sort}")
    assert listed == ["j0", "j1", "j2"][:: -1 if sort[0] == "-" else 1]
