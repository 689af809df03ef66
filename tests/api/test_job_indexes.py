"""Every page of `GET /jobs` is answered by an index, whatever it is sorted and filtered by."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson
import pytest
from bson.datetime_ms import DatetimeMS

from cluster.store.queries import job_walks, narrowed_jobs
from ops.bench import find
from tests.support.job_pages import ROOM, imported, pages

if TYPE_CHECKING:
    from tests.support.api_client import Api

MOST = 20
"""So many jobs a bounded walk reads in these tests."""
WORDS = 4
"""So many more are read at most to count the jobs with a prefix up to `FEW`, and to learn which word begins with it."""


def say_few(patch: pytest.MonkeyPatch) -> None:
    """Hardly any jobs are few."""
    patch.setattr(narrowed_jobs, "FEW", 2)
    patch.setattr(narrowed_jobs, "MANY", 2)
    patch.setattr(job_walks, "PASSED_OVER", MOST)


async def test_no_page_scans_a_collection(api: Api) -> None:
    """MongoDB's profiler has seen each query of each first page, and of each page behind a cursor."""
    lines = b"\n".join(orjson.dumps(j | {"state": "active"}) for j in find.jobs(120))
    assert (await api.call("POST", "/jobs/import", lines, Content_Type="application/x-ndjson")).json["created"] == 120
    await api.db.api["jobs"].update_many({"tags": "team-17"}, {"$set": {"failing": True, "state": "paused"}})
    await api.db.api.create_collection("system.profile", capped=True, size=ROOM)
    await api.db.api.command("profile", 2)
    pages = 0
    for query in find.filters(int(time.time() * 1000)).values():
        for sort in find.SORTS:
            cursor = ""
            for _ in range(2):
                page = await api.call("GET", f"/jobs?limit=2&sort={sort}&{query}{cursor}")
                assert page.status_code == 200, page.text
                pages += 1
                if page.json["nextCursor"] is None:
                    break
                cursor = f"&cursor={quote(page.json['nextCursor'])}"
    await api.db.api.command("profile", 0)
    seen = api.db.api["system.profile"]
    of_lists = {"ns": {"$in": [f"{api.db.api.name}.jobs", f"{api.db.api.name}.schedules"]}}
    assert await seen.count_documents({**of_lists, "planSummary": {"$regex": "IXSCAN|IDHACK"}}) > pages
    scans = await seen.find({**of_lists, "planSummary": {"$regex": "COLLSCAN"}}, {"command": 1}).to_list()
    await seen.drop()
    assert scans == []


async def test_a_schedule_is_found_without_reading_the_others(api: Api) -> None:
    """Jobs with a calendar, whose own key begins with it, are found by another index than those without one."""
    await api.call("PUT", "/calendars/days", {"weekdays": ["SUN"]})
    for n in range(40):
        await api.make(jobId=f"other-{n}", schedule=f"{n} 1 2 * * *")
    await api.make(jobId="plain", schedule="7 7 7 * * *")
    await api.make(jobId="named", schedule="7 7 7 * * *", calendar={"name": "days"})
    await api.db.api.create_collection("system.profile", capped=True, size=ROOM)
    await api.db.api.command("profile", 2)
    for sort in find.SORTS:
        page = await api.call("GET", f"/jobs?schedule={quote('7 7 7 * * *')}&sort={sort}")
        assert {j["jobId"] for j in page.json["items"]} == {"plain", "named"}
    await api.db.api.command("profile", 0)
    seen = await api.db.api["system.profile"].find({"ns": f"{api.db.api.name}.jobs"}).to_list()
    await api.db.api["system.profile"].drop()
    assert seen
    assert max(d.get("docsExamined", 0) for d in seen) <= 4


