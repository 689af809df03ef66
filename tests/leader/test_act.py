"""Actions on many jobs: each job once, whoever dies at which write, and nothing that was done to a job since is undone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from bson.datetime_ms import DatetimeMS

from cluster.core.errors import TermLost
from cluster.core.execution.model import Ending
from cluster.core.lifecycle import State
from cluster.store import actions, executions, history, jobs
from cluster.store.actions import Action
from cluster.store.queries.action_targets import filter_document
from cluster.store.queries.job_filter import JobFilter, JobListQuery
from cluster.usecases import actions as use
from cluster.usecases import jobs as use_jobs
from cluster.usecases.executions import trigger
from tests.support.actions import act_until_done
from tests.support.api_client import RULES
from tests.support.engine import T0, Crank, check_books, job_document, lead, noting, put_jobs, rows, worker
from tests.support.leaders import Crashed, crash_after
from tests.support.workers import run_dry

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

NOW = T0 + 7
"""No whole second."""
VISIBLE = ("active", "paused", "completed")
JOBS = [f"j{i:02d}" for i in range(30)]


async def fill(db: Database, **fields: Any) -> None:
    await put_jobs(db, *(job_document(j, tags=["t"], active_from=T0 - 1000, **fields) for j in JOBS))
    await put_jobs(db, job_document("other", active_from=T0 - 1000))


async def begin(db: Database, kind: str, *, at_ms: int = NOW, rate: float = 10, name: str = "x", **more: Any) -> Action:
    where = JobFilter(more.pop("states", VISIBLE), tags=("t",))
    asked = Action(name, kind, filter_document(where, {"tag": "t"}), rate, at_ms, 0, "", **more)
    return await use.start(db, asked, JobListQuery(where, 10, at_ms, 15_000))


async def progress(db: Database, name: str = "x") -> tuple[str, int, int, int]:
    a = await actions.get(db, name)
    assert a is not None
    return a.state, a.done, a.left_out, a.failed


async def sent_now(db: Database, clock: Crank) -> list[str]:
    """The executions that a worker sends once everything is due."""
    sent: list[str] = []
    clock.now += 1000
    await db.api["batches"].update_many({}, {"$set": {"claimable_at": DatetimeMS(0)}})
    await run_dry(worker(db, noting(sent), clock=clock))
    return sent


async def states(db: Database) -> set[str]:
    return {d["state"] for d in await rows(db, "jobs") if d["_id"] != "other"}


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [("pause", "active", "paused"), ("resume", "paused", "active"), ("delete", "active", "deleted")],
)
async def test_each_job_gets_the_change_that_a_request_would_make(
    database: Database, kind: str, before: str, after: str
) -> None:
    """One revision a job, with the period that ends and the change that the leader settles; others stay as they are."""
    await fill(database, state=before)
    await begin(database, kind)
    leader = await lead(database, Crank(NOW))
    assert await act_until_done(leader) == len(JOBS)
    assert await progress(database) == ("done", len(JOBS), 0, 0)
    for d in await rows(database, "jobs"):
        if d["_id"] == "other":
            assert (d["state"], d["revision"]) == ("active", 1)
        else:
            assert (d["state"], d["revision"]) == (after, 2)
            assert "unsettled" in d
            assert [p["ended_by"] for p in d["past"]] == ([] if kind == "resume" else [kind])
    assert await rows(database, "action_jobs") == []


async def test_an_action_keeps_its_rate(database: Database) -> None:
    """Ten a second: a page of ten, then nothing until a second has passed."""
    await fill(database)
    await begin(database, "pause", rate=10)
    clock = Crank(NOW)
    leader = await lead(database, clock)
    done = []
    for ms in (0, 250, 999, 1000, 1500, 2100):
        clock.now = NOW + ms
        done.append((await leader.job_actions.step()).jobs)
    assert done == [10, 0, 0, 10, 0, 10]


WRITES = [
    *[("pause", "actions", "save", n) for n in (1, 5)],
    ("pause", "actions", "save_page", 1),
    *[("pause", "jobs", "update_many", n) for n in (1, 3)],
    ("resume", "jobs", "update_many", 2),
    ("pause", "actions", "delete_pages", 1),
    ("delete", "jobs", "update_many", 2),
    ("patch", "jobs", "update_many", 2),
    ("trigger", "actions", "save", 1),
    ("trigger", "actions", "save_page", 1),
    ("trigger", "executions", "insert", 2),
    ("trigger", "batches", "insert", 2),
]


@pytest.mark.parametrize(("kind", "module", "name", "nth"), WRITES)
async def test_a_leader_that_dies_at_any_write_leaves_nothing_to_do_twice(
    database: Database, monkeypatch: pytest.MonkeyPatch, kind: str, module: str, name: str, nth: int
) -> None:
    """Its successor goes on: each job is changed once, each run is sent once, and the counts are those of one pass."""
    await fill(database, state="paused" if kind == "resume" else "active")
    await begin(database, kind, patch='{"description":"new"}' if kind == "patch" else None)
    clock = Crank(NOW)
    first = await lead(database, clock, document_limits=RULES)
    with monkeypatch.context() as patch:
        calls = crash_after(patch, module, name, nth)
        with pytest.raises(Crashed):
            await act_until_done(first)
        assert calls == [nth]
    clock.now += 5000
    await act_until_done(await lead(database, clock, "b", document_limits=RULES))
    assert await progress(database) == ("done", len(JOBS), 0, 0)
    documents = [d for d in await rows(database, "jobs") if d["_id"] != "other"]
    if kind == "trigger":
        assert {d["revision"] for d in documents} == {1}
        sent = await sent_now(database, clock)
        assert sorted(i.partition(":")[0] for i in sent) == JOBS
        assert len(await rows(database, "history")) == len(JOBS)
    else:
        assert {d["revision"] for d in documents} == {2}
    await check_books(database)


async def test_what_was_done_to_a_job_since_is_not_undone_by_a_page_that_is_done_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader dies after it has paused a page; a user resumes one of these jobs; the successor does not pause it again."""
    await fill(database)
    await begin(database, "pause")
    clock = Crank(NOW)
    with monkeypatch.context() as patch:
        crash_after(patch, "jobs", "update_many", 1)
        with pytest.raises(Crashed):
            await act_until_done(await lead(database, clock))
    paused = sorted(d["_id"] for d in await rows(database, "jobs") if d["state"] == "paused")
    await use_jobs.resume(database, paused[0], NOW + 100)
    await act_until_done(await lead(database, clock, "b"))
    assert await progress(database) == ("done", len(JOBS), 0, 0)
    assert {d["_id"] for d in await rows(database, "jobs") if d["state"] == "active"} == {paused[0], "other"}


