"""The orders of the list of jobs, page by page, while the engine goes on."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from cluster.core.instants import format_instant
from cluster.store import last_results
from cluster.store.last_results import LastResult
from cluster.store.queries import job_list, job_walks, narrowed_jobs
from tests.support.api_client import paths, walk
from tests.support.engine import T0, lead, settle_all

if TYPE_CHECKING:
    from tests.support.api_client import Api

SCHEDULES = (
    "* * * * * *",
    "*/7 * * * * *",
    "0,20,21 * * * * *",
    "0 * * * * *",
    "59 * * * * *",
    "0 */5 * * * *",
    "30 0 * * * *",
    "0 0 3 * * *",
    "@every 45s",
    "@every 90s",
    "@every 3h",
    "0 0 0 1 1 *",
)


def stop_clock(api: Api, at_ms: int) -> None:
    api.clock.now_ms = lambda: at_ms  # type: ignore[method-assign]


def say_few(patch: pytest.MonkeyPatch, few: int) -> None:
    """Conditions that more than so many jobs meet do not narrow a list; of a walk no more than so many jobs are read."""
    patch.setattr(job_list, "FEW", few)
    patch.setattr(narrowed_jobs, "FEW", few)
    patch.setattr(narrowed_jobs, "MANY", 2 * few)
    patch.setattr(job_walks, "PASSED_OVER", few + 5)
    patch.setattr(job_walks, "FIRST_CHUNK", few + 2)


async def many_jobs(api: Api, at_ms: int) -> None:
    """Jobs of many schedules; some begin later, end, run once, or are paused."""
    luck = random.Random(5)
    for i in range(96):
        more: dict[str, Any] = {"schedule": SCHEDULES[i % len(SCHEDULES)], "tags": [f"t{i % 3}"]}
        if i % 5 == 1:
            more["startAt"] = format_instant(at_ms + luck.randrange(1, 4000) * 1000)
        if i % 11 == 2 and i % len(SCHEDULES) not in (7, 10, 11):  # they would never run
            more["endAt"] = format_instant(at_ms + 5000 * 1000)
        if i % 6 == 5:
            more = {"schedule": f"@at {format_instant(at_ms + luck.randrange(2, 100) * 1000)}", "tags": ["t1"]}
        await api.make(jobId=f"j{i:03d}", name=f"name {luck.randrange(40)}", **more)
        if i % 13 == 3:
            await api.call("POST", f"/jobs/j{i:03d}/pause")


async def due_by_job(api: Api) -> dict[str, str | None]:
    """By what each job says of itself."""
    ids = [d["_id"] async for d in api.db.api["jobs"].find({}, {"_id": 1})]
    full = [(await api.call("GET", f"/jobs/{i}")).json for i in ids]
    return {j["jobId"]: j["nextRuns"][0] if j["nextRuns"] else None for j in full}


async def items(api: Api, query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = (await api.call("GET", f"/jobs?{query}{cursor}")).json
        found += page["items"]
        if page["nextCursor"] is None:
            return found
        cursor = f"&cursor={page['nextCursor']}"


async def check_order(api: Api, patch: pytest.MonkeyPatch, *, full: bool = False) -> None:
    """Both directions and all page sizes hold every job once, by its next run, those without one last. Whether the jobs
    are few or many changes nothing.
    """
    due = await due_by_job(api)
    tagged = {i for i in due if int(i[1:]) % 3 == 1 or int(i[1:]) % 6 == 5}
    for few in (1000, 0):
        say_few(patch, few)
        for query, wanted in (
            ("limit=9", set(due)),
            ("limit=100&tag=t1", tagged),
            *((("limit=10&tag=t1", tagged), *((("limit=1", set(due)),) if few == 0 else ())) if full else ()),
        ):
            await check_pages(api, query, {i: due[i] for i in wanted})


async def check_pages(api: Api, query: str, due: dict[str, str | None]) -> None:
    listed = await items(api, f"sort=nextRunAt&{query}")
    assert {j["jobId"]: j["nextRunAt"] for j in listed} == due
    assert len(listed) == len(due)
    times = [j["nextRunAt"] for j in listed if j["nextRunAt"] is not None]
    assert times == sorted(times)
    assert all(j["nextRunAt"] is None for j in listed[len(times) :])
    reverse = await items(api, f"sort=-nextRunAt&{query}")
    assert [j["jobId"] for j in reverse[: len(times)]] == [j["jobId"] for j in listed[: len(times)]][::-1]
    assert {j["jobId"] for j in reverse} == due.keys()


@pytest.mark.long
@pytest.mark.takes(12)
async def test_jobs_are_listed_by_their_next_run_with_and_without_a_leader(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is imminent comes first although its schedule's row has passed it; so do one-off jobs without a row, jobs that
    begin later, and all of them while no node leads.
    """
    stop_clock(api, T0)
    await many_jobs(api, T0)
    await check_order(api, monkeypatch, full=True)
    leader = await lead(api.db, api.clock)
    for seconds in (0, 12, 31):
        stop_clock(api, T0 + seconds * 1000 + 137)
        await settle_all(leader, api.clock)  # type: ignore[arg-type]
        await check_order(api, monkeypatch)
    for seconds in (40, 9000):
        stop_clock(api, T0 + seconds * 1000)
        await check_order(api, monkeypatch)


