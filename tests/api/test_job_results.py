"""The last results of jobs in lists: rolled up by nodes, compared with history by the leader."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from cluster.core.execution.model import Attempt, Ending, Execution
from cluster.core.lifecycle import State
from cluster.leader.compare_results import ResultComparer
from cluster.store import history, last_results, missed_ranges
from cluster.store.last_results import LastResult
from cluster.store.missed_ranges import MissedRange
from cluster.worker.last_results import BUSY_MS, BUSY_SAVED_PER_TURN, SAVED_PER_TURN, LastResults
from tests.support.api_client import walk
from tests.support.engine import T0, worker
from tests.support.workers import DUE, owed, run_dry

if TYPE_CHECKING:
    from cluster.worker.worker import Worker
    from tests.support.api_client import Api

ONCE = {"max_attempts": 1, "initial_delay_seconds": 1.0, "multiplier": 1.0, "max_delay_seconds": 1.0, "jitter": 0.0}


def ending(job: str, due: int, state: State) -> Ending:
    return Ending(Execution(f"{job}:{due:013d}", job, due, due, "v", "b", 0), state, due)


async def ran(api: Api, status: int, job: str) -> Worker:
    """A job that a worker sent once, to a target that answers this status; the worker has saved nothing yet."""
    await owed(api.db, job, batch=f"b-{job}", retry=ONCE)
    w = worker(api.db, lambda _: httpx.Response(status))
    await run_dry(w)
    return w


async def listed(api: Api, job: str) -> dict[str, Any]:
    page = (await api.call("GET", "/jobs?limit=500")).json
    return next(j for j in page["items"] if j["jobId"] == job)


async def test_a_failed_job_is_listed_as_failing_until_it_succeeds(api: Api) -> None:
    """With when it ran; dead, failed and succeeded as its execution is."""
    for job, status, state in (("good", 200, "succeeded"), ("gone", 404, "failed"), ("down", 500, "dead")):
        await (await ran(api, status, job))._save_last_results()
        shown = await listed(api, job)
        assert (shown["lastState"], shown["failing"]) == (state, state != "succeeded")
        assert shown["lastRunAt"] is not None
    assert sorted(await walk(api, "failing=true")) == ["down", "gone"]
    assert await walk(api, "failing=false") == ["good"]
    assert (await walk(api, "sort=-lastRunAt"))[0] == "down"
    await last_results.save(api.db, [LastResult("down", DUE + 1000, "succeeded", T0)])
    assert await walk(api, "failing=true") == ["gone"]
    assert (await walk(api, "sort=-lastRunAt"))[0] == "down"


async def test_the_leader_finds_the_results_that_a_dead_node_had_not_saved(api: Api) -> None:
    """A comparison with history, page by page; missed occurrences and results that are replaced too."""
    for i in range(3):
        await ran(api, 500, f"down{i}")
    assert await walk(api, "failing=true") == []
    comparer = ResultComparer(api.db, api.clock)
    assert await comparer.step() == 3
    assert comparer.seconds_until_next() > 1
    assert sorted(await walk(api, "failing=true")) == ["down0", "down1", "down2"]
    assert await comparer.step() == 0
    missed = MissedRange("down0", "v1", DUE + 1000, DUE + 9000, 9, "no leader")
    await missed_ranges.record(api.db, [missed], T0, 7)
    await api.db.api["history"].update_one({"job_id": "down1"}, {"$set": {"state": "reopened"}})
    await api.db.api["history"].update_one({"job_id": "down2"}, {"$set": {"state": "succeeded"}})
    await comparer.step()
    assert (await listed(api, "down0"))["lastState"] == "missed"
    assert await walk(api, "failing=true") == ["down1"], "a replay that is under way changes nothing"


async def test_a_job_whose_results_are_being_saved_is_compared_later(api: Api) -> None:
    """A look into history costs more than an execution; what a dead node did not save is found two minutes later."""
    await ran(api, 500, "down")
    now = api.clock.now_ms()
    await last_results.save(api.db, [LastResult("down", now - 60_000, "succeeded", now - 60_000)])
    newest = replace(ending("down", now, State.DEAD), attempts=(Attempt(1, now, "n", 1, 1.0, 500),))
    await history.record(api.db, [newest], 7)
    comparer = ResultComparer(api.db, api.clock)
    assert await comparer.step() == 0
    api.clock.shift += 61_000
    assert await comparer.step() == 1
    assert await walk(api, "failing=true") == ["down"]


async def test_pages_of_the_comparison_reach_every_job(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many jobs have no history."""
    monkeypatch.setattr("cluster.leader.compare_results.JOBS", 2)
    for i in range(5):
        await api.make(jobId=f"j{i}")
    await ran(api, 500, "z")
    comparer = ResultComparer(api.db, api.clock)
    assert [await comparer.step() for _ in range(4)] == [0, 0, 1, 0]
    assert await walk(api, "failing=true") == ["z"]


