"""A list shows each job as it is, although jobs that were listed before are neither read nor rendered again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson
import pytest
from bson.datetime_ms import DatetimeMS

from api.resources import job_list
from cluster.core.instants import format_instant
from cluster.store import engine_jobs
from tests.support.api_client import serve, walk
from tests.support.engine import lead, settle_all
from tests.support.job_pages import ROOM

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cluster.store.mongo.client import Database
    from tests.support.api_client import Api

SORTS = ("-createdAt", "name", "lastRunAt", "nextRunAt", "-nextRunAt")


async def listed(api: Api, query: str = "") -> dict[str, Any]:
    answer = await api.call("GET", f"/jobs?limit=500&{query}")
    assert answer.status_code == 200, answer.text
    return {j["jobId"]: j for j in answer.json["items"]}


async def documents_read(api: Api, query: str) -> int:
    """How many whole documents of jobs a list reads, by MongoDB's profiler."""
    await api.db.api.create_collection("system.profile", capped=True, size=ROOM)
    await api.db.api.command("profile", 2)
    await listed(api, query)
    await api.db.api.command("profile", 0)
    whole = {"ns": f"{api.db.api.name}.jobs", "command.projection.past": 0}
    seen = await api.db.api["system.profile"].find(whole).to_list()
    await api.db.api["system.profile"].drop()
    return sum(d["nreturned"] for d in seen)


@pytest.mark.parametrize("sort", SORTS)
async def test_only_what_changed_is_read_again(api: Api, sort: str) -> None:
    """One of twelve jobs: the other eleven are the same bytes as before."""
    for n in range(12):
        await api.make(jobId=f"j{n}", name=f"n{n}", body={"number": n})
    assert await documents_read(api, f"sort={sort}") == 12
    before = await listed(api, f"sort={sort}")
    assert await documents_read(api, f"sort={sort}") == 0
    await api.call("PATCH", "/jobs/j7", {"description": "changed"})
    assert await documents_read(api, f"sort={sort}") == 1
    after = await listed(api, f"sort={sort}")
    assert after["j7"]["description"] == "changed"
    assert {i: j for i, j in after.items() if i != "j7"} == {i: j for i, j in before.items() if i != "j7"}


async def test_each_kind_of_change_shows_in_the_next_list(api: Api) -> None:
    """By the API, and a job of the same id that is another one."""
    await api.make(jobId="a", schedule="0 0 5 1 1 *")
    await api.make(jobId="once", schedule="@at 2100-01-01T00:00:00Z")
    full = ("state", "revision", "description", "pausedUntil", "pauseReason", "createdAt", "updatedAt", "tags", "api")

    async def shows_what_the_job_says() -> dict[str, Any]:
        own = {i: (await api.call("GET", f"/jobs/{i}")).json for i in ("a", "once")}
        of_list = await listed(api)
        for i, job in own.items():
            assert {n: of_list[i][n] for n in full} == {n: job[n] for n in full}
        return of_list

    await shows_what_the_job_says()
    until = format_instant(api.clock.now_ms() + 3_600_000)
    for method, path, body in (
        ("POST", "/jobs/a/pause", {"reason": "works", "until": until}),
        ("POST", "/jobs/a/resume", None),
        ("PATCH", "/jobs/a", {"tags": ["x"], "api": "http://127.0.0.1:2/"}),
        ("POST", "/jobs/a/revisions/1/revert", None),
    ):
        answer = await api.call(method, path, body)
        assert answer.status_code == 200, answer.text
        await shows_what_the_job_says()
    await api.call("DELETE", "/jobs/a")
    assert set(await listed(api)) == {"once"}
    await api.make(jobId="a", description="another one", schedule="0 0 5 1 1 *")
    assert (await shows_what_the_job_says())["a"]["description"] == "another one"
    await api.call("DELETE", "/jobs/a")
    await api.db.api["jobs"].delete_one({"_id": "a"})  # its tombstone: the next one begins with revision 1
    await api.make(jobId="a", description="a third one", schedule="0 0 5 1 1 *")
    assert (await shows_what_the_job_says())["a"]["description"] == "a third one"


async def test_what_the_leader_changes_shows_in_the_next_list(api: Api) -> None:
    """A pause that ends, and a job that is over: both count the revision up."""
    now_ms = api.clock.now_ms()
    await api.make(jobId="paused", schedule="0 0 5 1 1 *")
    await api.call("POST", "/jobs/paused/pause", {"until": format_instant(now_ms + 1000)})
    await api.make(jobId="once", schedule=f"@at {format_instant(now_ms + 2000)}")
    leader = await lead(api.db, api.clock)
    await settle_all(leader, api.clock)  # type: ignore[arg-type]
    before = await listed(api)
    assert {i: j["state"] for i, j in before.items()} == {"paused": "paused", "once": "active"}
    api.clock.now_ms = lambda: now_ms + 60_000  # type: ignore[method-assign]
    assert (await leader.pause_ender.step(now_ms + 60_000)).jobs == 1
    await engine_jobs.mark_settled(api.db, [d async for d in _changes(api)])
    assert await engine_jobs.complete_ended(api.db, now_ms + 60_000, 10) == 1
    after = await listed(api)
    assert {i: j["state"] for i, j in after.items()} == {"paused": "active", "once": "completed"}
    assert after["paused"]["pausedUntil"] is None
    for i, j in after.items():
        assert j["revision"] == before[i]["revision"] + 1


