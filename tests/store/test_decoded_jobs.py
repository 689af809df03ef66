"""Jobs that a process has decoded before are used again only while their documents are as they were."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cluster.core.lifecycle import JobState
from cluster.store import engine_jobs
from cluster.store.mongo.decoded_jobs import KEPT, MAX_BODY_BYTES, DecodedJobs
from tests.support.engine import job_document, put_jobs

if TYPE_CHECKING:
    from cluster.core.execution.model import Job
    from cluster.store.mongo.client import Database


STAMP = (1, "v", "active", None, False)


async def read(db: Database, *ids: str) -> dict[str, Job]:
    return (await engine_jobs.by_id(db, set(ids))).jobs


async def change(db: Database, job_id: str, **fields: Any) -> None:
    """As every change of a job: with the next revision."""
    await db.api["jobs"].update_one({"_id": job_id}, {"$set": fields, "$inc": {"revision": 1}})


async def test_a_job_that_has_not_changed_is_decoded_once(database: Database) -> None:
    await put_jobs(database, job_document("a"), job_document("b"))
    first, second = await read(database, "a", "b"), await read(database, "b", "a")
    assert first == second
    assert all(first[i] is second[i] for i in "ab")


@pytest.mark.parametrize(
    "fields",
    [{"state": "paused"}, {"url": "http://elsewhere.example/"}, {"timeout_seconds": 7.0}, {"schedule_version": "v9"}],
)
async def test_a_changed_job_is_as_it_is_now(database: Database, fields: dict[str, Any]) -> None:
    await put_jobs(database, job_document("a"), job_document("b"))
    before = await read(database, "a", "b")
    await change(database, "a", **fields)
    after = await read(database, "a", "b")
    assert after["a"] != before["a"]
    assert after["b"] is before["b"]
    assert (await read(database, "a"))["a"] == after["a"]


async def test_a_deleted_job_is_absent_or_deleted(database: Database) -> None:
    await put_jobs(database, job_document("a"))
    assert (await read(database, "a"))["a"].state is JobState.ACTIVE
    await change(database, "a", state="deleted")
    assert (await read(database, "a"))["a"].state is JobState.DELETED
    await database.api["jobs"].delete_one({"_id": "a"})
    assert await read(database, "a") == {}


async def test_a_job_that_was_created_again_under_its_id_is_the_new_one(database: Database) -> None:
    """Its first revision has the same number as that of the one before."""
    await put_jobs(database, job_document("a", schedule_version="old", url="http://old.example/"))
    await read(database, "a")
    await database.api["jobs"].delete_one({"_id": "a"})
    await put_jobs(database, job_document("a", schedule_version="new", url="http://new.example/"))
    assert (await read(database, "a"))["a"].target.url == "http://new.example/"


async def test_a_document_that_cannot_be_read_any_more_is_reported(database: Database) -> None:
    await put_jobs(database, job_document("a"), job_document("b"))
    await read(database, "a", "b")
    await change(database, "a", retry="damaged")
    found = await engine_jobs.by_id(database, {"a", "b"})
    assert found.jobs.keys() == {"b"}
    assert found.unreadable.keys() == {"a"}


async def test_a_job_with_a_long_body_is_not_kept(database: Database) -> None:
    await put_jobs(database, job_document("a", body=b"x" * (MAX_BODY_BYTES + 1)), job_document("b", body=b"x"))
    await read(database, "a", "b")
    assert ("a" in database.decoded_jobs, "b" in database.decoded_jobs) == (False, True)


async def test_the_least_recently_used_are_forgotten(database: Database) -> None:
    await put_jobs(database, job_document("a"))
    job = (await read(database, "a"))["a"]
    kept = DecodedJobs()
    kept.keep(job, STAMP)
    for n in range(KEPT):
        kept.keep(replace(job, id=f"j{n}"), STAMP)
        assert kept.get("a", STAMP) is job, "it was used a moment ago"
    assert "j0" not in kept
    assert kept.get("a", (2, "v", "active", None, False)) is None
