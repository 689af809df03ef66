"""Claims, fences and results against a real database: one owner, no lost result, no undone success."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvloop
from bson.datetime_ms import DatetimeMS

from cluster.core.errors import OutcomeUnknown
from cluster.core.execution.model import Batch, Execution
from cluster.core.ids import execution_id
from cluster.store import batches, executions
from cluster.store.batches import ClaimFilter
from cluster.store.enqueue import insert_owed
from cluster.worker.claim import GIVE_UP_AFTER, SPLIT_AFTER
from cluster.worker.held_batch import HeldBatch
from cluster.worker.model import ReadyExecution
from cluster.worker.run_queue import RunQueue
from cluster.worker.slots import Slots
from tests.support.engine import Crank, check_books, job_document, noting, put_jobs, rows, worker
from tests.support.waiting import eventually
from tests.support.workers import DUE, SHORT, answering, owed, record_all, retries_now, run_dry

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


async def test_a_success_is_in_history_with_its_attempt(database: Database) -> None:
    """And nothing of it is left among what is owed."""
    await owed(database, "a", "b")
    w = worker(database, answering(201))
    await run_dry(w)
    found = await rows(database, "history")
    assert [(h["_id"], h["state"]) for h in found] == [(f"{j}:{DUE}", "succeeded") for j in "ab"]
    attempt = found[0]["attempts"][0]
    assert (attempt["n"], attempt["node"], attempt["token"], attempt["status"]) == (1, "w", 1, 201)
    assert attempt["excerpt"] == "body"
    assert await rows(database, "executions") == []
    assert await rows(database, "batches") == []


async def test_failures_are_retried_until_attempts_are_used_up(database: Database) -> None:
    """Each attempt is kept, tokens grow, the reason says what happened."""
    await owed(database, "a")
    w = worker(database, answering(503))
    for _ in range(3):
        await run_dry(w)
        await check_books(database)
        await retries_now(database)
    (found,) = await rows(database, "history")
    assert found["state"] == "dead"
    assert "3 attempts" in found["reason"]
    assert [a["n"] for a in found["attempts"]] == [1, 2, 3]
    tokens = [a["token"] for a in found["attempts"]]
    assert tokens == sorted(set(tokens))
    assert await rows(database, "executions") == []
    assert await rows(database, "batches") == []


async def test_a_refusal_fails_at_once(database: Database) -> None:
    """404 will not become better by repetition."""
    await owed(database, "a")
    await run_dry(worker(database, answering(404)))
    (found,) = await rows(database, "history")
    assert (found["state"], len(found["attempts"])) == ("failed", 1)
    assert "404" in found["reason"]


async def test_retry_then_success(database: Database) -> None:
    """A failure followed by a success is a success with two attempts."""
    await owed(database, "a")
    w = worker(database, answering(500, 200))
    await run_dry(w)
    (execution,) = await rows(database, "executions")
    assert execution["state"] == "retrying"
    await retries_now(database)
    await run_dry(w)
    (found,) = await rows(database, "history")
    assert (found["state"], [a["status"] for a in found["attempts"]]) == ("succeeded", [500, 200])


async def test_a_backlog_is_claimed_by_more_at_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """What should have gone a second ago brings the spare claimers; once all is on time there are two at most again."""
    claim, now, counts = batches.claim, 0, list[int]()

    async def slow(*args: Any) -> Batch | None:
        nonlocal now
        now += 1
        counts.append(now)
        await asyncio.sleep(0.05)
        try:
            return await claim(*args)
        finally:
            now -= 1

    monkeypatch.setattr(batches, "claim", slow)
    w = worker(database, answering(200))
    w.start()
    await eventually(lambda: _true(len(counts) > 20), 15, "many polls")
    assert max(counts) <= 2
    for i in range(30):
        await owed(database, f"j{i}", batch=f"b{i}")
    await eventually(lambda: _in_history(database, 30), 15, "the backlog")
    assert max(counts) == 6
    await eventually(lambda: _true(now <= 2 and Crank.monotonic() > w.claiming._behind_until + 0.5), 15, "its end")
    counts.clear()
    await eventually(lambda: _true(len(counts) > 20), 15, "many polls")
    assert max(counts) <= 2
    await w.shutdown(5)


async def _in_history(db: Database, count: int) -> bool:
    return await db.api["history"].count_documents({}) >= count


async def test_two_workers_never_hold_one_batch(database: Database) -> None:
    """Many claimers at once: each batch goes to one of them, with one token."""
    for i in range(30):
        await owed(database, f"j{i}", batch=f"b{i}")
    claimers = [worker(database, answering(200), f"w{i}").claiming.claimer for i in range(8)]

    async def claim_all(claimer: Any) -> list[str]:
        found = []
        while (claimed := await claimer.step(ClaimFilter())) is not None:
            assert claimed.batch.token == 1
            found.append(claimed.batch.id)
        return found

    results = await asyncio.gather(*(claim_all(c) for c in claimers))
    everything = [b for r in results for b in r]
    assert sorted(everything) == sorted(f"b{i}" for i in range(30))


async def test_an_expired_lease_is_reclaimed_with_a_higher_token(database: Database) -> None:
    """Claim and reclaim are the same query; the executions say who holds them now."""
    await owed(database, "a")
    dead = worker(database, answering(200), "dead", timings=SHORT)
    first = await dead.claiming.claimer.step(ClaimFilter())
    assert first is not None
    assert first.batch.token == 1
    heir = worker(database, answering(200), "heir", timings=SHORT)
    assert await heir.claiming.claimer.step(ClaimFilter()) is None, "the lease has not ended yet"
    second = await eventually(lambda: heir.claiming.claimer.step(ClaimFilter()), 5)
    assert second is not None
    assert (second.batch.token, second.batch.claims) == (2, 2)
    (execution,) = await rows(database, "executions")
    assert (execution["owner"], execution["token"]) == ("heir", 2)


async def test_a_renewed_lease_is_not_reclaimed_and_a_lost_one_is_noticed(database: Database) -> None:
    """Renewal names owner and token; losing is told, and what is unsent is dropped."""
    await owed(database, "a")
    hanging = asyncio.Event()

    async def hang(_: httpx.Request) -> httpx.Response:
        await hanging.wait()
        return httpx.Response(200)

    w = worker(database, hang, timings=SHORT)
    await w.claiming.claim_once()
    heir = worker(database, answering(200), "heir", timings=SHORT)
    for _ in range(6):
        assert await w.lease_keeper.renew_once() == set()
        assert await heir.claiming.claimer.step(ClaimFilter()) is None
        await asyncio.sleep(0.25)
    await database.api["batches"].update_one({"_id": "b"}, {"$set": {"owner": "heir"}, "$inc": {"token": 1}})
    assert await w.lease_keeper.renew_once() == {"b"}
    hanging.set()


async def test_nothing_is_sent_after_its_lease_may_have_ended(database: Database) -> None:
    """Validity counts from before the claim, on the monotonic clock: a worker that slept too long sends nothing."""
    await owed(database, "a")
    sent: list[str] = []
    w = worker(database, noting(sent), timings=SHORT)
    claimed = await w.claiming.claimer.step(ClaimFilter())
    assert claimed is not None
    await w.claiming.take_on(replace(claimed, valid_until=w.context.clock.monotonic() - 0.001))
    await eventually(lambda: _true(not w.held), 3)
    assert sent == []
    assert len(await rows(database, "executions")) == 1


async def _true(value: Any) -> Any:
    return value


@pytest.mark.parametrize("status", [200, 404, 503])
async def test_a_stale_owner_cannot_end_what_another_owes(database: Database, status: int) -> None:
    """Its lease is lost while its request runs. A success counts; a failure is kept as an attempt and ends nothing."""
    await owed(database, "a")
    gate = asyncio.Event()

    async def slow(_: httpx.Request) -> httpx.Response:
        await gate.wait()
        return httpx.Response(status)

    stale = worker(database, slow, "stale", timings=SHORT)
    await stale.claiming.claim_once()
    heir = worker(database, answering(503), "heir", timings=SHORT)
    await eventually(heir.claiming.claim_once, 5)
    await eventually(lambda: _true(heir.context.records), 5)
    await record_all(heir)
    (execution,) = await rows(database, "executions")
    assert execution["state"] == "retrying"
    gate.set()
    await eventually(lambda: _true(stale.context.records), 5)
    await record_all(stale)
    final = await rows(database, "history")
    still_owed = await rows(database, "executions")
    assert len(still_owed) == 1
    if status == 200:
        assert [h["state"] for h in final] == ["succeeded"]
    else:
        assert final == []
        assert len(still_owed[0]["attempts"]) == 2
    await check_named(database)
    await retries_now(database)
    await run_dry(worker(database, answering(200), "third"))
    (found,) = await rows(database, "history")
    assert found["state"] == "succeeded"
    assert await rows(database, "executions") == []


async def check_named(db: Database) -> None:
    existing = {b["_id"] for b in await rows(db, "batches")}
    assert all(e["batch"] in existing for e in await rows(db, "executions"))


@pytest.mark.parametrize("status", [404, 500])
async def test_a_stale_result_does_not_undo_a_success(database: Database, status: int) -> None:
    """The heir's success is recorded first; the stale owner's failure changes nothing of it."""
    await owed(
        database,
        "a",
        retry={
            "max_attempts": 1,
            "initial_delay_seconds": 1.0,
            "multiplier": 1.0,
            "max_delay_seconds": 1.0,
            "jitter": 0.0,
        },
    )
    gate = asyncio.Event()

    async def slow(_: httpx.Request) -> httpx.Response:
        await gate.wait()
        return httpx.Response(status)

    stale = worker(database, slow, "stale", timings=SHORT)
    await stale.claiming.claim_once()
    heir = worker(database, answering(200), "heir", timings=SHORT)
    await eventually(heir.claiming.claim_once, 5)
    await run_dry(heir)
    gate.set()
    await eventually(lambda: _true(stale.context.records), 5)
    await record_all(stale)
    (found,) = await rows(database, "history")
    assert found["state"] == "succeeded"
    assert await rows(database, "executions") == []


async def test_two_successes_are_one_result_and_a_counted_duplicate(database: Database) -> None:
    """Both deliveries are visible as attempts."""
    await owed(database, "a")
    gate = asyncio.Event()

    async def slow(_: httpx.Request) -> httpx.Response:
        await gate.wait()
        return httpx.Response(200)

    stale = worker(database, slow, "stale", timings=SHORT)
    await stale.claiming.claim_once()
    heir = worker(database, answering(200), "heir", timings=SHORT)
    await eventually(heir.claiming.claim_once, 5)
    await run_dry(heir)
    gate.set()
    await eventually(lambda: _true(stale.context.records), 5)
    await record_all(stale)
    (found,) = await rows(database, "history")
    assert sorted(a["node"] for a in found["attempts"]) == ["heir", "stale"]
    assert stale.stats.counters["duplicates"] == 1


async def test_recording_the_same_twice_changes_nothing(database: Database) -> None:
    """A flush whose answer was lost is written again: no duplicate is counted."""
    await owed(database, "a")
    w = worker(database, answering(200))
    await w.claiming.claim_once()
    await eventually(lambda: _true(w.context.records), 5)
    results = w.context.records.take()
    await w.results.record(results)
    before = await rows(database, "history")
    await w.results.record(results)
    assert await rows(database, "history") == before
    assert w.stats.counters["duplicates"] == 0


WRITES = [
    ("executions", "stamp"),
    ("history", "record"),
    ("executions", "delete_final"),
    ("executions", "fence_endings"),
    ("executions", "move"),
    ("batches", "insert"),
    ("batches", "delete_finished"),
]


class Died(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(("module", "name"), WRITES)
async def test_a_node_that_dies_at_any_write_loses_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch, module: str, name: str, *, before: bool
) -> None:
    """One execution succeeds, one is retried, one is refused; whoever comes next completes them, and no success is
    sent again once it is in history."""
    import importlib

    await owed(database, "good", "flaky", "bad")
    arrivals: list[tuple[str, str]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        job, attempt = request.headers["horae-job-id"], request.headers["horae-attempt"]
        arrivals.append((job, attempt))
        return httpx.Response({"good": 200, "bad": 404}.get(job, 200 if attempt != "1" else 503))

    owner = importlib.import_module(f"cluster.store.{module}")
    real = getattr(owner, name)

    async def dying(*args: Any, **kwargs: Any) -> Any:
        if before:
            raise Died
        await real(*args, **kwargs)
        raise Died

    mortal = worker(database, handler, "mortal", timings=SHORT)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying)
        with pytest.raises(Died):
            await run_dry(mortal)
    recorded = {h["_id"] for h in await rows(database, "history")}
    sent_before = len(arrivals)
    heir = worker(database, handler, "heir", timings=SHORT)
    for _ in range(4):
        await database.api["batches"].update_many({}, {"$set": {"claimable_at": DatetimeMS(DUE)}})
        await retries_now(database)
        await run_dry(heir)
    states = {h["job_id"]: h["state"] for h in await rows(database, "history")}
    assert states == {"good": "succeeded", "flaky": "succeeded", "bad": "failed"}
    assert await rows(database, "executions") == []
    assert await rows(database, "batches") == []
    again = {f"{job}:{DUE}" for job, _ in arrivals[sent_before:]}
    assert not again & recorded, "what was final already was sent again"


async def test_a_claim_whose_answer_was_lost_is_handed_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch carries our name and we do not know it: it must not wait for its lease to end."""
    await owed(database, "a")
    real = batches.claim
    w = worker(database, answering(200))

    async def unanswered(*args: Any) -> Any:
        await real(*args)
        raise OutcomeUnknown("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(batches, "claim", unanswered)
        with pytest.raises(OutcomeUnknown):
            await w.claiming.claim_once()
    w.claiming._strays = True
    await run_dry(w)
    assert [h["state"] for h in await rows(database, "history")] == ["succeeded"]


async def test_a_batch_that_kills_its_nodes_is_split_and_its_killer_given_up(database: Database) -> None:
    """After five claims each execution stands alone; after ten, one that is still not done is `dead: node_lost`."""
    await owed(database, "a", "killer")
    for i in range(SPLIT_AFTER):
        doomed = worker(database, answering(200), f"doomed{i}")
        assert await doomed.claiming.claimer.step(ClaimFilter()) is not None
        await database.api["batches"].update_many({}, {"$set": {"claimable_at": DatetimeMS(DUE)}})
    w = worker(database, answering(200), "splitter")
    assert await w.claiming.claim_once()
    singles = await rows(database, "batches")
    assert [len(b["ids"]) for b in singles] == [1, 1]
    await check_books(database)
    await database.api["batches"].update_one(
        {"ids": f"killer:{DUE}"}, {"$set": {"claims": GIVE_UP_AFTER, "claimable_at": DatetimeMS(DUE)}}
    )
    await database.api["batches"].update_many({}, {"$set": {"claimable_at": DatetimeMS(DUE)}})
    await run_dry(w)
    found = {h["job_id"]: (h["state"], h["reason"]) for h in await rows(database, "history")}
    assert found["a"][0] == "succeeded"
    assert found["killer"][0] == "dead"
    assert "node_lost" in found["killer"][1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"state": "paused"}, "paused"),
        ({"state": "deleted"}, "deleted"),
        ({"schedule_version": "v2"}, "changed"),
        ({"active_from": DatetimeMS(DUE + 1)}, "resumed"),
    ],
)
async def test_what_must_not_be_sent_is_cancelled_with_its_reason(
    database: Database, change: dict[str, Any], reason: str
) -> None:
    """The job is read as it is now, shortly before sending."""
    await owed(database, "a")
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": change})
    sent: list[str] = []
    await run_dry(worker(database, noting(sent)))
    assert sent == []
    (found,) = await rows(database, "history")
    assert found["state"] == "cancelled"
    assert reason in found["reason"]
    assert await rows(database, "executions") == []
    assert await rows(database, "batches") == []