async def _changes(api: Api) -> AsyncIterator[str]:
    async for d in api.db.api["jobs"].find({"unsettled": {"$exists": True}}, {"unsettled": 1}):
        yield d["unsettled"]


async def test_a_change_by_one_process_shows_in_the_list_of_another(api: Api) -> None:
    """Each keeps what it has listed, and none tells the others."""
    await api.make(jobId="a")
    async for other in serve(api.db):
        assert (await listed(other))["a"]["description"] is (await listed(api))["a"]["description"] is None
        await api.call("PATCH", "/jobs/a", {"description": "changed"})
        assert (await listed(other))["a"]["description"] == "changed"
        await other.call("DELETE", "/jobs/a")
        assert await listed(api) == {}


async def test_results_show_without_a_new_revision(api: Api) -> None:
    """The last run and what it came to are written into a job that otherwise stays as it is."""
    await api.make(jobId="a")
    assert (await listed(api))["a"]["failing"] is False
    await api.db.api["jobs"].update_one(
        {"_id": "a"}, {"$set": {"failing": True, "last_state": "dead", "last_run_at": DatetimeMS(1_800_000_000_000)}}
    )
    assert await documents_read(api, "") == 0
    shown = (await listed(api))["a"]
    assert (shown["failing"], shown["lastState"], shown["lastRunAt"]) == (True, "dead", "2027-01-15T08:00:00.000Z")


async def test_an_unreadable_job_is_named_each_time(api: Api) -> None:
    """Also one that was listed before, once it is changed."""
    await api.make(jobId="a")
    await api.make(jobId="b")
    await listed(api)
    await api.db.api["jobs"].update_one({"_id": "a"}, {"$unset": {"schedule": ""}, "$inc": {"revision": 1}})
    for _ in range(2):
        page = (await api.call("GET", "/jobs")).json
        assert [j["jobId"] for j in page["items"]] == ["b"]
        assert [u["jobId"] for u in page["unreadable"]] == ["a"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            ("schedule_key", value)
            for value in (None, 5, ["x"], {"a": 1}, "every|0|0", "cal|skip~No/Zone~~~~|cron|0 0 5 * * *|UTC")
        ),
        ("schedule_key", ["cron|2 0 5 1 1 *|UTC"]),
        *(("updated_at", value) for value in (None, float("inf"), "soon", [1])),
        ("revision", None),
        ("schedule_version", None),
        ("active_from", None),
    ],
)
async def test_a_corrupt_document_hides_no_other_in_any_order(api: Api, field: str, value: Any) -> None:
    """Whether it was listed before or not."""
    for n in range(4):
        await api.make(jobId=f"j{n}", name=f"n{n}", tags=["x"], schedule=f"{n} 0 5 1 1 *")
    moved = api.clock.now_ms() + 5000
    api.clock.now_ms = lambda: moved  # type: ignore[method-assign]
    orders = [f"sort={sort}&{filters}" for sort in SORTS for filters in ("", "tag=x")]
    before = quote(format_instant(moved + 370 * 86_400_000))
    orders += [f"tag=x&sort={sort}&nextRunBefore={before}" for sort in SORTS]
    for order in orders:
        assert set(await listed(api, order)) == {"j0", "j1", "j2", "j3"}
    await api.db.api["jobs"].update_one({"_id": "j2"}, {"$set": {field: value}})
    async for fresh in serve(api.db):  # a process that has listed nothing
        fresh.clock.now_ms = api.clock.now_ms  # type: ignore[method-assign]
        for lister in (api, fresh):
            for order in orders:
                assert {"j0", "j1", "j3"} <= set(await listed(lister, order)), order


async def test_lists_at_once_with_little_room_hold_every_job(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one of them reads its documents, another one makes what was kept be forgotten."""
    kept = job_list.RenderedJobs(most_bytes=10_000)
    monkeypatch.setattr(job_list, "RenderedJobs", lambda: kept)
    async for api in serve(database):
        await _list_at_once(api)
    assert 0 < kept._bytes == sum(len(rendered) for _, rendered in kept._kept.values()) <= 10_000


async def _list_at_once(api: Api) -> None:
    lines = b"\n".join(
        orjson.dumps({"jobId": f"j{n:02}", "name": f"n{n:02}", "schedule": "@daily", "api": "http://127.0.0.1:1/"})
        for n in range(40)
    )
    await api.call("POST", "/jobs/import", lines, Content_Type="application/x-ndjson")
    names = [f"j{n:02}" for n in range(40)]
    for _ in range(5):
        for found in await asyncio.gather(*(walk(api, f"limit={size}&sort=name") for size in (3, 7, 40, 5))):
            assert found == names


async def test_a_large_body_is_not_kept(api: Api) -> None:
    """Else a page of them would fill the memory that is for thousands of others."""
    await api.make(jobId="large", body="x" * job_list.LARGEST_KEPT)
    await api.make(jobId="small")
    await listed(api)
    assert await documents_read(api, "") == 1
    assert (await listed(api))["large"]["body"] == "x" * job_list.LARGEST_KEPT
