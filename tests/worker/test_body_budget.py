"""Memory: large bodies are read when there is room for them, and only a bounded number of bytes is in memory."""

from __future__ import annotations

import asyncio
import base64
import hmac
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from cluster.clock import Clock
from cluster.core.errors import StoreUnavailable
from cluster.core.execution.model import Attempt, Batch, Execution
from cluster.core.ids import execution_id
from cluster.leader import replay
from cluster.store import engine_jobs, executions, replays
from cluster.store.mongo.codec import INLINE_BODY_BYTES
from cluster.store.queries import message_states
from cluster.store.replays import Replay, ReplayFilter
from cluster.worker import claiming, record
from cluster.worker.held_batch import HeldBatch
from tests.support.engine import check_books, lead, noting, rows, worker
from tests.support.messages import send
from tests.support.waiting import eventually
from tests.support.workers import DUE, answering, ended, owed, record_all, run_dry

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database
    from cluster.worker.slots import Slots
    from cluster.worker.worker import Worker

KIB = 1024
BODY = 64 * KIB
SECRET = "whsec_" + base64.b64encode(b"0123456789-0123456789-abcdef").decode()


def with_room(w: Worker, max_body_bytes: int) -> Slots:
    slots: Slots = w.context.slots
    slots._max_body_bytes = max_body_bytes
    return slots


def held_bytes(w: Worker) -> int:
    """The bytes of bodies that this node has in memory, waiting, in flight or to be recorded."""
    ready = [r for _, _, r in w.dispatcher.run_queue._heap]
    for queue in w.dispatcher.host_queues._queues.values():
        ready += queue
    unrecorded: list[Any] = w.context.records._results
    return sum(len(r.job.target.body) for r in (*ready, *unrecorded)) + w.context.slots.body_bytes


async def test_only_so_many_bytes_of_large_bodies_are_in_memory(database: Database) -> None:
    """Sixty of 64 KiB, due at once, with room for four: never more are in memory, and each arrives once and whole."""
    came: dict[str, bytes] = {}
    most = most_in_flight = in_flight = 0
    two = asyncio.Event()

    async def target(request: httpx.Request) -> httpx.Response:
        nonlocal in_flight, most, most_in_flight
        in_flight += 1
        most, most_in_flight = max(most, held_bytes(w)), max(most_in_flight, in_flight)
        if in_flight > 1:
            two.set()
        async with asyncio.timeout(10):
            await two.wait()
        came[request.headers["horae-job-id"]] = request.content
        in_flight -= 1
        return httpx.Response(200)

    w = worker(database, target)
    slots = with_room(w, 4 * BODY)
    await owed(database, *(f"a{i}" for i in range(60)), body=b"x" * BODY, body_kind="text")
    await run_all(database, w)
    assert most <= 4 * BODY
    assert 1 < most_in_flight <= 4
    assert len(came) == 60
    assert set(came.values()) == {b"x" * BODY}
    assert (slots.body_bytes, slots.in_flight) == (0, 0)
    assert {h["state"] for h in await rows(database, "history")} == {"succeeded"}
    await check_books(database)


async def run_all(db: Database, w: Worker) -> None:
    """Run until nothing is owed; what waits for room starts whenever a request ends."""

    async def none_left() -> bool:
        await w.claiming.claim_once()
        w.dispatcher.start_waiting()
        await record_all(w)
        return await db.api["executions"].count_documents({}) == 0

    await eventually(none_left, 20, "everything to be sent")


