"""Results against a real database: recorded once, with every attempt, whichever write the node dies at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
from bson.datetime_ms import DatetimeMS

from tests.support.engine import check_books, rows, worker
from tests.support.waiting import eventually
from tests.support.workers import DUE, SHORT, answering, owed, retries_now, run_dry

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
    # It was due long ago and claimed just now. Only a first attempt says where its lateness came from.
    assert [sorted(a.get("late", {}))[:1] for a in found["attempts"]] == [["claimed"], [], []]
    assert abs(sum(found["attempts"][0]["late"].values()) - found["drift_ms"]) <= 1
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


async def test_a_retry_that_succeeds_keeps_both_attempts(database: Database) -> None:
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


async def test_recording_the_same_results_twice_changes_nothing(database: Database) -> None:
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
    """One execution succeeds, one is retried, one is refused; the next node completes them, and no success is
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


async def _true(value: Any) -> Any:
    return value
