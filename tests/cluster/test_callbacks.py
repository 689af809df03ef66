"""Callbacks: told once for each execution that ended, whichever write the node dies at, with what the target answered."""

from __future__ import annotations

import base64
import contextlib
from typing import TYPE_CHECKING, Any

import httpx
import orjson
import pytest

from cluster.core.documents.job_json import read_job
from cluster.core.instants import format_instant
from cluster.core.job.definition import Callback
from cluster.store import channels, follow_ups, followed
from cluster.usecases import executions, jobs
from cluster.usecases.messages import cancel
from tests.support.cranked_cluster import CONTEXT
from tests.support.engine import T0, Crank, check_books, lead, rows, worker
from tests.support.leaders import Crashed, crash_after
from tests.support.messages import send
from tests.support.workers import deliver_until

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

TOLD = "http://127.0.0.1:2/told"
BOTH = {"onSuccess": {"api": f"{TOLD}/yes"}, "onFailure": {"api": f"{TOLD}/no"}}


class Target:
    """Answers `/x` with the next of some statuses, and everything else, which is told, with 200."""

    def __init__(self, *statuses: int, content: bytes = b"done", headers: dict[str, str] | None = None) -> None:
        self.statuses = list(statuses)
        self.content, self.headers = content, headers or {}
        self.told: list[tuple[str, dict[str, Any], httpx.Headers]] = []
        self.came = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path != "/x":
            self.told.append((request.url.path, orjson.loads(request.content), request.headers))
            return httpx.Response(200)
        self.came += 1
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return httpx.Response(status, content=self.content, headers=self.headers)

    @property
    def said(self) -> list[tuple[str, str]]:
        """The path and the execution of each callback."""
        return [(path.rpartition("/")[2], content["executionId"]) for path, content, _ in self.told]


async def put(db: Database, job: str, **fields: Any) -> None:
    body = {"schedule": "@yearly", "api": "http://127.0.0.1:1/x", **BOTH, **fields}
    await jobs.put(db, job, read_job(body, CONTEXT), T0 - 5000)


async def deliver(db: Database, target: Target) -> None:
    """Everything that is due, and what follows it."""
    w = worker(db, target, clock=Crank())
    await deliver_until(db, w, T0 + 10_000_000)
    await deliver_until(db, w, T0 + 10_000_000)


async def test_a_job_tells_of_a_success_with_the_answer_of_its_target(database: Database) -> None:
    target = Target(201, headers={"X-Id": "7"})
    await put(database, "j", timeoutSeconds=3)
    name = await executions.trigger(database, "j", T0)
    await deliver(database, target)
    ((path, content, headers),) = target.told
    assert path == "/told/yes"
    expected = {"executionId": name, "jobId": "j", "state": "succeeded", "attempts": 1, "status": 201, "body": "done"}
    assert {n: content[n] for n in expected} == expected
    assert (content["bodyEncoding"], content["bodyTruncated"], content["headers"]["x-id"]) == ("text", False, "7")
    assert headers["horae-callback-for"] == name
    assert headers["idempotency-key"] == headers["horae-execution-id"] != name
    assert "horae-job-id" not in headers
    assert await rows(database, "executions") == await rows(database, "batches") == []
    await check_books(database)


async def test_a_failure_is_told_after_the_last_attempt_and_a_success_is_not(database: Database) -> None:
    target = Target(500, 503)
    await put(database, "j", onSuccess=None, retry={"maxAttempts": 2})
    name = await executions.trigger(database, "j", T0)
    await deliver_until(database, worker(database, target, clock=Crank()), T0 + 500)
    assert target.came == 1
    await deliver_until(database, worker(database, target, clock=Crank()), T0 + 500)
    assert target.told == []
    await deliver(database, target)
    assert target.said == [("no", name)]
    content = target.told[0][1]
    assert (content["state"], content["attempts"], content["status"]) == ("dead", 2, 503)
    assert "all 2 attempts failed" in content["reason"]
    target.statuses = [200]
    await executions.trigger(database, "j", T0 + 100)
    await deliver(database, target)
    assert len(target.told) == 1


