"""A replay deletes what a dead node has left of an execution, so what follows that is written first; also for many at once."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import httpx
import orjson
import pytest

from cluster.store import executions
from tests.support.api_client import TARGET
from tests.support.engine import Crank, check_books, lead, rows, worker
from tests.support.leaders import Crashed, crash_after
from tests.support.workers import retries_now, run_dry

if TYPE_CHECKING:
    from tests.support.api_client import Api

TOLD = "http://127.0.0.1:5002"
BOTH = {"onSuccess": {"api": f"{TOLD}/yes"}, "onFailure": {"api": f"{TOLD}/no"}}


class Receiver:
    """Answers the target with a status, and notes whom callbacks tell of what, and which chained jobs came."""

    def __init__(self) -> None:
        self.status = 404
        self.heard: list[tuple[str, str]] = []
        self.ran: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.port == 5002:
            self.heard.append((request.url.path, orjson.loads(request.content)["executionId"]))
        elif request.url.path == "/chained":
            self.ran.append(request.headers["horae-job-id"])
        else:
            return httpx.Response(self.status)
        return httpx.Response(200)


async def deliver(api: Api, receiver: Receiver, rounds: int = 2) -> None:
    for _ in range(rounds):
        await retries_now(api.db)
        await run_dry(worker(api.db, receiver))


async def ended_and_not_followed(api: Api, receiver: Receiver, patch: pytest.MonkeyPatch) -> list[str]:
    """A message and the run of a job that a job is chained to. Both have failed; their nodes died behind the record."""
    await api.call("PUT", "/jobs/p", {"schedule": "@yearly", "api": TARGET, **BOTH})
    await api.call("PUT", "/jobs/c", {"after": {"jobId": "p", "on": "any"}, "api": "http://127.0.0.1:5001/chained"})
    made: list[str] = []
    for path, body in (("/messages", {"api": TARGET, **BOTH}), ("/jobs/p/trigger", None)):
        made.append((await api.call("POST", path, body)).json["executionId"])
        with patch.context() as patched:
            crash_after(patched, "history", "record", 1)
            with contextlib.suppress(Crashed):
                await run_dry(worker(api.db, receiver, "dead"))
    assert sorted(h["_id"] for h in await rows(api.db, "history")) == sorted(made)
    assert receiver.heard == []
    return made


async def replay_many(api: Api, state: str = "failed") -> int:
    """By the API; and the leader's steps, until there is nothing left of it."""
    wanted = {"filter": {"state": [state]}, "maxPerSecond": 1000}
    assert (await api.call("POST", "/executions/retry", wanted)).status_code == 202
    clock = Crank(api.clock.now_ms())
    replayer = (await lead(api.db, clock)).replayer
    done = 0
    for _ in range(5):
        done += (await replayer.step(clock.now)).executions
        clock.now += 50
    return done


