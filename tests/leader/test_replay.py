"""Replays of many dead executions: exactly the matching ones, at a rate, behind work that is due, under any leader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from bson.datetime_ms import DatetimeMS

from cluster.core.errors import StoreUnavailable
from cluster.core.execution.batching import make_batch
from cluster.core.execution.model import Attempt, Ending, Execution
from cluster.core.ids import execution_id
from cluster.core.lifecycle import State
from cluster.store import batches, executions, history, replayable, replays
from cluster.store.enqueue import insert_owed
from cluster.store.replays import Replay, ReplayFilter
from tests.support.engine import T0, Crank, check_books, job_document, lead, noting, put_jobs, rows, worker
from tests.support.workers import ended as period
from tests.support.workers import owed, retries_now, run_dry

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

NOW = T0
BEFORE = 1_700_000_000_000


def ended(job: str, i: int, state: State, *, status: int | None = 503, error: str | None = None) -> Ending:
    due = BEFORE + i * 1000
    x = Execution(execution_id(job, due), job, due, due, "v1", "b", 0)
    attempts = (Attempt(1, due, "n", 1, 5.0, 500), Attempt(2, due + 100, "n", 2, 5.0, status, error))
    return Ending(x, state, due + 200, attempts, "used up", 3)


async def fill(db: Database) -> None:
    """Three jobs, one of them deleted, one tagged; dead, failed and succeeded ones of each."""
    await put_jobs(
        db,
        job_document("a", active_from=0, schedule_version="v9", tags=["t"]),
        job_document("b", active_from=0, schedule_version="v9", state="paused", host="other.example:443"),
        job_document("gone", active_from=0, state="deleted", tags=["t"]),
    )
    found: list[Ending] = []
    for job in ("a", "b", "gone"):
        found += [ended(job, i, State.DEAD) for i in range(10)]
        found += [ended(job, 10 + i, State.DEAD, status=None, error="timeout") for i in range(5)]
        found += [ended(job, 20 + i, State.FAILED, status=404) for i in range(5)]
        found += [ended(job, 30 + i, State.SUCCEEDED, status=200) for i in range(5)]
    await history.record(db, found, 3650)


FILTERS: list[tuple[dict[str, Any], int]] = [
    ({}, 40),
    ({"states": ("dead",)}, 30),
    ({"states": ("failed",)}, 10),
    ({"job_id": "a"}, 20),
    ({"job_id": "gone"}, 0),
    ({"tag": "t"}, 20),
    ({"tag": "none"}, 0),
    ({"error": "timeout"}, 10),
    ({"status": 503}, 20),
    ({"status": 404, "job_id": "b"}, 5),
    ({"status": 500}, 0),
    ({"since_ms": BEFORE + 10_000, "until_ms": BEFORE + 15_000}, 10),
    ({"tag": "t", "states": ("dead",), "error": "timeout"}, 5),
    ({"host": "other.example:443"}, 20),
    ({"host": "other.example"}, 20),
    ({"host": "other.example:80"}, 0),
    ({"host": "other.example", "tag": "t"}, 0),
]


@pytest.mark.parametrize(("which", "count"), FILTERS)
async def test_a_replay_sends_exactly_what_its_dry_run_counts(
    database: Database, which: dict[str, Any], count: int
) -> None:
    """A dry run's count and the executions that become owed are the same; nothing else is touched."""
    await fill(database)
    chosen = ReplayFilter(**which)
    assert await replayable.count(database, chosen, NOW) == count
    leader = await lead(database, Crank(NOW))
    await replays.insert(database, Replay("r", chosen, 1000.0, NOW, count))
    await leader.replayer.step(NOW)
    await leader.replayer.step(NOW + 5000)
    found = await rows(database, "executions")
    assert len(found) == count
    assert [r["done"] for r in await rows(database, "replays")] == [True]
    assert [r["sent"] for r in await rows(database, "replays")] == [count]
    assert all(b["late"] for b in await rows(database, "batches"))
    reopened = {h["_id"] for h in await rows(database, "history") if h["state"] == history.REOPENED}
    assert reopened == {e["_id"] for e in found}