async def test_a_cancelled_occurrence_that_is_owed_again_is_sent(database: Database) -> None:
    """Paused when its node looked, resumed under a new version a moment later: it runs, and its success stands."""
    await owed(database, "a")
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": {"state": "paused"}})
    w = worker(database, answering(200))
    await run_dry(w)
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": {"state": "active", "schedule_version": "v2"}})
    again = Execution(execution_id("a", DUE), "a", DUE, DUE, "v2", "b2", 0)
    await insert_owed(database, [again], [Batch("b2", (again.id,), 0, 0, DUE, DUE)], lambda: "new")
    await run_dry(w)
    (found,) = await rows(database, "history")
    assert found["state"] == "succeeded"
    # But a stale leader that writes the cancelled version again achieves nothing.
    stale = replace(again, schedule_version="v1", batch="b3")
    await insert_owed(database, [stale], [Batch("b3", (again.id,), 0, 0, DUE, DUE)], lambda: "new")
    await run_dry(worker(database, lambda _: pytest.fail("it was sent")))
    assert (await rows(database, "history"))[0]["state"] == "succeeded"


async def test_a_batch_that_grew_while_it_was_held_is_handed_back(database: Database) -> None:
    """A repair adds an execution to a batch that is being worked on: deleting it would leave that one orphaned."""
    (first,) = await owed(database, "a")
    w = worker(database, answering(200))
    claimed = await w.claiming.claimer.step(ClaimFilter())
    assert claimed is not None
    await put_jobs(database, job_document("b", active_from=0, schedule_version="v1"))
    added = replace(first, id=execution_id("b", DUE), job_id="b")
    await executions.insert(database, [added])
    await batches.insert(database, [Batch("b", (added.id,), first.lane, 0, DUE, DUE)])
    await w.claiming.take_on(claimed)
    await run_dry(w)
    await run_dry(w)
    assert {h["job_id"] for h in await rows(database, "history")} == {"a", "b"}
    assert await rows(database, "batches") == []