async def test_what_comes_after_the_request_is_not_touched(database: Database) -> None:
    """A job that is created, or gets the tag, after the request stays as it is; one that loses the tag is left out."""
    await fill(database)
    await begin(database, "pause")
    await put_jobs(database, job_document("new", tags=["t"], active_from=NOW + 1))
    await database.api["jobs"].update_one({"_id": "other"}, {"$set": {"tags": ["t"]}})
    await database.api["jobs"].update_one({"_id": "j05"}, {"$set": {"tags": []}})
    await database.api["jobs"].update_one(  # deleted, and created again under its id
        {"_id": "j06"}, {"$set": {"created_at": DatetimeMS(NOW + 5)}}
    )
    await act_until_done(await lead(database, Crank(NOW)))
    assert await progress(database) == ("done", len(JOBS) - 2, 2, 0)
    active = {d["_id"] for d in await rows(database, "jobs") if d["state"] == "active"}
    assert active == {"new", "other", "j05", "j06"}


async def test_a_stopped_action_changes_nothing_more(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that a leader is in the middle of is ended and counted; the next one is not begun."""
    await fill(database)
    await begin(database, "pause")
    leader = await lead(database, Crank(NOW))
    await leader.job_actions.step()
    real = jobs.update_many

    async def stopping(db: Database, decided: Any, **more: Any) -> bool:
        await use.stop(db, "x", NOW)
        return await real(db, decided, **more)

    monkeypatch.setattr(jobs, "update_many", stopping)
    leader.job_actions._context.clock.now += 1000  # type: ignore[attr-defined]
    await leader.job_actions.step()
    assert await act_until_done(leader) == 0
    assert await progress(database) == ("stopped", 20, 0, 0)
    assert len([d for d in await rows(database, "jobs") if d["state"] == "paused"]) == 20


async def test_a_job_that_others_change_all_the_time_is_decided_on_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that comes between reading and writing is kept, and the action's comes after it."""
    await fill(database)
    await begin(database, "pause", rate=100)
    real, met = jobs.update_many, [0]

    async def raced(db: Database, decided: Any, **more: Any) -> bool:
        met[0] += 1
        if met[0] == 1:
            await db.api["jobs"].update_one({"_id": "j03"}, {"$inc": {"revision": 1}, "$set": {"description": "mine"}})
        return await real(db, decided, **more)

    monkeypatch.setattr(jobs, "update_many", raced)
    await act_until_done(await lead(database, Crank(NOW)))
    assert await progress(database) == ("done", len(JOBS), 0, 0)
    changed = await database.api["jobs"].find_one({"_id": "j03"})
    assert changed is not None
    assert (changed["description"], changed["state"], changed["revision"]) == ("mine", "paused", 3)


async def test_a_leader_that_has_lost_its_term_writes_nothing(database: Database) -> None:
    """It asks before each write."""
    await fill(database)
    await begin(database, "pause")
    leader = await lead(database, Crank(NOW))

    def lost() -> Any:
        raise TermLost("gone")

    object.__setattr__(leader.job_actions._context, "trusted_term", lost)
    with pytest.raises(TermLost):
        await leader.job_actions.step()
    assert await states(database) == {"active"}
    assert await progress(database) == ("running", 0, 0, 0)


async def test_a_stale_leader_undoes_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen before it writes a page, thawed after its successor is done and users have resumed all jobs."""
    await fill(database)
    await begin(database, "pause", rate=100)
    clock = Crank(NOW)
    stale = await lead(database, clock)
    frozen, thaw = asyncio.Event(), asyncio.Event()
    real = jobs.update_many

    async def freezing(db: Database, decided: Any, **more: Any) -> bool:
        if not frozen.is_set():
            frozen.set()
            await thaw.wait()
        return await real(db, decided, **more)

    monkeypatch.setattr(jobs, "update_many", freezing)
    running = asyncio.create_task(stale.job_actions.step())
    await frozen.wait()
    await act_until_done(await lead(database, clock, "b"))
    for j in JOBS:
        await use_jobs.resume(database, j, NOW + 1000)

    def lost() -> Any:
        raise TermLost("gone")

    object.__setattr__(stale.job_actions._context, "trusted_term", lost)
    thaw.set()
    with pytest.raises(TermLost):
        await running
    assert await states(database) == {"active"}
    assert await progress(database) == ("done", len(JOBS), 0, 0)


async def test_a_stale_leader_counts_no_page_of_its_successor(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen before it notes its page as done, thawed after its successor has done that page and all others."""
    await fill(database)
    await begin(database, "pause")
    clock = Crank(NOW)
    frozen, thaw = asyncio.Event(), asyncio.Event()
    real = actions.save_page

    async def freezing(*args: Any) -> None:
        if not frozen.is_set():
            frozen.set()
            await thaw.wait()
        await real(*args)

    monkeypatch.setattr(actions, "save_page", freezing)
    stale = await lead(database, clock)
    running = asyncio.create_task(stale.job_actions.step())
    await frozen.wait()
    await act_until_done(await lead(database, clock, "b"))
    thaw.set()
    await running
    found = await actions.get(database, "x")
    assert found is not None
    assert (found.state, found.page, found.done) == ("done", 3, len(JOBS))


async def test_a_job_that_is_triggered_in_the_same_ms_runs_twice(database: Database) -> None:
    """Once for each who asked: owed or ended already, and also if the page is done again."""
    await fill(database)
    for j in ("j00", "j01"):
        assert await trigger(database, j, NOW) == f"{j}:{NOW:013d}"
    ended = (await executions.owed(database, [f"j01:{NOW:013d}"]))[f"j01:{NOW:013d}"]
    await history.record(database, [Ending(ended, State.FAILED, NOW, (), "no")], 7)
    await database.api["executions"].delete_one({"_id": ended.id})
    await begin(database, "trigger", rate=100)
    clock = Crank(NOW)
    leader = await lead(database, clock)
    await leader.job_actions.step()
    await database.api["actions"].update_one({}, {"$set": {"page": 0, "page_at": DatetimeMS(NOW)}})
    await leader.job_actions.step()
    sent = await sent_now(database, clock)
    assert len(sent) == len(set(sent)) == len(JOBS) + 1
    assert {i for i in sent if i[:3] in ("j00", "j01")} == {
        f"j00:{NOW:013d}", f"j00:{NOW + 1:013d}", f"j01:{NOW + 1:013d}"
    }  # fmt: skip


async def test_runs_of_an_action_go_behind_current_work(database: Database) -> None:
    """They are late work, and while much of it waits no page is begun."""
    await fill(database)
    await begin(database, "trigger")
    leader = await lead(database, Crank(NOW))
    await leader.job_actions.step()
    assert all(b["late"] for b in await rows(database, "batches"))
    one = (await rows(database, "batches"))[0]
    await database.api["batches"].insert_many([{**one, "_id": f"l{i}"} for i in range(32)])
    leader.job_actions._context.clock.now += 60_000  # type: ignore[attr-defined]
    assert (await leader.job_actions.step()).jobs == 0


async def test_a_job_that_cannot_be_read_is_told_and_the_others_are_changed(database: Database) -> None:
    """By its id, with what is wrong."""
    await fill(database)
    await database.api["jobs"].update_one({"_id": "j07"}, {"$set": {"retry": 7}})
    await begin(database, "pause")
    await act_until_done(await lead(database, Crank(NOW)))
    found = await actions.get(database, "x")
    assert found is not None
    assert (found.done, [i for i, _ in found.failures]) == (len(JOBS) - 1, ["j07"])


async def test_a_slow_action_does_not_hold_up_another(database: Database) -> None:
    """Each goes on when its time has come."""
    await fill(database)
    await begin(database, "pause", rate=1, name="slow")
    await begin(database, "delete", rate=1000, name="fast")
    clock = Crank(NOW)
    leader = await lead(database, clock)
    for _ in range(6):
        await leader.job_actions.step()
        clock.now += 100
    assert (await progress(database, "fast"))[0] == "done"
    assert await progress(database, "slow") == ("running", 1, 0, 0)
    await act_until_done(leader)
    assert await progress(database, "slow") == ("done", 1, len(JOBS) - 1, 0)