async def test_a_replay_keeps_its_rate_and_leaves_room_for_late_work(database: Database) -> None:
    """Ten a second: ten, then none until a second has passed; and none while much late work is waiting."""
    await fill(database)
    leader = await lead(database, Crank(NOW))
    await replays.insert(database, Replay("r", ReplayFilter(), 10.0, NOW, 40))
    sent = [(await leader.replayer.step(NOW + ms)).executions for ms in (0, 250, 500, 999, 1000, 1250, 2000)]
    assert sent == [10, 0, 0, 0, 10, 0, 10]
    for i in range(40):
        await owed(database, f"late{i}", batch=f"l{i}")
    await database.api["batches"].update_many({}, {"$set": {"late": True}})
    assert (await leader.replayer.step(NOW + 9000)).executions == 0
    await database.api["batches"].delete_many({"_id": {"$regex": "^l"}})
    await database.api["batches"].update_many({}, {"$set": {"late": False}})
    assert (await leader.replayer.step(NOW + 9000)).executions == 10


async def test_a_slow_replay_does_not_hold_up_another(database: Database) -> None:
    """Each replay continues when its time has come; an execution of one replay is not sent again by the other."""
    await fill(database)
    leader = await lead(database, Crank(NOW))
    await replays.insert(database, Replay("slow", ReplayFilter(job_id="a"), 0.1, NOW, 20))
    await replays.insert(database, Replay("same", ReplayFilter(job_id="a", states=("dead",)), 5.0, NOW, 15))
    await replays.insert(database, Replay("fast", ReplayFilter(job_id="b"), 100.0, NOW + 1, 20))
    for ms in range(0, 9000, 250):
        await leader.replayer.step(NOW + ms)
    done = {r["_id"]: (r["done"], r["sent"]) for r in await rows(database, "replays")}
    assert done["fast"] == (True, 20)
    assert done["slow"] == (False, 1)
    assert done["same"][0]
    owed_now = [e["_id"] for e in await rows(database, "executions")]
    assert len(owed_now) == len(set(owed_now)) == 20 + 1 + done["same"][1]


async def test_an_execution_that_fails_again_is_replayed_once(database: Database) -> None:
    """Each is sent once more with new attempts; one that is dead again stays dead, with all attempts it ever had."""
    await fill(database)
    leader = await lead(database, Crank(NOW))
    now = (await lead_time(database)) + 1
    await replays.insert(database, Replay("r", ReplayFilter(job_id="a"), 1000.0, now, 20))
    arrivals: list[str] = []
    w = worker(database, noting(arrivals, "idempotency-key", 404))
    for second in range(4):
        await leader.replayer.step(now + second * 1000)
        await run_dry(w)
    assert len(arrivals) == len(set(arrivals)) == 20
    found = [h for h in await rows(database, "history") if h["job_id"] == "a" and h["state"] != "succeeded"]
    assert {(h["state"], len(h["attempts"])) for h in found} == {("failed", 3)}
    assert await rows(database, "executions") == []


async def lead_time(db: Database) -> int:
    hello = await db.api.client.admin.command("hello")
    return int(hello["localTime"].timestamp() * 1000)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(
    ("module", "name"),
    [(replays, "save"), (replayable, "reopen_page"), (executions, "insert"), (batches, "insert")],
    ids=["write", "reopen", "executions", "batches"],
)
async def test_a_replay_survives_a_leader_that_dies_at_any_write(
    database: Database, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, *, before: bool
) -> None:
    """The next leader finishes the page: each matching execution is sent exactly once more."""
    await fill(database)
    now = await lead_time(database)
    leader = await lead(database, Crank(now))
    await replays.insert(database, Replay("r", ReplayFilter(), 15.0, now, 40))
    real = getattr(module, name)

    async def dying(*args: Any, **kwargs: Any) -> Any:
        if not before:
            await real(*args, **kwargs)
        raise StoreUnavailable("the process ends here")

    with monkeypatch.context() as patch:
        patch.setattr(module, name, dying)
        with pytest.raises(StoreUnavailable):
            await leader.replayer.step(now)
    heir = await lead(database, Crank(now), "heir")
    arrivals: list[str] = []
    w = worker(database, noting(arrivals))
    for _ in range(6):
        await database.api["replays"].update_one({}, {"$set": {"next_at": DatetimeMS(0)}})
        await heir.replayer.step(now)
        await run_dry(w)
        await check_books(database)
    assert len(arrivals) == len(set(arrivals)) == 40
    states = {h["state"] for h in await rows(database, "history") if h["job_id"] != "gone"}
    assert states == {"succeeded"}
    assert [(r["done"], r["sent"]) for r in await rows(database, "replays")] == [(True, 40)]