async def test_drain_hands_back_what_is_unsent_and_finishes_what_is_not(database: Database) -> None:
    """After a drain nothing carries the node's name, and what was in flight is recorded."""
    await owed(database, "now")
    future = int((await database.api.client.admin.command("hello"))["localTime"].timestamp() * 1000) + 60_000
    await put_jobs(database, job_document("later", active_from=0, schedule_version="v1"))
    later = Execution(execution_id("later", future), "later", future, future, "v1", "b9", 0)
    await insert_owed(database, [later], [Batch("b9", (later.id,), 0, 0, future, DUE)], lambda: "new")
    started = asyncio.Event()

    async def slow(_: httpx.Request) -> httpx.Response:
        started.set()
        await asyncio.sleep(0.3)
        return httpx.Response(200)

    w = worker(database, slow)
    w.start()
    await asyncio.wait_for(started.wait(), 5)
    await eventually(lambda: _true(len(w.held) == 2), 5)
    await w.shutdown(5)
    assert [h["job_id"] for h in await rows(database, "history")] == ["now"]
    (batch,) = await rows(database, "batches")
    assert (batch["owner"], batch["ids"]) == (None, [later.id])
    await check_books(database)


async def test_overlap_skip_never_runs_two_at_once(database: Database) -> None:
    """While one runs, the next is recorded as skipped; when it has ended, the one after runs."""
    document = job_document("a", active_from=0, schedule_version="v1", overlap="skip")
    await put_jobs(database, document)
    running, most = 0, 0
    gate = asyncio.Event()

    async def slow(_: httpx.Request) -> httpx.Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1
        return httpx.Response(200)

    workers = [worker(database, slow, f"w{i}") for i in range(3)]
    for i, w in enumerate(workers):
        due = DUE + i * 1000
        e = Execution(execution_id("a", due), "a", due, due, "v1", f"b{i}", document["lane"])
        await insert_owed(database, [e], [Batch(f"b{i}", (e.id,), e.lane, 0, due, due)], lambda: "new")
        await w.claiming.claim_once()
    await eventually(lambda: _true(sum(len(w.context.records) for w in workers) == 2), 5)
    gate.set()
    for w in workers:
        await run_dry(w)
    states = sorted(h["state"] for h in await rows(database, "history"))
    assert states == ["skipped", "skipped", "succeeded"]
    assert most == 1
    due = DUE + 9000
    e = Execution(execution_id("a", due), "a", due, due, "v1", "b9", document["lane"])
    await insert_owed(database, [e], [Batch("b9", (e.id,), e.lane, 0, due, due)], lambda: "new")
    await run_dry(workers[0])
    assert [h["state"] for h in await rows(database, "history")][-1] == "succeeded"