async def test_a_message_tells_of_its_end_and_a_callback_has_no_callback(database: Database) -> None:
    target = Target(200)
    callback = Callback(url=f"{TOLD}/yes")
    (name,) = await send(database, T0, T0, on_success=callback, on_failure=callback)
    await deliver(database, target)
    assert target.said == [("yes", name)]
    assert target.told[0][1]["messageId"] == name.partition(":")[0]
    of_callback = next(h for h in await rows(database, "history") if h["_id"] != name)
    assert (of_callback["request"], of_callback["state"]) == (name, "succeeded")


async def test_a_body_that_is_no_text_is_told_in_base64_and_a_long_one_is_cut(database: Database) -> None:
    raw = b"\xff\x00" * 20_000
    target = Target(200, content=raw)
    await send(database, T0, T0, on_success=Callback(url=f"{TOLD}/yes"))
    await deliver(database, target)
    content = target.told[0][1]
    assert (content["bodyEncoding"], content["bodyTruncated"]) == ("base64", True)
    assert base64.b64decode(content["body"]) == raw[: 16 * 1024]


async def test_secrets_of_the_request_are_not_told(database: Database) -> None:
    """A target that repeats what it was sent does not hand the secret on to another host."""
    target = Target(200, content=b"you sent s3cretvalue", headers={"X-Echo": "s3cretvalue"})
    await send(database, T0, T0, secret_headers=(("X-Key", "s3cretvalue"),), on_success=Callback(url=f"{TOLD}/yes"))
    await deliver(database, target)
    assert b"s3cretvalue" not in orjson.dumps(target.told[0][1])


async def test_a_callback_sends_its_own_headers_and_signature(database: Database) -> None:
    """Its secrets are stored encrypted, and go along with the execution that sends it."""
    target = Target(200)
    secret = "whsec_" + "A" * 32
    named = {"X-A": "{{jobId}} {{executionId}}: {{attempt}}, {{scheduledAt}}", "X-B": "{{{{jobId}}}}"}
    sealed = {"X-Key": {"secret": "s3cretvalue{{jobId}}"}}
    callback = {"api": TOLD, "headers": {**named, **sealed}, "signingSecret": secret}
    await put(database, "j", onSuccess=callback)
    name = await executions.trigger(database, "j", T0)
    await deliver_until(database, worker(database, target, clock=Crank()), T0 + 5000)
    stored = repr(await rows(database, "jobs")) + repr(await rows(database, "executions"))
    assert "s3cretvalue" not in stored
    assert secret not in stored
    await deliver(database, target)
    headers = target.told[0][2]
    due = format_instant(int(name.rpartition(":")[2]))
    assert headers["x-a"] == f"j {name}: 1, {due}", "of the execution that it tells"
    assert (headers["x-b"], headers["x-key"]) == ("{{jobId}}", "s3cretvalue{{jobId}}")
    assert headers["webhook-signature"].startswith("v1,")


async def test_a_channel_is_told_in_its_own_form(database: Database) -> None:
    await channels.put(database, channels.Channel("ops", "slack", url=f"{TOLD}/slack"))
    target = Target(404)
    await send(database, T0, T0, on_failure=Callback(channel="ops"))
    await deliver(database, target)
    ((path, content, _),) = target.told
    assert path == "/told/slack"
    assert list(content) == ["text"]
    assert "failed after 1 attempt" in content["text"]


async def test_a_callback_to_a_channel_that_cannot_be_formed_keeps_no_other_from_being_sent(database: Database) -> None:
    await channels.put(database, channels.Channel("ops", "slack", url=f"{TOLD}/slack"))
    target = Target(404)
    await send(database, T0, T0, on_failure=Callback(channel="ops"))
    await send(database, T0, T0, on_failure=Callback(url=f"{TOLD}/no"))
    await deliver_until(database, worker(database, target, clock=Crank()), T0 + 5000)
    of_channel = {"message.channel": "ops"}
    changed = await database.api["executions"].update_one(of_channel, {"$set": {"message.body": b"{nope"}})
    assert changed.matched_count == 1
    await deliver(database, target)
    assert [path for path, _, _ in target.told] == ["/told/no"]
    broken = await database.api["history"].find_one({"reason": {"$regex": "JSONDecodeError"}})
    assert broken is not None
    assert broken["state"] == "dead"


