"""Pauses that end by themselves: the leader resumes, once, as of the end; driven through the use cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from cluster.core.documents.job_json import read_job
from cluster.core.ids import execution_id
from cluster.core.job.changes import end_pause
from cluster.core.job.definition import WantedPause
from cluster.store import pauses
from cluster.usecases import jobs
from tests.support.cranked_cluster import CONTEXT, EACH, Cluster
from tests.support.engine import T0, lead, settle_all
from tests.support.verify_records import judged, kinds

if TYPE_CHECKING:
    from typing import Any

    from cluster.store.mongo.client import Database


async def sent(db: Database) -> list[int]:
    """The due times (s after T0) of what succeeded."""
    found = await db.api["history"].find({"state": "succeeded"}).to_list()
    return sorted((int(d["due_at"]) - T0) // 1000 for d in found)


async def stored(db: Database) -> dict[str, Any]:
    found: dict[str, Any] | None = await db.api["jobs"].find_one({"_id": "a"})
    assert found is not None
    return found


async def paused_at_5(db: Database, until: int, **fields: Any) -> Cluster:
    """A job of every second, paused 5.5 s after T0 until so many seconds after T0."""
    cluster = await Cluster.begin(db)
    await cluster.put("a", {**EACH, **fields})
    await cluster.run(5)
    cluster.clock.now = T0 + 5_500
    await jobs.pause(db, "a", cluster.clock.now, wanted=WantedPause(T0 + until * 1000, "maintenance"))
    return cluster


async def clean(cluster: Cluster, late_seconds: float = 3.0) -> None:
    report = await judged(cluster.db, now=cluster.clock.now, since=T0 - 60_000, late_seconds=late_seconds)
    assert not kinds(report)


async def test_a_pause_ends_by_itself_and_what_is_due_from_its_end_on_is_sent(database: Database) -> None:
    """Nothing that fell due in the pause is sent; the occurrence on the end itself is."""
    cluster = await paused_at_5(database, until=12)
    await cluster.run(12)
    assert await sent(database) == [*range(1, 6), *range(12, 18)]
    job = await stored(database)
    assert (job["state"], job["revision"], job["pause"], int(job["active_from"])) == ("active", 3, None, T0 + 12_000)
    await clean(cluster)


async def test_a_pause_that_ended_without_a_leader_ends_as_of_its_end(database: Database) -> None:
    """The next leader sends what fell due since then, and nothing of the pause."""
    cluster = await paused_at_5(database, until=12)
    cluster.clock.now = T0 + 40_500
    cluster.leader = await lead(database, cluster.clock, "b")
    await cluster.run(3)
    assert await sent(database) == [*range(1, 6), *range(12, 44)]
    await clean(cluster, late_seconds=60.0)


async def test_two_leaders_resume_a_job_once(database: Database) -> None:
    """A leader that has lost its term and the next one: one of the two writes is on the revision that was read."""
    cluster = await paused_at_5(database, until=12)
    cluster.clock.now = T0 + 12_000
    [read] = await pauses.over(database, cluster.clock.now, 10)
    ends = [end_pause(read, jobs.new_stamp(cluster.clock.now)) for _ in range(2)]
    assert [await pauses.end(database, [end]) for end in ends if end is not None] == [1, 0]
    assert (await stored(database))["revision"] == 3
    assert (await cluster.leader.pause_ender.step(cluster.clock.now)).jobs == 0


@pytest.mark.parametrize("what", ["resume", "put", "patch_active"])
async def test_a_resume_or_a_definition_before_the_end_clears_it(database: Database, what: str) -> None:
    """Then nothing happens at the end any more. A definition without an end leaves the job paused."""
    cluster = await paused_at_5(database, until=12)
    if what == "resume":
        await jobs.resume(database, "a", cluster.clock.now)
    else:
        state = {} if what == "put" else {"state": "active"}
        await cluster.put("a", {**EACH, **state})
    before = await stored(database)
    assert (before["pause"], before["state"]) == (None, "paused" if what == "put" else "active")
    await cluster.run(12)
    assert (await stored(database))["revision"] == before["revision"]


async def test_what_came_due_before_such_a_pause_goes_on_at_its_end(database: Database) -> None:
    """As after a resume by hand: a retry waits for the end of the pause, and is sent then."""
    status = 503
    came: list[str] = []

    def target(request: httpx.Request) -> httpx.Response:
        came.append(request.headers["idempotency-key"])
        return httpx.Response(status)

    cluster = await Cluster.begin(database, target)
    due = T0 - T0 % 60_000 + 60_000
    await cluster.put("a", {**EACH, "schedule": "0 * * * * *", "retry": {"initialDelaySeconds": 5, "jitter": 0}})
    while not came:
        await cluster.run(1)
    status = 200
    await jobs.pause(database, "a", cluster.clock.now, wanted=WantedPause(cluster.clock.now + 20_000))
    await cluster.run(19)
    assert len(came) == 1
    await cluster.run(10)
    assert came == [execution_id("a", due)] * 2
    await clean(cluster)


async def test_a_change_after_the_end_leaves_what_was_owed_since_then(database: Database) -> None:
    """No leader was there: the change first ends the pause, so that the old schedule owes what fell due until the change."""
    cluster = await paused_at_5(database, until=40)
    cluster.clock.now = T0 + 50_500
    wanted = read_job({**EACH, "schedule": "*/10 * * * * *"}, CONTEXT)
    await jobs.put(database, "a", wanted, cluster.clock.now)
    cluster.leader = await lead(database, cluster.clock, "b")
    await settle_all(cluster.leader, cluster.clock)
    await cluster.run(25)
    history = await database.api["history"].find({"state": {"$in": ["succeeded", "missed"]}}).to_list()
    covered = {
        s
        for d in history
        for s in range((int(d["due_at"]) - T0) // 1000, (int(d.get("last_at") or d["due_at"]) - T0) // 1000 + 1)
    }
    assert covered == {*range(1, 6), *range(40, 51), 60, 70}
    await clean(cluster)


async def test_a_one_off_job_whose_time_passed_in_the_pause_is_completed(database: Database) -> None:
    """It cannot run any more, so the end of its pause ends it."""
    cluster = await Cluster.begin(database)
    await cluster.put("a", {**EACH, "schedule": "@at 2030-03-17T17:47:10Z"})
    assert T0 == 1_900_000_020_000
    await jobs.pause(database, "a", cluster.clock.now, wanted=WantedPause(T0 + 30_000))
    cluster.clock.now = T0 + 31_000
    await settle_all(cluster.leader, cluster.clock)
    cluster.clock.now = T0 + 33_000
    await cluster.leader.completer.step(cluster.clock.now_ms())
    assert ((await stored(database))["state"], await sent(database)) == ("completed", [])


async def test_a_pause_of_a_node_of_the_release_before_has_no_end(database: Database) -> None:
    """That node resumed and paused the job and left the terms of an earlier pause in the document: they do not count."""
    cluster = await paused_at_5(database, until=12)
    await database.api["jobs"].update_one(
        {"_id": "a"}, {"$set": {"schedule_version": "other"}, "$inc": {"revision": 2}}
    )
    cluster.clock.now = T0 + 30_000
    assert (await cluster.leader.pause_ender.step(cluster.clock.now)).jobs == 0
    assert (await stored(database))["state"] == "paused"
