"""Every page of `GET /jobs` is answered by an index, whatever it is sorted and filtered by."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from cluster.store.queries import narrowed_jobs
from ops.bench import find

if TYPE_CHECKING:
    import pytest

    from tests.support.api_client import Api

ROOM = 64 * 1024 * 1024


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