async def test_executions_of_a_job_deleted_meanwhile_are_not_replayed(database: Database) -> None:
    """A job may be deleted between the count and the replay."""
    await fill(database)
    leader = await lead(database, Crank(NOW))
    await replays.insert(database, Replay("r", ReplayFilter(), 1000.0, NOW, 40))
    await database.api["jobs"].update_one({"_id": "b"}, {"$set": {"state": "deleted"}})
    await leader.replayer.step(NOW)
    assert {e["job_id"] for e in await rows(database, "executions")} == {"a"}


async def test_a_replay_whose_node_died_between_its_two_writes_is_sent(database: Database) -> None:
    """The record was reopened, but the execution was not owed yet: the leader owes it. A request that is younger, or an
    execution that is owed, is left alone; without a job it ends with a reason."""
    await put_jobs(database, *(job_document(j, active_from=0, schedule_version="v9") for j in ("old", "young", "owed")))
    await history.record(database, [ended(j, 0, State.DEAD) for j in ("old", "young", "owed", "jobless")], 3650)
    ids = {j: execution_id(j, BEFORE) for j in ("old", "young", "owed", "jobless")}
    for j, asked_ms in (
        ("old", NOW - 70_000),
        ("young", NOW - 5000),
        ("owed", NOW - 70_000),
        ("jobless", NOW - 70_000),
    ):
        assert await history.reopen(database, ids[j], asked_ms, 7)
    x = Execution(ids["owed"], "owed", BEFORE, BEFORE, "v9", "own", 0, trigger=True)
    await insert_owed(database, [x], [make_batch([x])], lambda: "new")
    leader = await lead(database, Crank(NOW))
    await leader.replayer.step(NOW)
    assert {e["_id"]: e["batch"] == "own" for e in await rows(database, "executions")} == {
        ids["old"]: False,
        ids["owed"]: True,
    }
    assert {e["batch"] for e in await rows(database, "executions")} == {
        b["_id"] for b in await rows(database, "batches")
    }
    records = {h["job_id"]: h for h in await rows(database, "history")}
    assert (records["young"]["state"], records["jobless"]["state"]) == ("reopened", "dead")
    assert records["jobless"]["reason"] == "its job was deleted before it was sent again"
    await retries_now(database)
    await run_dry(worker(database, noting([])))
    after = {h["job_id"]: h["state"] for h in await rows(database, "history")}
    assert (after["old"], after["owed"]) == ("succeeded", "succeeded")
    assert await leader.replayer.repair(NOW) == 0


@pytest.mark.parametrize("way", ["page", "repair"])
@pytest.mark.parametrize("paused_ms", [NOW + 10, NOW - 10], ids=["paused since", "paused before"])
async def test_what_was_asked_for_before_a_pause_waits_although_it_is_owed_in_it(
    database: Database, way: str, paused_ms: int
) -> None:
    """A replay of many goes page by page, and a request that died is repaired a minute later: the request counts. One
    that was made in the pause is sent."""
    paused: dict[str, Any] = {"state": "paused", "past": period(paused_ms, "pause", "v9")}
    await put_jobs(database, job_document("a", active_from=0, schedule_version="v9", **paused))
    await history.record(database, [ended("a", 0, State.DEAD)], 3650)
    leader = await lead(database, Crank(NOW + 70_000))
    if way == "page":
        await replays.insert(database, Replay("r", ReplayFilter(), 1000.0, NOW, 1))
    else:
        assert await history.reopen(database, execution_id("a", BEFORE), NOW, 7)
    await leader.replayer.step(NOW + 70_000)
    await retries_now(database)
    sent: list[str] = []
    await run_dry(worker(database, noting(sent)))
    assert bool(sent) is (paused_ms < NOW)
    assert bool(await rows(database, "executions")) is (paused_ms > NOW)


@pytest.mark.parametrize("way", ["page", "repair"])
async def test_a_job_that_was_created_again_is_not_sent_what_was_asked_of_the_one_before(
    database: Database, way: str
) -> None:
    """It has the same id, and nothing else of it."""
    await put_jobs(database, job_document("a", active_from=0, created_at=DatetimeMS(NOW + 10)))
    await history.record(database, [ended("a", 0, State.DEAD)], 3650)
    leader = await lead(database, Crank(NOW + 70_000))
    if way == "page":
        await replays.insert(database, Replay("r", ReplayFilter(), 1000.0, NOW, 1))
    else:
        assert await history.reopen(database, execution_id("a", BEFORE), NOW, 7)
    await leader.replayer.step(NOW + 70_000)
    assert await rows(database, "executions") == []
    assert [h["state"] for h in await rows(database, "history")] == ["dead"]