async def test_jobs_are_not_sorted_with_their_bodies(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred jobs of a megabyte would be more than MongoDB sorts in memory."""
    stages: list[list[str]] = []
    real = narrowed_jobs.read

    async def read(db: Any, narrowing: Any, *pipeline: Any) -> Any:
        stages.append([next(iter(stage)) for stage in pipeline])
        return await real(db, narrowing, *pipeline)

    monkeypatch.setattr(narrowed_jobs, "read", read)
    await api.make(jobId="a", tags=["x"], body="b" * 1000)
    for sort in find.SORTS:
        assert len((await api.call("GET", f"/jobs?tag=x&sort={sort}")).json["items"]) == 1
    assert stages
    assert all(s.index("$project") < s.index("$sort") for s in stages if "$sort" in s)


async def test_what_comes_late_in_the_order_is_found_without_reading_what_comes_before(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs with one tag or one word are read in the order of their names and ages, although they are too many to sort."""
    monkeypatch.setattr(narrowed_jobs, "FEW", 5)
    lines = [
        {"jobId": f"{group}-{n}", "name": f"{group} {n:03}", "tags": [tag], "schedule": "@daily", "api": "http://h/"}
        for group, tag in (("zeta", "late"), ("alpha", "other"))
        for n in range(80)
    ]
    content = b"\n".join(orjson.dumps(line) for line in lines)
    assert (await api.call("POST", "/jobs/import", content, Content_Type="application/x-ndjson")).json["created"] == 160
    await api.db.api.create_collection("system.profile", capped=True, size=ROOM)
    await api.db.api.command("profile", 2)
    for query in ("tag=late", "q=zet", "q=zeta+http&tag=late"):
        for sort in ("name", "-createdAt"):
            page = await api.call("GET", f"/jobs?limit=3&sort={sort}&{query}")
            assert len(page.json["items"]) == 3
            assert all(j["tags"] == ["late"] for j in page.json["items"])
    await api.db.api.command("profile", 0)
    seen = await api.db.api["system.profile"].find({"ns": f"{api.db.api.name}.jobs"}).to_list()
    await api.db.api["system.profile"].drop()
    assert max(d.get("docsExamined", 0) for d in seen) <= 6


@pytest.mark.parametrize("sort", ["name", "-name", "lastRunAt", "-lastRunAt"])
async def test_pages_of_jobs_without_a_value_are_bounded_as_the_others(
    api: Api, monkeypatch: pytest.MonkeyPatch, sort: str
) -> None:
    """Jobs without a name, or that never ran, are walked by their ids, not sorted; alone and with other conditions."""
    say_few(monkeypatch)
    await imported(api, [{"jobId": f"j{n:03}", "tags": ["all", f"half-{n % 2}"]} for n in range(90)])
    step = -1 if sort[0] == "-" else 1
    for query, wanted, bound in (
        ("", range(90), 4),
        ("tag=all", range(90), 4 + MOST),
        ("q=all&tag=all", range(90), 4 + MOST + WORDS),
        ("tag=all&tag=half-1", range(1, 90, 2), 8 + MOST),
        ("host=h", range(90), 4 + MOST),
    ):
        read = await pages(api, f"sort={sort}&limit=3&{query}", 3)
        assert [i for ids, _ in read for i in ids] == [f"j{n:03}" for n in wanted[::step]][:9], query
        assert max(examined for _, examined in read) <= bound, query


async def test_jobs_in_one_place_of_an_order_are_not_read_again_for_each_page(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs of one name, or of one import: what is before a page's place is not read."""
    say_few(monkeypatch)
    await imported(api, [{"jobId": f"j{n:03}", "name": "same", "tags": ["all"]} for n in range(60)])
    await api.db.api["jobs"].update_many({}, {"$set": {"created_at": DatetimeMS(1_700_000_000_000)}})
    for sort in ("name", "-name", "createdAt", "-createdAt"):
        for query in ("", "&tag=all", "&q=sam", "&host=h", "&q=same&tag=all"):
            read = await pages(api, f"sort={sort}&limit=10{query}", 7)
            assert sorted(i for ids, _ in read for i in ids) == [f"j{n:03}" for n in range(60)]
            assert max(examined for _, examined in read) <= 12 + WORDS, (sort, query)


async def test_jobs_that_a_tag_has_late_are_found_by_their_word(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the other way round. Each way is tried for some jobs only."""
    say_few(monkeypatch)
    lines = [
        {"jobId": f"{name}-{tag}-{n:03}", "name": f"{name} {n:03}", "tags": [tag]}
        for name, tag in (("alpha", "x"), ("zeta", "x"), ("zeta", "y"), ("beta", "z"), ("alpha", "w"))
        for n in range(80)
    ]
    await imported(api, lines)
    for query, prefix in (("q=zeta&tag=x", "zeta-x"), ("q=beta&tag=z&host=h", "beta-z")):
        for sort in ("name", "-name"):
            read = await pages(api, f"sort={sort}&limit=3&{query}", 3)
            ids = [f"{prefix}-{n:03}" for n in range(80)]
            assert [i for found, _ in read for i in found] == (ids if sort == "name" else ids[::-1])[:9]
            assert max(examined for _, examined in read) <= 3 * MOST, (query, sort)


async def test_the_end_of_a_bounded_walk_is_found_by_the_keys_of_its_index(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the first page and behind a cursor, no job is read for it."""
    say_few(monkeypatch)
    await imported(api, [{"jobId": f"j{n:03}", "name": f"n{n:03}", "tags": ["all"]} for n in range(90)])
    await api.db.api["jobs"].update_many({}, {"$set": {"last_run_at": DatetimeMS(1_700_000_000_000)}})
    for sort in find.SORTS[:6]:
        read = await pages(api, f"sort={sort}&limit=3&host=h", 3)
        assert max(examined for _, examined in read) <= 5, sort


async def test_paused_jobs_behind_those_with_a_next_run_are_read_page_by_page(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest first, however many were created at one instant."""
    say_few(monkeypatch)
    await imported(api, [{"jobId": f"j{n:03}", "state": "paused", "tags": [f"t{n // 45}"]} for n in range(90)])
    at = DatetimeMS(1_700_000_000_000)
    # The schedules of unsettled jobs are computed for the order: no leader settles them here.
    await api.db.api["jobs"].update_many({}, {"$set": {"created_at": at}, "$unset": {"unsettled": ""}})
    await api.make(jobId="soon")
    for query, wanted in (
        ("", ["soon", *(f"j{n:03}" for n in range(90))]),
        ("&tag=t1", [f"j{n:03}" for n in range(45, 90)]),
    ):
        read = await pages(api, f"sort=nextRunAt&limit=10{query}", 10)
        assert [i for ids, _ in read for i in ids] == wanted
        assert max(examined for _, examined in read) <= 14 + MOST, (query, read)


async def test_a_search_with_many_words_counts_few_of_them(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each count may read more than a thousand jobs: a letter in each place of a search would be a hundred of them."""
    say_few(monkeypatch)
    letters = " ".join("abcdefghijklmnopqrstuvwxyz0123456789")
    await imported(api, [{"jobId": f"j{n:03}", "name": letters, "tags": ["all"]} for n in range(30)])
    for sort in find.SORTS:
        (ids, examined), *_ = await pages(api, f"sort={sort}&limit=5&q={quote(letters)}", 1)
        assert len(ids) == 5
        assert examined <= 5 * narrowed_jobs.WORDS_COUNTED * (narrowed_jobs.FEW + 1) + 3 * MOST, sort


async def test_mongodb_has_one_plan_for_each_walk(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several words, or several tags, are conditions on one field: with several plans it reads jobs to try each of them."""
    say_few(monkeypatch)
    await imported(api, [{"jobId": f"j{n:03}", "name": f"same {n % 4}", "tags": ["all", "some"]} for n in range(60)])
    walked: list[dict[str, Any]] = []
    for sort in ("name", "-name", "createdAt", "-createdAt"):
        for query in (
            "q=same+all",
            "q=all",
            "tag=all&tag=some",
            "q=same&tag=all&tag=some",
            "anyTag=all&anyTag=some&tag=all",
        ):
            commands: list[dict[str, Any]] = []
            read = await pages(api, f"sort={sort}&limit=7&{query}", 2, commands)
            assert [len(ids) for ids, _ in read] == [7, 7]
            walked += [c for c in commands if "find" in c and "sort" in c]
    assert len(walked) > 40
    for c in walked:
        kept = {k: c[k] for k in ("find", "filter", "sort", "limit", "skip", "hint", "projection") if k in c}
        explain = {"explain": kept, "verbosity": "queryPlanner"}
        plan = await api.db.api.command(explain, codec_options=api.db.api.codec_options)
        assert plan["queryPlanner"]["rejectedPlans"] == [], kept


@pytest.mark.takes(8)
async def test_one_of_very_many_tags_is_found_by_its_index(api: Api) -> None:
    """With as many tags as jobs, in every order, without reading any other job."""
    await imported(api, [{"jobId": f"j{n:05}", "name": f"n{n % 7}", "tags": [f"tag-{n}"]} for n in range(3000)])
    await api.db.api["jobs"].update_many({}, {"$unset": {"unsettled": ""}})
    for sort in find.SORTS:
        for query, count in (("tag=tag-2999", 1), ("anyTag=tag-7&anyTag=tag-8&anyTag=none", 2)):
            (ids, examined), *_ = await pages(api, f"sort={sort}&limit=5&{query}", 1)
            assert len(ids) == count
            assert examined <= 3 * count + 2, (sort, query)