async def test_overlap_survives_the_death_of_the_node_that_held_it(database: Database) -> None:
    """The one named as running has ended and nobody took its name off: the next one runs all the same."""
    await owed(database, "a", overlap="skip", running="a:0000000000001")
    await run_dry(worker(database, answering(200)))
    assert [h["state"] for h in await rows(database, "history")] == ["succeeded"]


async def test_late_work_takes_no_room_from_current_work(database: Database) -> None:
    """A claim for current work comes first; late work at least every tenth time."""
    for i in range(12):
        await owed(database, f"late{i}", batch=f"l{i}")
    await database.api["batches"].update_many({}, {"$set": {"late": True}})
    for i in range(12):
        await owed(database, f"now{i}", batch=f"n{i}")
    order: list[str] = []
    w = worker(database, noting(order, "horae-job-id"))
    for _ in range(24):
        await w.claiming.claim_once()
    await run_dry(w)
    assert len(order) == 24
    assert sum(name.startswith("now") for name in order[:13]) >= 11
    assert any(name.startswith("late") for name in order[:11])


async def test_after_trouble_only_unowned_batches_are_claimed(database: Database) -> None:
    """Owners renew first: nobody reclaims for a lease after the database was away."""
    await owed(database, "a", batch="owned")
    other = worker(database, answering(200), "other", timings=SHORT)
    assert await other.claiming.claimer.step(ClaimFilter()) is not None
    await database.api["batches"].update_one({"_id": "owned"}, {"$set": {"claimable_at": DatetimeMS(DUE)}})
    w = worker(database, answering(200))
    w.context.reclaim_pause.begin()
    assert not await w.claiming.claim_once()
    await owed(database, "b", batch="free")
    assert await w.claiming.claim_once()


