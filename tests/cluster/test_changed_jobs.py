"""Jobs that are changed, paused and deleted while what they owe is under way, driven through the use cases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from cluster.core.ids import execution_id
from cluster.usecases import executions, jobs
from tests.support.cranked_cluster import CONTEXT, EACH, Cluster
from tests.support.engine import T0, rows
from tests.support.job_changes import patch_job
from tests.support.verify_records import judged, kinds

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

MINUTELY = {**EACH, "schedule": "0 * * * * *", "retry": {"initialDelaySeconds": 5, "jitter": 0}}
DUE = T0 - T0 % 60_000 + 60_000
NAME = execution_id("a", DUE)


class Target:
    """Fails until it is told otherwise; counts the requests of one execution."""

    def __init__(self) -> None:
        self.status = 503
        self.came: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.came.append(request.headers["idempotency-key"])
        return httpx.Response(self.status)


async def failed_once(db: Database, body: dict[str, Any]) -> tuple[Cluster, Target]:
    """A minutely job whose first attempt just failed."""
    target = Target()
    cluster = await Cluster.begin(db, target)
    await cluster.put("a", body)
    while not target.came:
        await cluster.run(1)
    target.status = 200
    return cluster, target


async def record(db: Database, name: str = NAME) -> dict[str, Any] | None:
    found: dict[str, Any] | None = await db.api["history"].find_one({"_id": name})
    return found


async def findings(cluster: Cluster) -> dict[str, list[str]]:
    """What `horae verify` has to say."""
    return kinds(await judged(cluster.db, now=cluster.clock.now, since=T0 - 60_000, late_seconds=3.0))


CHANGES = [
    {"timezone": "Etc/UTC"},
    {"schedule": "0 */1 * * * ?"},
    {"schedule": "0 30 3 * * *"},
    {"timezone": "Asia/Kathmandu", "schedule": "0 0 3 * * *"},
    {"startAt": "2099-01-01T00:00:00Z"},
    {"endAt": "2099-01-01T00:00:00Z"},
]


@pytest.mark.parametrize("change", CHANGES)
async def test_what_came_due_before_a_change_keeps_its_retries(database: Database, change: dict[str, Any]) -> None:
    """Whether the change means the same or not."""
    cluster, target = await failed_once(database, MINUTELY)
    await patch_job(database, "a", change, CONTEXT, cluster.clock.now)
    await cluster.run(12)
    found = await record(database)
    assert found is not None
    assert (found["state"], [a["status"] for a in found["attempts"]]) == ("succeeded", [503, 200])
    assert target.came[:2] == [NAME, NAME]
    assert await findings(cluster) == {}


async def test_what_waits_for_its_spread_is_sent_after_a_change(database: Database) -> None:
    """It came due before the change, and its send time is behind it."""
    target = Target()
    target.status = 200
    cluster = await Cluster.begin(database, target)
    await cluster.put("spread-4", {**MINUTELY, "spreadSeconds": 30})
    (owed,) = [e for e in await wait_for_owed(cluster) if int(e["send_at"]) > int(e["due_at"]) + 2000]
    while cluster.clock.now < int(owed["due_at"]) + 1000:
        await cluster.run(1)
    assert target.came == []
    await patch_job(database, "spread-4", {"schedule": "0 0 3 * * *"}, CONTEXT, cluster.clock.now)
    await cluster.run(32)
    assert target.came == [owed["_id"]]


async def wait_for_owed(cluster: Cluster) -> list[dict[str, Any]]:
    while not (found := await rows(cluster.db, "executions")):
        await cluster.run(1)
    return found


async def test_a_pause_holds_back_retries_until_the_resume_and_cancels_what_falls_due_in_it(database: Database) -> None:
    """Nothing leaves in the pause; the retry goes on after it, with the attempt that was made."""
    cluster, target = await failed_once(database, {**EACH, "schedule": "*/20 * * * * *", "retry": MINUTELY["retry"]})
    (first,) = target.came
    await jobs.pause(database, "a", cluster.clock.now)
    await cluster.run(50)
    assert target.came == [first]
    assert await record(database, first) is None
    cancelled = [h for h in await rows(database, "history") if h["state"] == "cancelled"]
    assert {h["reason"] for h in cancelled} <= {"the job was paused before it was due"}
    assert await findings(cluster) == {}
    await jobs.resume(database, "a", cluster.clock.now)
    await cluster.run(22)
    assert target.came[1] == first
    found = await record(database, first)
    assert found is not None
    assert (found["state"], [a["status"] for a in found["attempts"]]) == ("succeeded", [503, 200])
    assert len(target.came) == 3
    assert await findings(cluster) == {}


@pytest.mark.parametrize("again", [False, True])
async def test_a_deletion_cancels_everything_although_the_job_is_created_again(database: Database, again: bool) -> None:
    """Retries too. The text does not say that it was not sent."""
    cluster, target = await failed_once(database, MINUTELY)
    await jobs.delete(database, "a", cluster.clock.now)
    if again:
        await cluster.put("a", {**MINUTELY, "schedule": "0 0 3 * * *"})
    await cluster.run(12)
    found = await record(database)
    assert found is not None
    assert (found["state"], found["reason"]) == ("cancelled", "the job was deleted")
    assert target.came == [NAME]
    assert await findings(cluster) == {}


async def test_a_cancelled_execution_is_sent_again_by_hand(database: Database) -> None:
    """It fell due in a pause. Asked for, it is sent once, and `verify` knows why."""
    target = Target()
    target.status = 200
    cluster = await Cluster.begin(database, target)
    await cluster.put("a", EACH)
    await cluster.run(3)
    await jobs.pause(database, "a", cluster.clock.now)
    await cluster.run(20)
    cancelled = [h["_id"] for h in await rows(database, "history") if h["state"] == "cancelled"]
    assert cancelled
    target.came.clear()
    await executions.replay(database, cancelled[0], cluster.clock.now, 7)
    await cluster.run(3)
    assert target.came == [cancelled[0]]
    found = await record(database, cancelled[0])
    assert found is not None
    assert found["state"] == "succeeded"
    assert await findings(cluster) == {}


@pytest.mark.parametrize("paused", ["since its creation", "later"])
async def test_a_deletion_in_a_pause_cancels_the_runs_that_were_asked_for_in_it(
    database: Database, paused: str
) -> None:
    """The job is created again under its id: it is not sent the retries of the one before."""
    target = Target()
    cluster = await Cluster.begin(database, target)
    rare = {**MINUTELY, "schedule": "0 0 3 1 1 *"}
    await cluster.put("a", {**rare, "state": "paused"} if paused == "since its creation" else rare)
    if paused == "later":
        await jobs.pause(database, "a", cluster.clock.now)
    await cluster.run(1)
    name = await executions.trigger(database, "a", cluster.clock.now)
    await cluster.run(1)
    assert target.came == [name]
    await jobs.delete(database, "a", cluster.clock.now)
    cluster.clock.now += 10
    await cluster.put("a", rare)
    target.status = 200
    await cluster.run(12)
    assert target.came == [name]
    found = await record(database, name)
    assert found is not None
    assert (found["state"], found["reason"]) == ("cancelled", "the job was deleted")
    by_hand = await executions.trigger(database, "a", cluster.clock.now)
    await cluster.run(1)
    assert target.came == [name, by_hand]
