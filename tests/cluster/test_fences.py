"""Each fence by itself: a write under an old token or term changes nothing, and its result says so."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from bson.datetime_ms import DatetimeMS

from cluster.core.errors import TermLost
from cluster.core.execution.model import Attempt, Batch, Ending, Rescheduled, Term
from cluster.core.lifecycle import State
from cluster.store import batches, engine_jobs, executions, history, replayable, schedules
from cluster.store.batches import ClaimFilter
from cluster.store.enqueue import insert_owed, repair_batches
from cluster.store.replays import Replay, ReplayFilter
from cluster.store.schedules import ScheduleRow
from cluster.usecases.executions import replay
from cluster.worker.record import Recorder
from tests.support.engine import T0, Crank, job_document, lead, put_jobs, rows, worker
from tests.support.leaders import due_of
from tests.support.waiting import eventually
from tests.support.workers import answering, ended, owed, run_dry

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

KEY = "cron|* * * * * *|UTC"


async def test_a_stale_token_renews_releases_and_finishes_nothing(database: Database) -> None:
    """The batch has been claimed by another node since, or by this one again."""
    await owed(database, "a")
    first = await worker(database, answering(200), "first").claiming.claimer.step(ClaimFilter())
    assert first is not None
    for holder in ("second", "first"):
        await database.api["batches"].update_one({"_id": "b"}, {"$set": {"owner": holder}, "$inc": {"token": 1}})
        before = await rows(database, "batches")
        assert await batches.renew(database, "first", [("b", first.batch.token)], 100) == {"b"}
        assert await batches.release(database, first.batch, None) is False
        assert await batches.delete_finished(database, [first.batch]) == {"b"}
        assert await rows(database, "batches") == before


@pytest.mark.parametrize("since", [{"token": 2, "owner": "heir"}, {"batch": "another"}])
async def test_a_stale_owner_moves_ends_and_removes_nothing(database: Database, since: dict[str, Any]) -> None:
    """The execution was claimed by another node since, or moved to another batch: it stays exactly as it is."""
    await owed(database, "a")
    stale = await worker(database, answering(200), "stale").claiming.claimer.step(ClaimFilter())
    assert stale is not None
    (e,) = stale.executions
    await database.api["executions"].update_one({"_id": e.id}, {"$set": since})
    before = await rows(database, "executions")
    assert await executions.move(database, [Rescheduled(e, e.attempts, T0)], {e.id: "new"}) == set()
    assert await executions.fence_endings(database, [e], "nonce") == set()
    assert await executions.delete_final(database, {(e.batch, e.token): [e.id]}) == 0
    assert await rows(database, "executions") == before


async def test_a_node_frozen_before_its_stamp_takes_nothing_back(database: Database) -> None:
    """A node claims, is frozen for longer than the lease, and thaws: the stamp and the results of the next owner stay."""
    await owed(database, "a")
    sleepy = await batches.claim(database, "sleepy", 0.0, ClaimFilter(), 5.0)
    assert sleepy is not None
    heir = await worker(database, answering(200), "heir").claiming.claimer.step(ClaimFilter())
    assert heir is not None
    before = await rows(database, "executions")
    assert (before[0]["owner"], before[0]["token"]) == ("heir", sleepy.token + 1)
    assert await executions.stamp(database, sleepy.ids, sleepy.id, "sleepy", sleepy.token) == 0
    assert await rows(database, "executions") == before


@pytest.mark.parametrize("status", [200, 404])
async def test_a_stale_owner_lets_no_next_run_begin(database: Database, status: int) -> None:
    """`overlap: skip`: the answer came late, and another node is sending the same run by now, and names it as running."""
    (e,) = await owed(database, "a", overlap="skip", running="a:0000000000000")
    stale = await worker(database, answering(200), "stale").claiming.claimer.step(ClaimFilter())
    assert stale is not None
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": {"running": e.id}})
    await database.api["executions"].update_one({"_id": e.id}, {"$set": {"token": 2, "owner": "heir"}})
    made = (Attempt(1, T0, "stale", 1, 1.0, status),)
    state = State.SUCCEEDED if status == 200 else State.FAILED
    recorder = Recorder(database, 7.0)
    await recorder.record_final([Ending(stale.executions[0], state, T0, made, "why")], stale.executions)
    assert (await rows(database, "jobs"))[0]["running"] == e.id
    (held,) = (await executions.owed(database, [e.id])).values()
    await recorder.record_final([Ending(held, state, T0, made, "why")], [held])
    assert (await rows(database, "jobs"))[0]["running"] is None


async def test_no_run_ends_before_its_requests_did(database: Database) -> None:
    """A primary whose clock is behind took cluster time back by five minutes while the request was under way."""
    (e,) = await owed(database, "a")
    made = (Attempt(1, T0, "a", 1, 1500.4, 503), Attempt(2, T0 + 3000, "a", 1, 250.0, 200))
    await Recorder(database, 7.0).record_final([Ending(e, State.SUCCEEDED, T0 - 300_000, made)], [e])
    (run,) = await rows(database, "history")
    assert int(run["ended_at"]) == T0 + 3250


async def test_a_batch_is_never_there_before_its_executions_name_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claimed in between it would be found empty and deleted, and its executions would wait for the sweep. This holds
    for the writes of the leader, for adopting, for moves and for repair."""
    real = batches.insert
    seen: list[int] = []

    async def watching(db: Database, inserted: Any) -> None:
        for b in inserted:
            named = {e["_id"] for e in await rows(db, "executions") if e["batch"] == b.id}
            assert set(b.ids) <= named, f"{b.id} lists executions that do not name it"
            seen.append(len(b.ids))
        await real(db, inserted)

    monkeypatch.setattr(batches, "insert", watching)
    a, b = await owed(database, "a", "b")
    await database.api["jobs"].update_many({}, {"$set": {"schedule_version": "v2"}})
    changed = [replace(e, schedule_version="v2", batch="planned") for e in (a, b)]
    names = iter(("reowned",))
    await insert_owed(
        database, changed, [Batch("planned", (a.id, b.id), 0, 0, a.due_ms, a.due_ms)], lambda: next(names)
    )
    w = worker(database, answering(503))
    claimed = await w.claiming.claimer.step(ClaimFilter())
    while claimed is not None and not claimed.executions:
        claimed = await w.claiming.claimer.step(ClaimFilter())
    assert claimed is not None
    await w.recorder.reschedule([Rescheduled(e, e.attempts, T0) for e in claimed.executions])
    await database.api["batches"].delete_many({})
    await repair_batches(database, (await executions.owed(database, [a.id, b.id])).values())
    assert seen == [2, 2, 2, 2]