async def test_a_replay_of_many_owes_what_dead_nodes_did_not(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each failure is told once, whatever is replayed; each success that a replay brings is told too."""
    receiver = Receiver()
    made = await ended_and_not_followed(api, receiver, monkeypatch)
    assert await replay_many(api) == 2
    await deliver(api, receiver)
    assert sorted(receiver.heard) == [("/no", name) for name in sorted(made)]
    assert receiver.ran == ["c"]
    receiver.status = 200
    assert await replay_many(api) == 2
    await deliver(api, receiver)
    assert sorted(receiver.heard) == sorted((path, name) for path in ("/no", "/yes") for name in made)
    assert receiver.ran == ["c"], "an execution is followed by each job once"
    assert await rows(api.db, "executions") == []
    await check_books(api.db)


@pytest.mark.parametrize(
    ("module", "name"), [("executions", "insert"), ("batches", "insert"), ("replayable", "reopen_page")]
)
async def test_a_leader_that_dies_in_a_replay_of_many_tells_once(
    api: Api, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    """Its successor takes the page that was begun."""
    receiver = Receiver()
    made = await ended_and_not_followed(api, receiver, monkeypatch)
    with monkeypatch.context() as patched:
        crash_after(patched, module, name, 1)
        with pytest.raises(Crashed):
            await replay_many(api)
    clock = Crank(api.clock.now_ms() + 100_000)  # what was reopened and is owed by nobody is repaired after a while
    leader = await lead(api.db, clock, "b")
    for _ in range(3):
        await leader.replayer.step(clock.now)
        clock.now += 1000
    await leader.sweeper.repair_orphans()
    await deliver(api, receiver)
    assert sorted(receiver.heard) == [("/no", name) for name in sorted(made)]
    assert receiver.ran == ["c"]
    assert await rows(api.db, "executions") == []


async def test_the_sweep_owes_what_follows_a_late_success(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The execution had been given up and has gone; the node that reported the success died before it wrote what follows."""
    receiver = Receiver()
    made = await ended_and_not_followed(api, receiver, monkeypatch)
    for name in ("executions", "batches"):
        await api.db.api[name].delete_many({})
    late = {"$set": {"state": "succeeded", "unfollowed": True}}
    await api.db.api["history"].update_many({"_id": {"$in": made}}, late)
    for _ in range(2):  # the second finds nothing
        leader = await lead(api.db, Crank(api.clock.now_ms()))
        await leader.sweeper.step()
        assert await api.db.api["history"].count_documents({"unfollowed": True}) == 0
        await deliver(api, receiver)
        assert sorted(receiver.heard) == [("/yes", name) for name in sorted(made)]
        assert receiver.ran == ["c"]


async def marked_and_gone(api: Api, receiver: Receiver, patch: pytest.MonkeyPatch) -> list[str]:
    """Both were cancelled, and have gone; then a node that had sent them came with its failures, and died behind its record."""
    made = await ended_and_not_followed(api, receiver, patch)
    for name in ("executions", "batches"):
        await api.db.api[name].delete_many({})
    await api.db.api["history"].update_many({"_id": {"$in": made}}, {"$set": {"unfollowed": True}})
    return made


async def replay_each(api: Api, made: list[str]) -> None:
    for name in made:
        assert (await api.call("POST", f"/executions/{name}/retry")).status_code == 202


@pytest.mark.parametrize("many", [False, True], ids=["each", "many"])
@pytest.mark.parametrize("status", [404, 200])
async def test_a_replay_owes_what_follows_a_result_that_came_late(
    api: Api, monkeypatch: pytest.MonkeyPatch, status: int, *, many: bool
) -> None:
    """The replay takes that result back, so that the mark of its record would say nothing any more."""
    receiver = Receiver()
    made = await marked_and_gone(api, receiver, monkeypatch)
    receiver.status = status
    if many:
        assert await replay_many(api) == 2
    else:
        await replay_each(api, made)
    assert await api.db.api["history"].count_documents({"unfollowed": True}) == 0
    await deliver(api, receiver)
    told = ["/no"] if status == 404 else ["/no", "/yes"]
    assert sorted(receiver.heard) == sorted((path, name) for path in told for name in made)
    assert receiver.ran == ["c"]
    await check_books(api.db)


@pytest.mark.parametrize("many", [False, True], ids=["each", "many"])
async def test_a_late_result_that_comes_in_the_middle_of_a_replay_is_followed_first(
    api: Api, monkeypatch: pytest.MonkeyPatch, *, many: bool
) -> None:
    """It comes between what the replay writes for the result that it met, and the write that reopens the record."""
    receiver = Receiver()
    made = await marked_and_gone(api, receiver, monkeypatch)
    as_before = {"$set": {"state": "cancelled"}, "$unset": {"unfollowed": ""}}
    await api.db.api["history"].update_many({}, as_before)
    real = executions.delete_ended

    async def overtaken(*args: Any) -> int:
        late = {"$set": {"state": "failed", "unfollowed": True}}
        await api.db.api["history"].update_many({"state": "cancelled"}, late)
        return await real(*args)

    monkeypatch.setattr(executions, "delete_ended", overtaken)
    if many:
        assert await replay_many(api, "cancelled") == 2
    else:
        await replay_each(api, made)
    receiver.status = 200
    await deliver(api, receiver)
    assert sorted(receiver.heard) == sorted((path, name) for path in ("/no", "/yes") for name in made)
    assert await rows(api.db, "executions") == []


async def test_what_an_unreadable_execution_left_is_followed_before_a_replay_deletes_it(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a failed message wanted told is in its record too."""
    receiver = Receiver()
    made = await ended_and_not_followed(api, receiver, monkeypatch)
    await api.db.api["executions"].update_many({}, {"$unset": {"lane": ""}})
    await replay_each(api, made)
    receiver.status = 200
    await deliver(api, receiver)
    assert sorted(receiver.heard) == sorted((path, name) for path in ("/no", "/yes") for name in made)
    assert receiver.ran == ["c"]


@pytest.mark.parametrize("spoiled", [{"$unset": {"lane": ""}}, {"$set": {"attempts": [1]}}])
async def test_what_an_unreadable_execution_of_a_job_owes_is_owed_by_whoever_ends_it(
    api: Api, spoiled: dict[str, Any]
) -> None:
    """The sweep, if it has no batch. A message's callbacks are in the document that nobody can read."""
    receiver = Receiver()
    await api.call("PUT", "/jobs/p", {"schedule": "@yearly", "api": TARGET, **BOTH})
    await api.call("PUT", "/jobs/c", {"after": {"jobId": "p", "on": "failed"}, "api": "http://127.0.0.1:5001/chained"})
    await api.call("POST", "/messages", {"api": TARGET, **BOTH})
    run = (await api.call("POST", "/jobs/p/trigger")).json["executionId"]
    await api.db.api["executions"].update_many({}, spoiled)
    await api.db.api["batches"].delete_many({})
    leader = await lead(api.db, Crank(api.clock.now_ms()))
    await leader.sweeper.step()
    assert {h["state"] for h in await rows(api.db, "history")} == {"dead"}
    await deliver(api, receiver)
    assert receiver.heard == [("/no", run)]
    assert receiver.ran == ["c"]


async def test_what_an_unreadable_execution_owes_is_owed_by_the_node_that_holds_it(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It becomes unreadable between its stamp and its reading."""
    receiver = Receiver()
    await api.call("PUT", "/jobs/p", {"schedule": "@yearly", "api": TARGET, **BOTH})
    await api.call("PUT", "/jobs/c", {"after": {"jobId": "p", "on": "failed"}, "api": "http://127.0.0.1:5001/chained"})
    run = (await api.call("POST", "/jobs/p/trigger")).json["executionId"]
    real = executions.stamp

    async def spoiling(*args: Any) -> int:
        stamped = await real(*args)
        await api.db.api["executions"].update_one({"_id": run}, {"$set": {"attempts": [1]}})
        return stamped

    with monkeypatch.context() as patched:
        patched.setattr(executions, "stamp", spoiling)
        await run_dry(worker(api.db, receiver))
    await deliver(api, receiver)
    assert receiver.heard == [("/no", run)]
    assert receiver.ran == ["c"]
    assert await rows(api.db, "executions") == []