async def test_saving_in_any_order_ends_with_the_latest_result(api: Api) -> None:
    """A save that comes late moves no job back, and may be repeated."""
    await api.make(jobId="a")
    for due, state, run in ((3, "dead", 3), (1, "succeeded", 9), (2, "failed", None), (3, "dead", 3)):
        await last_results.save(api.db, [LastResult("a", T0 + due, state, None if run is None else T0 + run)])
    d = await api.db.api["jobs"].find_one({"_id": "a"})
    assert d is not None
    assert (int(d["last_due_at"]), d["last_state"], int(d["last_run_at"]), d["failing"]) == (
        T0 + 3,
        "dead",
        T0 + 9,
        True,
    )
    assert d["revision"] == 1
    await last_results.save(api.db, [LastResult("nobody", T0, "dead"), LastResult("a", T0 + 3, "succeeded")])
    assert await walk(api, "failing=true") == []
    assert await api.db.api["jobs"].count_documents({}) == 1


async def test_a_changed_job_keeps_its_last_result(api: Api) -> None:
    """Changes of a job and results of its executions do not overwrite each other."""
    await api.make(jobId="a")
    await last_results.save(api.db, [LastResult("a", T0, "dead", T0)])
    await api.call("PATCH", "/jobs/a", {"name": "n"})
    assert (await listed(api, "a"))["failing"] is True


def test_a_node_saves_a_bounded_number_of_results_and_changes_of_failing_first() -> None:
    """However many executions end: of a job only the latest counts."""
    waiting = LastResults()
    for turn in range(5):
        waiting.add([ending(f"j{i}", T0 + turn * BUSY_MS, State.SUCCEEDED) for i in range(3 * SAVED_PER_TURN)])
    waiting.add([ending("j599", T0 + 9 * BUSY_MS, State.DEAD), ending("j0", T0 + 1, State.DEAD)])
    assert len(waiting) == 3 * SAVED_PER_TURN
    first = waiting.take()
    assert (len(first), first[0]) == (SAVED_PER_TURN, LastResult("j599", T0 + 9 * BUSY_MS, "dead"))
    assert first[1] == LastResult("j0", T0 + 4 * BUSY_MS, "succeeded")
    waiting.return_unsaved(first)
    assert waiting.take(1)[0].job_id == "j599"
    left = [r.job_id for _ in range(4) for r in waiting.take()]
    assert len(left) == len(set(left)) == 3 * SAVED_PER_TURN - 1
    waiting.add([ending("x", T0, State.SUCCEEDED), ending("j599", T0 + 20 * BUSY_MS, State.SUCCEEDED)])
    assert waiting.take(1)[0].job_id == "j599", "it does not fail any more"