async def test_a_frozen_leader_takes_nothing_back_to_an_older_schedule(database: Database) -> None:
    """It read the job, was frozen while the job was changed and the next leader adopted its execution for the new
    version, and goes on. A node that claimed the execution then would cancel it, though the job owes it."""
    (e,) = await owed(database, "a")
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": {"schedule_version": "v2"}})
    for version, taken in (("v2", 1), ("v1", 0)):
        planned = replace(e, schedule_version=version, batch=f"planned-{version}")
        its_batch = Batch(planned.batch, (e.id,), 0, 0, e.due_ms, e.due_ms)
        done = await insert_owed(database, [planned], [its_batch], iter([f"reowned-{version}"]).__next__)
        assert done.adopted == taken
    (found,) = await rows(database, "executions")
    assert (found["schedule_version"], found["batch"]) == ("v2", "reowned-v2")


@pytest.mark.parametrize("between", ["read_owed", "adopt"])
async def test_an_execution_cancelled_while_the_leader_adopts_it_is_still_owed(
    database: Database, monkeypatch: pytest.MonkeyPatch, between: str
) -> None:
    """The job was changed, and its execution comes due before the leader has settled that: a node cancels it for the
    older schedule between two writes of the leader, which read it before. The present schedule owes it too.
    """
    (e,) = await owed(database, "a")
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": {"schedule_version": "v2"}})
    real = getattr(executions, between)
    calls = 0

    async def late(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            await run_dry(worker(database, answering(200)))
            assert [h["state"] for h in await rows(database, "history")] == ["cancelled"]
        return await real(*args)

    w = worker(database, answering(200))
    planned = replace(e, schedule_version="v2", batch="planned")
    its_batch = Batch("planned", (e.id,), 0, 0, e.due_ms, e.due_ms)
    with monkeypatch.context() as patch:
        patch.setattr(executions, between, late)
        await insert_owed(database, [planned], [its_batch], iter(["first", "second", "third"]).__next__)
    await run_dry(w)
    (run,) = await rows(database, "history")
    assert (run["state"], run["schedule_version"]) == ("succeeded", "v2")
    assert await rows(database, "executions") == []


async def test_an_execution_moved_while_the_leader_adopts_it_is_adopted(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that shuts down releases it in another batch, between two steps of the leader."""
    (e,) = await owed(database, "a")
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": {"schedule_version": "v2"}})
    real = executions.adopt
    calls = 0

    async def late(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            await database.api["executions"].update_one({"_id": e.id}, {"$set": {"batch": "moved"}})
            await batches.insert(database, [Batch("moved", (e.id,), 0, 0, e.due_ms, e.due_ms)])
        return await real(*args)

    monkeypatch.setattr(executions, "adopt", late)
    planned = replace(e, schedule_version="v2", batch="planned")
    its_batch = Batch("planned", (e.id,), 0, 0, e.due_ms, e.due_ms)
    done = await insert_owed(database, [planned], [its_batch], iter("abcd").__next__)
    assert done.adopted == 1
    await run_dry(worker(database, answering(200)))
    (run,) = await rows(database, "history")
    assert (run["state"], run["schedule_version"]) == ("succeeded", "v2")


def term(number: int) -> Term:
    return Term(number, "anybody", float("inf"))


async def test_a_leader_that_meets_a_newer_term_writes_nothing(database: Database) -> None:
    """Neither executions nor the row are written: a newer leader has stamped the row."""
    clock = Crank()
    document = job_document("a")
    del document["unsettled"]
    await put_jobs(database, document)
    leader = await lead(database, clock)
    await schedules.insert_missing(database, [ScheduleRow(KEY, T0, 99)])
    with pytest.raises(TermLost):
        await leader.materialiser.step(clock.now, 1)
    assert await rows(database, "executions") == []
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": {"unsettled": "x"}})
    with pytest.raises(TermLost):
        await leader.settler.step(clock.now, 1)
    assert await rows(database, "executions") == []
    assert [j["_id"] for j in await rows(database, "jobs") if "unsettled" in j] == ["a"]


async def test_a_new_leader_settles_everything_before_its_first_row_moves(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a stale leader that clears a mark late would leave a hole behind a row that has moved meanwhile."""
    monkeypatch.setattr("cluster.leader.settle.JOBS", 2)
    clock = Crank()
    await put_jobs(database, *(job_document(f"j{i}") for i in range(7)))
    await schedules.insert_missing(database, [ScheduleRow(KEY, T0, 0)])
    leader = await lead(database, clock)
    real = schedules.advance
    unsettled_then: list[int] = []

    async def watching(*args: Any) -> int:
        unsettled_then.append(len([j for j in await rows(database, "jobs") if "unsettled" in j]))
        return await real(*args)

    monkeypatch.setattr(schedules, "advance", watching)
    for _ in range(8):
        await leader.step()
    assert unsettled_then
    assert unsettled_then[0] == 0
    assert (await due_of(database, "j6"))[:2] == [0, 1]


async def test_the_main_pass_leaves_unsettled_jobs_to_settling(database: Database) -> None:
    """Both would write the same occurrences, twice the work for every import."""
    settled = job_document("settled")
    del settled["unsettled"]
    await put_jobs(database, settled, job_document("unsettled"))
    page = await engine_jobs.of_schedules(database, [KEY], 10)
    assert [j.id for j in page.jobs] == ["settled"]


async def test_a_job_read_long_ago_is_read_again_before_its_execution_leaves(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job was paused while its execution waited behind a slow one: it must not be sent."""
    monkeypatch.setattr("cluster.worker.dispatch.REREAD_SECONDS", 0.1)
    await owed(database, "a", "b")
    gate, sent = asyncio.Event(), list[str]()

    async def slow(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers["horae-job-id"])
        await gate.wait()
        return httpx.Response(200)

    w = worker(database, slow, slots=1)
    await w.claiming.claim_once()
    await eventually(lambda: _is(sent), 5)
    (other,) = {"a", "b"} - set(sent)
    paused = {"$set": {"state": "paused", "past": ended(0, "pause")}, "$inc": {"revision": 1}}
    await database.api["jobs"].update_one({"_id": other}, paused)
    await asyncio.sleep(0.15)  # the reading grows old: that is what this is about
    gate.set()
    await run_dry(w)
    found = {h["job_id"]: h["state"] for h in await rows(database, "history")}
    assert found == {sent[0]: "succeeded", other: "cancelled"}
    assert len(sent) == 1


async def _is(value: Any) -> Any:
    return value


@pytest.mark.parametrize("first", ["the leader", "the node"])
async def test_an_attempt_that_failed_under_the_old_schedule_is_retried_under_the_new_one(
    database: Database, first: str
) -> None:
    """Sent in the moment in which its job was changed, answered with 503, and owed by the new schedule too: whether the
    leader settles the job before or after the retry, the execution continues, with the attempt that was made."""
    (e,) = await owed(database, "a")
    node = worker(database, answering(503))
    claimed = await node.claiming.claimer.step(ClaimFilter())
    assert claimed is not None
    made = (Attempt(1, e.due_ms, "a", claimed.batch.token, 1.0, 503),)
    await node.recorder.reschedule([Rescheduled(claimed.executions[0], made, e.due_ms)])
    changed = {"schedule_version": "v2", "past": ended(e.due_ms - 1, "change")}
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": changed})

    async def settle() -> int:
        planned = replace(e, schedule_version="v2", batch="planned")
        its_batch = Batch("planned", (e.id,), 0, 0, e.due_ms, e.due_ms)
        return (await insert_owed(database, [planned], [its_batch], iter(["reowned"]).__next__)).adopted

    if first == "the leader":
        assert await settle() == 1
        (found,) = await rows(database, "executions")
        assert (found["schedule_version"], found["batch"], found["state"]) == ("v2", "reowned", "retrying")
        assert [a["n"] for a in found["attempts"]] == [1]
        (batch,) = [b for b in await rows(database, "batches") if b["_id"] == "reowned"]
        assert (batch["attempt"], int(batch["send_at"])) == (1, int(found["send_at"]))
    await run_dry(worker(database, answering(200)))
    if first == "the node":
        assert (await rows(database, "history"))[0]["state"] == "cancelled"
        assert await settle() == 0
        await run_dry(worker(database, answering(200)))
    (run,) = await rows(database, "history")
    assert (run["state"], run["schedule_version"]) == ("succeeded", "v2")
    assert [a["status"] for a in run["attempts"]] == [503, 200]
    assert await rows(database, "executions") == []


async def test_a_run_by_hand_is_never_adopted(database: Database) -> None:
    """It is sent under any schedule. Requested once more after a change, or found by the leader that materialises the
    present schedule, it stays where it is: its node may be sending it."""
    (e,) = await owed(database, "a")
    asked = {"trigger": True, "asked_at": DatetimeMS(T0), "token": 1, "owner": "n", "state": "leased"}
    await database.api["executions"].update_one({"_id": e.id}, {"$set": asked})
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": {"schedule_version": "v2"}})
    before = await rows(database, "executions")
    for again in (replace(e, trigger=True, replayed_ms=T0 + 5), e):
        planned = replace(again, schedule_version="v2", batch="planned")
        done = await insert_owed(
            database, [planned], [Batch("planned", (e.id,), 0, 0, T0, T0)], iter(["reowned"]).__next__
        )
        assert (done.inserted, done.adopted) == (0, 0)
        assert await rows(database, "executions") == before


async def test_an_execution_claimed_before_it_is_adopted_keeps_its_token(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that began with the token read before would give the next owner the token of the last one."""
    (e,) = await owed(database, "a")
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": {"schedule_version": "v2"}})
    real, claims = executions.adopt, [1]

    async def late(*arguments: Any) -> set[str]:
        if claims:
            claims.pop()
            assert await worker(database, answering(200), "first").claiming.claimer.step(ClaimFilter()) is not None
        return await real(*arguments)

    monkeypatch.setattr(executions, "adopt", late)
    planned = replace(e, schedule_version="v2", batch="planned")
    names = iter(["one", "two", "three"])
    done = await insert_owed(database, [planned], [Batch("planned", (e.id,), 0, 0, T0, T0)], names.__next__)
    assert done.adopted == 1
    heir = await worker(database, answering(200), "heir").claiming.claimer.step(ClaimFilter())
    while heir is not None and not heir.executions:
        heir = await worker(database, answering(200), "heir").claiming.claimer.step(ClaimFilter())
    assert heir is not None
    assert (heir.batch.token, heir.executions[0].token) == (2, 2)


@pytest.mark.parametrize("late", [False, True])
async def test_an_adopted_execution_is_sent_when_the_present_schedule_says(database: Database, late: bool) -> None:
    """The new schedule may have another spread, and the execution may be late work: the batch and its executions agree."""
    (e,) = await owed(database, "a")
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": {"schedule_version": "v2"}})
    planned = replace(e, schedule_version="v2", batch="planned", send_ms=e.send_ms + 1800)
    its_batch = Batch("planned", (e.id,), 0, 0, planned.send_ms, planned.send_ms, late=late)
    assert (await insert_owed(database, [planned], [its_batch], iter(["reowned"]).__next__)).adopted == 1
    (found,) = await rows(database, "executions")
    (batch,) = [b for b in await rows(database, "batches") if b["_id"] == "reowned"]
    assert int(found["send_at"]) == int(batch["send_at"]) == planned.send_ms
    assert batch["late"] is late


@pytest.mark.parametrize("way", ["by itself", "replayed"])
async def test_a_replay_while_the_end_is_being_written_is_sent(database: Database, way: str) -> None:
    """The execution is dead in history and not yet deleted from `executions`: that leftover does not count as the replay."""
    (e,) = await owed(database, "a")
    node = worker(database, answering(500), "node")
    claimed = await node.claiming.claimer.step(ClaimFilter())
    assert claimed is not None
    x = claimed.executions[0]
    made = (Attempt(1, T0, "node", x.token, 1.0, 500),)
    await history.record(database, [Ending(x, State.DEAD, T0 + 10, made, "used up")], 3650)
    if way == "by itself":
        await replay(database, e.id, T0 + 100, 3650)
    else:
        page = Replay("r", ReplayFilter(), 10.0, T0 + 100, 0, page=(e.id,))
        ((name, _, _),) = await replayable.reopen_page(database, page, T0 + 100, 3650)
        again = replace(e, trigger=True, replayed_ms=T0 + 100, batch="again", state=State.RETRYING)
        await insert_owed(database, [again], [Batch("again", (name,), 0, 0, T0, T0)], iter(["never"]).__next__)
    await executions.delete_final(database, {(x.batch, x.token): [x.id]})
    (found,) = await rows(database, "executions")
    assert (int(found["asked_at"]), found["attempts"]) == (T0 + 100, [])
    await database.api["executions"].update_one({"_id": e.id}, {"$set": {"send_at": DatetimeMS(e.due_ms)}})
    await database.api["batches"].update_many(
        {}, {"$set": {"claimable_at": DatetimeMS(e.due_ms), "send_at": DatetimeMS(e.due_ms)}}
    )
    await run_dry(worker(database, answering(200)))
    (run,) = await rows(database, "history")
    assert run["state"] == "succeeded"
