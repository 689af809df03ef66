"""That and when somebody asked to send again is kept in history, by every way there is, and `horae verify` goes by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from cluster.core.execution.model import Attempt, Ending, Execution
from cluster.core.ids import execution_id
from cluster.core.lifecycle import State
from cluster.store import history, replayable
from cluster.store.replays import Replay, ReplayFilter
from cluster.usecases import jobs
from tests.support.cranked_cluster import EACH, Cluster
from tests.support.engine import T0, job_document, put_jobs, rows

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

TWICE = {**EACH, "retry": {"maxAttempts": 2, "initialDelaySeconds": 1, "maxDelaySeconds": 1, "jitter": 0}}


async def test_what_was_asked_for_is_explained_and_nothing_else(database: Database) -> None:
    """Dead after two attempts, asked for, sent well: no finding. The same without a trace of anybody's asking is one."""
    status = 500
    c = await Cluster.begin(database, lambda _: httpx.Response(status))
    await c.put("a", TWICE)
    await c.run(8)
    dead = [d for d in await rows(database, "history") if d["state"] == "dead"]
    assert [a["n"] for a in dead[0]["attempts"]] == [1, 2]
    assert [d["asked_at"] for d in dead] == [None] * len(dead)
    status = 200
    c.clock.now += 123
    asked = c.clock.now
    await jobs.replay(database, dead[0]["_id"], asked, 3650)
    await c.run(2)
    sent = await database.api["history"].find_one({"_id": dead[0]["_id"]})
    assert sent is not None
    assert (sent["state"], [a["n"] for a in sent["attempts"]]) == ("succeeded", [1, 2, 1])
    assert int(sent["asked_at"]) == asked
    assert await c.findings() == {}
    here = {"_id": sent["_id"]}
    await database.api["history"].update_one(here, {"$set": {"asked_at": None}})
    assert await c.findings() == {"a": ["duplicate"]}
    await database.api["history"].update_one(here, {"$unset": {"asked_at": ""}})
    assert await c.findings() == {}, "of a release that kept nothing"


def _ended(state: State, token: int, sent_ms: int, asked_ms: int | None = None, status: int = 503) -> Ending:
    x = Execution(execution_id("a", T0), "a", T0, T0, "v1", "b", 0, token=token, replayed_ms=asked_ms)
    attempt = Attempt(1, sent_ms, "n", token, 5.0, status)
    return Ending(x, state, sent_ms + 10, (attempt,), "why", 3)


async def _asked(db: Database) -> int | None:
    (d,) = await rows(db, "history")
    return None if d["asked_at"] is None else int(d["asked_at"])


async def test_the_last_time_stays_whatever_comes_when(database: Database) -> None:
    """Reopened, sent, failed, reopened: the last time is kept, and a success of before that comes late does not undo it."""
    first = _ended(State.DEAD, 1, T0)
    await history.record(database, [first], 3650)
    assert await _asked(database) is None
    assert await history.reopen(database, first.execution.id, T0 + 1000, 3650)
    assert await _asked(database) == T0 + 1000
    await history.record(database, [_ended(State.FAILED, 1, T0 + 1100, T0 + 1000)], 3650)
    assert await history.reopen(database, first.execution.id, T0 + 2000, 3650)
    await history.record(database, [_ended(State.SUCCEEDED, 2, T0 + 50, status=200)], 3650)
    assert await _asked(database) == T0 + 2000
    await history.record(database, [_ended(State.DEAD, 1, T0 + 3100, T0 + 3000)], 3650)
    assert await _asked(database) == T0 + 3000, "it lost to the success, and was sent all the same"


async def test_a_record_of_before_stays_one(database: Database) -> None:
    """What an older release wrote says nothing until somebody asks: a later result does not make it say that nobody did."""
    first = _ended(State.DEAD, 1, T0)
    await history.record(database, [first], 3650)
    await database.api["history"].update_many({}, {"$unset": {"asked_at": ""}})
    await history.record(database, [_ended(State.SUCCEEDED, 2, T0 + 50, status=200)], 3650)
    (d,) = await rows(database, "history")
    assert (d["state"], "asked_at" in d) == ("succeeded", False)


async def test_many_at_once(database: Database) -> None:
    """Sending many again leaves the same trace."""
    await put_jobs(database, job_document("a", active_from=0))
    await history.record(database, [_ended(State.DEAD, 1, T0)], 3650)
    replay = Replay("r", ReplayFilter(), 10.0, T0 + 5000, 1, page=(execution_id("a", T0),))
    assert len(await replayable.reopen_page(database, replay, T0 + 6000, 3650)) == 1
    assert await _asked(database) == T0 + 6000
    assert len(await replayable.reopen_page(database, replay, T0 + 7000, 3650)) == 1
    assert await _asked(database) == T0 + 6000, "a page that is done once more asks for nothing anew"