WRITES = [
    ("history", "record", 1),
    ("executions", "insert", 1),
    ("followed", "recorded", 1),
    ("batches", "insert", 1),
    ("executions", "delete_final", 1),
]


@pytest.mark.parametrize(("module", "name", "nth"), WRITES)
async def test_a_node_that_dies_at_any_write_tells_once(
    database: Database, monkeypatch: pytest.MonkeyPatch, module: str, name: str, nth: int
) -> None:
    """Whoever claims the execution that is final and still owed writes what follows it."""
    target = Target(404)
    await put(database, "j")
    wanted = await executions.trigger(database, "j", T0)
    with monkeypatch.context() as patched:
        crash_after(patched, module, name, nth)
        with contextlib.suppress(Crashed):
            await deliver_until(database, worker(database, target, "dead", clock=Crank()), T0 + 5000)
    await deliver(database, target)
    leader = await lead(database, Crank())
    await leader.sweeper.repair_orphans()
    await deliver(database, target)
    assert target.came == 1
    assert target.said == [("no", wanted)]
    assert await rows(database, "executions") == []
    await check_books(database)


@pytest.mark.parametrize(("status", "said"), [(404, ["no"]), (200, ["no", "yes"])])
async def test_a_replay_owes_what_a_dead_node_did_not_and_tells_the_same_only_once(
    database: Database, monkeypatch: pytest.MonkeyPatch, status: int, said: list[str]
) -> None:
    """The replay deletes what the node has left of the execution, so it writes what follows it first."""
    target = Target(404)
    await put(database, "j")
    wanted = await executions.trigger(database, "j", T0)
    with monkeypatch.context() as patched:
        crash_after(patched, "history", "record", 1)
        with contextlib.suppress(Crashed):
            await deliver_until(database, worker(database, target, "dead", clock=Crank()), T0 + 5000)
    target.statuses = [status]
    await executions.replay(database, wanted, T0 + 60_000, 7.0)
    await deliver(database, target)
    assert sorted(target.said) == [(which, wanted) for which in said]


async def test_a_success_that_comes_while_a_failure_is_followed_late_is_told_as_well(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its node dies when it has recorded it. Who writes what follows the failure must leave the mark of the success."""
    target = Target(404)
    await put(database, "j")
    wanted = await executions.trigger(database, "j", T0)
    await deliver(database, target)
    read = followed.results

    async def overtaken(*args: Any) -> Any:
        found = await read(*args)
        monkeypatch.setattr(followed, "results", read)
        await marked("succeeded")
        return found

    async def marked(state: str) -> None:
        change = {"$set": {"state": state, "unfollowed": True}}
        assert (await database.api["history"].update_one({"_id": wanted}, change)).matched_count

    await marked("failed")
    monkeypatch.setattr(followed, "results", overtaken)
    assert await follow_ups.repair(database) == 1
    assert await follow_ups.repair(database) == 1
    assert await follow_ups.repair(database) == 0
    await deliver(database, target)
    assert target.said == [("no", wanted), ("yes", wanted)]


async def test_nothing_is_told_of_what_was_cancelled_by_hand_or_by_a_deletion(database: Database) -> None:
    target = Target(200)
    both = {"on_success": Callback(url=f"{TOLD}/yes"), "on_failure": Callback(url=f"{TOLD}/no")}
    (name,) = await send(database, T0, T0, **both)
    await cancel(database, name.partition(":")[0], T0, 7.0)
    await put(database, "j")
    await executions.trigger(database, "j", T0)
    await jobs.delete(database, "j", T0)
    await deliver(database, target)
    assert target.told == []
    assert {h["state"] for h in await rows(database, "history")} == {"cancelled"}


async def test_an_execution_without_callback_costs_no_read_more(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a job that nothing follows, recording asks nothing."""

    async def never(*_: Any) -> Any:
        raise AssertionError("nothing follows this")

    for function in ("results", "jobs", "chained", "recorded"):
        monkeypatch.setattr(f"cluster.store.followed.{function}", never)
    await put(database, "j", onSuccess=None, onFailure=None)
    await executions.trigger(database, "j", T0)
    await send(database, T0, T0)
    await deliver_until(database, worker(database, Target(200), clock=Crank()), T0 + 5000)
    assert [h["state"] for h in await rows(database, "history")] == ["succeeded"] * 2