@pytest.mark.parametrize("ends", ["refused", "expired"])
async def test_large_bodies_of_messages_are_kept_for_a_replay_and_owed_again_in_portions(
    database: Database, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """Twenty of 64 KiB end in one flush, and are replayed in one page, with room for four: all are sent again, whole."""
    monkeypatch.setattr(record, "MAX_BODY_BYTES", 4 * BODY)
    monkeypatch.setattr(replay, "MAX_BODY_BYTES", 4 * BODY)
    read: list[int] = []

    def noting_sizes(module: Any, name: str, size: Any) -> None:
        real = getattr(module, name)

        async def noted(*args: Any) -> Any:
            found = await real(*args)
            read.append(sum(size(v) for v in found.values()))
            return found

        monkeypatch.setattr(module, name, noted)

    noting_sizes(executions, "large_bodies", len)
    noting_sizes(message_states, "requests_of", lambda r: len(r.get("large_body", b"")))
    now = Clock().now_ms()
    fields = {"expires_ms": now + 1} if ends == "expired" else {}
    ids = await send(database, now, *[now] * 20, body=b"x" * BODY, body_kind="text", **fields)
    await asyncio.sleep(0.01)  # past `expires_ms`
    w = worker(database, answering(404))
    await run_all(database, w)
    assert {h["state"] for h in await rows(database, "history")} <= {"failed", "dead"}
    assert len(read) >= 5
    assert 0 < max(read) <= 4 * BODY
    read.clear()
    if ends == "expired":
        return
    leader = await lead(database, Clock())
    await replays.insert(database, Replay("r", ReplayFilter(), 1000.0, Clock().now_ms() + 1000, 20))
    await leader.replayer.step(Clock().now_ms())
    assert len(read) >= 5
    assert 0 < max(read) <= 4 * BODY
    came: dict[str, bytes] = {}

    def target(request: httpx.Request) -> httpx.Response:
        came[request.headers["idempotency-key"]] = request.content
        return httpx.Response(200)

    await run_all(database, worker(database, target))
    assert came == dict.fromkeys(ids, b"x" * BODY)
    await check_books(database)


async def test_a_body_that_is_larger_than_all_the_room_is_sent_alone(database: Database) -> None:
    """Nothing waits for ever."""
    w = worker(database, answering(200))
    with_room(w, 10 * KIB)
    await owed(database, "a", "b", body=b"x" * BODY, body_kind="text")
    await run_all(database, w)
    assert {h["state"] for h in await rows(database, "history")} == {"succeeded"}


@pytest.mark.parametrize("size", [INLINE_BODY_BYTES, INLINE_BODY_BYTES + 1])
async def test_a_large_body_is_signed_and_filled_in_as_a_small_one(database: Database, size: int) -> None:
    """On both sides of the limit."""
    requests: list[httpx.Request] = []

    def target(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200)

    start = b'{"id": "{{executionId}}", "text": "'
    body = start + b"x" * (size - len(start) - 2) + b'"}'
    assert len(body) == size
    await owed(database, "a", body=body, body_kind="json", signing_secret=SECRET)
    await run_dry(worker(database, target))
    (request,) = requests
    assert request.content == body.replace(b"{{executionId}}", execution_id("a", DUE).encode())
    assert request.headers["webhook-id"] == execution_id("a", DUE)
    assert request.headers["content-length"] == str(len(request.content))
    signed = f"{execution_id('a', DUE)}.{request.headers['webhook-timestamp']}.".encode() + request.content
    assert request.headers["webhook-signature"] == signature(signed)


def signature(signed: bytes) -> str:
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


async def test_a_job_that_is_paused_before_its_large_body_is_read_is_not_sent(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the job says then counts; and a read that fails is repeated."""
    read = engine_jobs.by_id_in_full
    failures = [StoreUnavailable("not now")]

    async def paused(db: Database, ids: Any) -> Any:
        if failures:
            raise failures.pop()
        await db.api["jobs"].update_many({"_id": "a"}, {"$set": {"state": "paused", "past": ended(DUE, "pause")}})
        return await read(db, ids)

    monkeypatch.setattr(engine_jobs, "by_id_in_full", paused)
    sent: list[str] = []
    w = worker(database, noting(sent, "horae-job-id"))
    await owed(database, "a", "b", body=b"x" * BODY, body_kind="text")
    await run_dry(w)
    await run_dry(w)
    assert sent == ["b"]
    (waiting,) = await rows(database, "executions")
    (batch,) = [b for b in await rows(database, "batches") if b["_id"] == waiting["batch"]]
    assert (waiting["job_id"], batch["owner"], batch["claims"], batch["held"]) == ("a", None, 0, True)
    assert w.context.slots.body_bytes == 0


async def test_hosts_that_hang_leave_room_for_the_large_bodies_of_others(database: Database) -> None:
    """Ten large bodies for each of two hosts that do not answer, room for eight: the one of a third host is sent."""
    sent: list[str] = []
    release = asyncio.Event()

    async def target(request: httpx.Request) -> httpx.Response:
        if request.url.port != 3:
            await release.wait()
        sent.append(request.headers["horae-job-id"])
        return httpx.Response(200)

    w = worker(database, target)
    slots = with_room(w, 8 * BODY)
    for port in (1, 2, 3):
        names = [f"{port}-{i}" for i in range(1 if port == 3 else 10)]
        url = f"http://127.0.0.1:{port}/x"
        await owed(database, *names, batch=f"b{port}", url=url, body=b"x" * BODY, body_kind="text")

    async def third() -> bool:
        await w.claiming.claim_once()
        w.dispatcher.start_waiting()
        return "3-0" in sent

    await eventually(third, 5, "the third host")
    assert slots.body_bytes <= 4 * BODY
    release.set()
    await run_all(database, w)
    assert len(sent) == 21


@pytest.mark.parametrize(("stuck", "released"), [(False, 0), (True, 1)])
async def test_what_waits_for_room_is_released_only_if_nothing_makes_room(
    database: Database, monkeypatch: pytest.MonkeyPatch, stuck: bool, released: int
) -> None:
    """Another node may have room. While bodies come and go here, it is worth while to wait for them."""
    w = worker(database, answering(200))
    slots = with_room(w, BODY)
    slots.take("elsewhere", "z", BODY)
    monkeypatch.setattr(slots, "bodies_stuck", lambda: stuck, raising=False)
    # Longer than a busy machine stops between the last look and the release: that would be a wait of its own.
    monkeypatch.setattr("cluster.worker.release.PATIENCE_SECONDS", 0.6)
    await owed(database, "a", body=b"x" * BODY, body_kind="text")
    assert await w.claiming.claim_once()
    until = asyncio.get_running_loop().time() + 0.8

    async def waited() -> bool:
        w.dispatcher.start_waiting()
        return bool(w.dispatcher.host_queues.hosts()) and asyncio.get_running_loop().time() > until

    await eventually(waited, 5)
    await w.releaser.release_deferred()
    assert await database.api["batches"].count_documents({"held": True, "owner": None}) == released


@pytest.mark.parametrize("changes", [False, True])
async def test_a_large_body_that_takes_longer_to_read_than_a_reading_may_be_old_is_sent(
    database: Database, monkeypatch: pytest.MonkeyPatch, *, changes: bool
) -> None:
    """A slow line to the database: the job is looked at once more, and only a changed one is read again."""
    read = engine_jobs.by_id_in_full
    reads = 0

    async def slow(db: Database, ids: Any) -> Any:
        nonlocal reads
        reads += 1
        found = await read(db, ids)
        await asyncio.sleep(0.15)  # the reading grows old: that is what this is about
        if changes and reads == 1:
            await db.api["jobs"].update_many({}, {"$set": {"body": b"y" * BODY}, "$inc": {"revision": 1}})
        return found

    monkeypatch.setattr(engine_jobs, "by_id_in_full", slow)
    monkeypatch.setattr("cluster.worker.dispatch.STALE_SECONDS", 0.1)
    monkeypatch.setattr("cluster.worker.prepare.SLOW_READ_SECONDS", 0.03, raising=False)
    came: list[bytes] = []

    def target(request: httpx.Request) -> httpx.Response:
        came.append(request.content)
        return httpx.Response(200)

    await owed(database, "a", body=b"x" * BODY, body_kind="text")
    await run_dry(worker(database, target))
    assert came == [(b"y" if changes else b"x") * BODY]
    assert reads == 1 + changes


async def test_a_large_body_of_which_no_request_can_be_made_ends_with_the_reason(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not take the lease from the others of its batch."""
    sent: list[str] = []
    w = worker(database, noting(sent, "horae-job-id"))
    await owed(database, "a", "b", body=b"x" * BODY, body_kind="text")
    prepare = w.dispatcher._preparer._request

    def broken(held: HeldBatch, execution: Execution, job: Any) -> Any:
        if execution.job_id == "a":
            raise ValueError("no such thing")
        return prepare(held, execution, job)

    monkeypatch.setattr(w.dispatcher._preparer, "_request", broken)
    await run_dry(w)
    states = {h["job_id"]: (h["state"], h["reason"]) for h in await rows(database, "history")}
    reason = "its request could not be made: ValueError: no such thing"
    assert states == {"a": ("dead", reason), "b": ("succeeded", None)}
    assert w.context.slots.body_bytes == 0


async def test_a_lease_that_ends_while_a_large_body_is_read_leaves_the_execution_to_the_next_owner(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not sent without its lease, and its slot and its room are free again."""
    seen: list[str] = []

    async def never(*_: Any) -> Any:
        for held in w.context.held.values():
            held.renewed(0.0)
        raise StoreUnavailable("not now")

    monkeypatch.setattr(engine_jobs, "by_id_in_full", never)
    w = worker(database, noting(seen))
    await owed(database, "a", body=b"x" * BODY, body_kind="text")
    assert await w.claiming.claim_once()
    await eventually(lambda: _idle(w), 5, "the node to give up")
    assert seen == []
    assert await database.api["executions"].count_documents({}) == 1


async def _idle(w: Worker) -> bool:
    return w.context.slots.in_flight == 0 and not w.held


async def test_answers_to_earlier_attempts_bound_what_is_claimed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each retry carries the excerpts of all attempts before it: with too much of them in memory nothing is claimed."""
    monkeypatch.setattr(claiming, "MAX_ATTEMPT_BYTES", 50 * KIB)
    w = worker(database, answering(200))
    attempts = tuple(Attempt(n, DUE, "n", n, 1.0, 503, excerpt="x" * 2048) for n in range(30))
    execution = Execution(execution_id("z", DUE), "z", DUE, DUE, "v1", "z", 0, attempts=attempts)
    await owed(database, "a")
    w.context.held.add(HeldBatch(Batch("z", (execution.id,), 0, 0, DUE, DUE), 0.0, [execution]))
    assert not await w.claiming.claim_once()
    w.context.held.clear()
    assert await w.claiming.claim_once()