def test_of_jobs_that_run_again_and_again_few_are_saved() -> None:
    """Their saved results are outdated a moment later; changes of failing and jobs that run rarely do not wait for them."""
    waiting = LastResults()
    jobs = [f"j{i}" for i in range(SAVED_PER_TURN)]
    waiting.add([ending(j, T0, State.SUCCEEDED) for j in jobs])
    assert len(waiting.take()) == SAVED_PER_TURN, "they run for the first time"
    seen = list[str]()
    for turn in range(1, SAVED_PER_TURN // BUSY_SAVED_PER_TURN + 1):
        waiting.add([ending(j, T0 + 1000 * turn, State.SUCCEEDED) for j in jobs])
        taken = waiting.take()
        assert {r.due_ms for r in taken} == {T0 + 1000 * turn}
        assert len(taken) == BUSY_SAVED_PER_TURN
        seen += [r.job_id for r in taken]
    assert sorted(seen) == sorted(jobs), "each in its turn"
    at = T0 + 15_000
    waiting.add([ending("j7", at, State.DEAD), ending("rare", at, State.SUCCEEDED)])
    first = waiting.take()
    assert [r.job_id for r in first[:2]] == ["j7", "rare"]
    waiting.add([ending("rare", at + BUSY_MS, State.SUCCEEDED)])
    assert waiting.take()[0].job_id == "rare", "it runs every half minute"
    waiting.take(len(jobs))
    assert len(waiting) == 0, "at a shutdown"


def test_jobs_that_run_again_before_their_first_result_was_saved_are_saved_as_few() -> None:
    """Thousands of jobs of every second begin at once: what is written of them does not show in the cost of an execution."""
    waiting = LastResults()
    jobs = [f"j{i}" for i in range(2 * SAVED_PER_TURN)]
    waiting.add([ending(j, T0, State.SUCCEEDED) for j in jobs])
    saved = [r.job_id for r in waiting.take()]
    assert len(saved) == SAVED_PER_TURN
    for second in range(1, 1 + len(jobs) // BUSY_SAVED_PER_TURN):
        waiting.add([ending(j, T0 + 1000 * second, State.SUCCEEDED) for j in jobs])
        taken = waiting.take()
        assert len(taken) == BUSY_SAVED_PER_TURN
        assert {r.due_ms for r in taken} == {T0 + 1000 * second}
        saved += [r.job_id for r in taken]
    assert set(saved) == set(jobs), "each in its turn"
    waiting.add([ending("late", T0 + BUSY_MS, State.SUCCEEDED)])
    waiting.add([ending(j, T0 + BUSY_MS, State.SUCCEEDED) for j in jobs])
    waiting.add([ending("late", T0, State.DEAD)])
    assert LastResult("late", T0 + BUSY_MS, "succeeded") in waiting.take(), (
        "the end of an earlier run makes no job busy"
    )


def test_a_change_of_failing_that_could_not_be_saved_is_saved_first_whatever_comes_meanwhile() -> None:
    """The database did not answer, and the job has run again."""
    waiting = LastResults()
    jobs = [f"j{i}" for i in range(2 * SAVED_PER_TURN)]
    for second in range(2):
        waiting.add([ending(j, T0 + 1000 * second, State.SUCCEEDED) for j in jobs])
    waiting.add([ending("j9", T0 + 2000, State.DEAD)])
    first = waiting.take()
    assert first[0].job_id == "j9"
    waiting.return_unsaved(first)
    waiting.add([ending("j9", T0 + 3000, State.DEAD)])
    assert LastResult("j9", T0 + 3000, "dead") in waiting.take()
    waiting.add([ending("j9", T0 + 4000, State.SUCCEEDED)])
    first = waiting.take()
    waiting.add([ending("j9", T0 + 5000, State.DEAD)])
    waiting.return_unsaved(first)
    waiting.add([ending("j9", T0 + 6000, State.SUCCEEDED)])
    assert LastResult("j9", T0 + 6000, "succeeded") in waiting.take()


@pytest.mark.parametrize("nodes", [1, 2, 8, 32])
def test_nodes_save_no_more_results_however_many_they_are(nodes: int) -> None:
    """Each of many sees a job of every second rarely, and knows all the same that its result is outdated soon."""
    waiting = [LastResults() for _ in range(nodes)]
    for one in waiting:
        one.share_with(nodes)
    jobs = [f"j{i}" for i in range(SAVED_PER_TURN)]
    saved = []
    for second in range(4 * nodes):
        for i, job in enumerate(jobs):
            waiting[(i + second) % nodes].add([ending(job, T0 + 1000 * second, State.SUCCEEDED)])
        saved.append(sum(len(one.take()) for one in waiting))
    busy = saved[2 * nodes :]
    assert max(busy) <= max(2 * BUSY_SAVED_PER_TURN, nodes)
    assert max(saved) <= 2 * SAVED_PER_TURN
    waiting[0].add([ending("once", T0, State.SUCCEEDED)])
    assert "once" in [r.job_id for r in waiting[0].take()]