@pytest.mark.parametrize("sort", ["nextRunAt", "-nextRunAt"])
async def test_jobs_that_run_between_two_pages_are_neither_repeated_nor_left_out(api: Api, sort: str) -> None:
    """The order is as of the first page. A cursor is refused when that is long ago, or of another order."""
    stop_clock(api, T0)
    await many_jobs(api, T0)
    leader = await lead(api.db, api.clock)
    found: list[str] = []
    cursor = ""
    for turn in range(100):
        stop_clock(api, T0 + turn * 5000)
        await settle_all(leader, api.clock)  # type: ignore[arg-type]
        page = (await api.call("GET", f"/jobs?sort={sort}&limit=7&state=active{cursor}")).json
        found += [j["jobId"] for j in page["items"]]
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    still_active = [d["_id"] async for d in api.db.api["jobs"].find({"state": "active"}, {"_id": 1})]
    assert len(found) == len(set(found))
    assert set(found) >= set(still_active)
    assert paths(await api.call("GET", f"/jobs?sort=name{cursor}")) == ["cursor"]
    stop_clock(api, T0 + 3_600_000)
    late = await api.call("GET", f"/jobs?sort={sort}{cursor}")
    assert "older than ten minutes" in late.json["errors"][0]["message"]


@pytest.mark.parametrize("few", [1000, 0])
async def test_jobs_due_before_an_instant_are_listed_in_every_order(
    api: Api, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`nextRunBefore` does not include the instant."""
    say_few(monkeypatch, few)
    stop_clock(api, T0)
    await many_jobs(api, T0)
    await settle_all(await lead(api.db, api.clock), api.clock)  # type: ignore[arg-type]
    due = await due_by_job(api)
    before = sorted(t for t in due.values() if t is not None)[40]
    wanted = {i for i, t in due.items() if t is not None and t < before}
    assert wanted
    for sort in ("nextRunAt", "-nextRunAt", "name", "-createdAt", "lastRunAt"):
        listed = await walk(api, f"sort={sort}&nextRunBefore={before}&limit=9")
        assert (len(listed), set(listed)) == (len(wanted), wanted), sort


@pytest.mark.parametrize("few", [1000, 0])
async def test_lists_by_name_age_and_last_run_hold_every_job_once(
    api: Api, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In both directions, whatever the page size; jobs without a name, or that never ran, come last."""
    say_few(monkeypatch, few)
    for i in range(40):
        named = {"name": f"n{i % 7}é"} if i % 4 else {}
        await api.make(jobId=f"j{i:02d}", tags=["all", "x"], **named)
    runs = [LastResult(f"j{i:02d}", T0 + i % 5 * 1000, "succeeded", T0 + i % 5 * 1000) for i in range(0, 40, 3)]
    await last_results.save(api.db, runs)
    stored = {d["_id"]: d async for d in api.db.api["jobs"].find()}
    for sort, field in (("name", "name"), ("createdAt", "created_at"), ("lastRunAt", "last_run_at")):
        for sign in ("", "-"):
            for query in ("limit=1", "limit=7", "limit=7&tag=all&tag=x", "limit=7&q=al", "limit=7&q=j", "limit=100"):
                listed = await walk(api, f"sort={sign}{sort}&{query}")
                assert sorted(listed) == sorted(stored), (sign, sort, query)
                values = [stored[i].get(field) for i in listed]
                present = [v for v in values if v is not None]
                assert values[: len(present)] == present, (sign, sort, query)
                assert present == sorted(present, reverse=sign == "-")


async def test_changes_between_pages_hide_no_job_in_any_order(api: Api) -> None:
    """The last job of a page is deleted or renamed before the next page is read."""
    for sort in ("name", "-name", "nextRunAt", "-lastRunAt", "createdAt"):
        made = [await api.make(jobId=f"{sort.strip('-')}{i}-{sort[0] == '-'}", name=f"n{i}") for i in range(9)]
        first = (await api.call("GET", f"/jobs?sort={sort}&limit=4")).json
        await api.call("DELETE", f"/jobs/{first['items'][3]['jobId']}")
        rest = (await api.call("GET", f"/jobs?sort={sort}&limit=50&cursor={first['nextCursor']}")).json
        listed = [j["jobId"] for j in (*first["items"], *rest["items"])]
        assert sorted(listed) == sorted(made), sort
        for name in made:
            await api.call("DELETE", f"/jobs/{name}")