async def test_what_waits_for_its_time_goes_when_the_clock_is_put_right(database: Database) -> None:
    """A primary was five minutes behind, and what was claimed by its time waits for five minutes no longer once another
    one leads: neither for its jobs to be read, nor in the queue."""
    await owed(database, "a")
    clock, seen = Crank(DUE - 300_000), list[str]()
    w = worker(database, noting(seen), clock=clock)
    assert await w.claiming.claim_once()
    clock.now = DUE
    await eventually(lambda: _noted(seen, 1), 5, "the request")
    # Ahead: what waited for a slot was late by a time that never came.
    queue = RunQueue(clock, Slots(clock, 1), lambda r: seen.append(r.execution.id))
    (execution,) = await owed(database, "b", batch="later")
    clock.now = DUE + 300_000
    held = HeldBatch(Batch("later", (execution.id,), 0, 0, DUE, DUE), 0.0, [execution])
    queue.enqueue(ReadyExecution(held, execution, None, None, 0.0))  # type: ignore[arg-type]
    clock.now = DUE + 1000
    queue.start_due()
    assert seen[1:] == []
    queue.retime()
    assert seen[1:] == [execution.id]
    queue.close()


async def _noted(seen: list[str], count: int) -> bool:
    return len(seen) >= count


def test_the_run_queue_wakes_at_once_on_the_loop_that_nodes_use() -> None:
    """uvloop has another handle for what is called at once; a second look at the queue met it and failed."""

    async def look() -> list[str]:
        started: list[str] = []
        clock = Crank(DUE)
        queue = RunQueue(clock, Slots(clock, 1), lambda r: started.append(r.execution.id))
        execution = Execution("a:1", "a", DUE, DUE + 1, "v1", "b", 0)
        held = HeldBatch(Batch("b", ("a:1",), 0, 0, DUE, DUE), 0.0, [])
        queue.enqueue(ReadyExecution(held, execution, None, None, 0.0))  # type: ignore[arg-type]
        clock.seconds_until = lambda _: 0.0001  # type: ignore[assignment]
        queue.start_due()
        queue.start_due()
        clock.now += 1
        await eventually(lambda: _noted(started, 1), 5, "the alarm")
        queue.close()
        return started

    assert uvloop.run(look()) == ["a:1"]
