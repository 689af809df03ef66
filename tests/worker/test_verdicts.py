"""The verdict table, cell by cell, against answers of a real server on a real socket."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest

from cluster.clock import Clock
from cluster.core.timings import Timings
from cluster.outbound.sender import Sender
from cluster.outbound.transport import HttpTransport
from cluster.worker.worker import Worker, WorkerSettings
from tests.support.engine import rows, worker
from tests.support.wire import cut, free_port, listening
from tests.support.workers import DUE, answering, owed, retries_now, run_dry

if TYPE_CHECKING:
    import asyncio

    from cluster.store.mongo.client import Database
    from tests.support.wire import Wire

RETRY = {"max_attempts": 5, "initial_delay_seconds": 1.0, "multiplier": 2.0, "max_delay_seconds": 60.0, "jitter": 0.0}
ONCE = {**RETRY, "max_attempts": 1}
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


async def by_path(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """`/404` is answered with 404; `/429/after-7` also says Retry-After: 7."""
    while True:
        request = await wire.request(reader)
        path = request.split(b" ", 2)[1].decode()
        if path == "/reset":
            cut(writer)
            return
        if path == "/hang":
            await reader.read()
            return
        _, status, *after = path.split("/")
        extra = f"Retry-After: {after[0].replace('_', ' ')}\r\n" if after else ""
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n{extra}\r\n".encode())
        await writer.drain()


def real_worker(db: Database) -> Worker:
    """A worker that sends over real sockets."""
    return Worker(db, Clock(), Timings(), Sender(HttpTransport(LOOPBACK), 0.5), WorkerSettings("w"))


CELLS = {
    200: "succeeded", 201: "succeeded", 202: "succeeded", 204: "succeeded", 299: "succeeded",
    300: "failed", 301: "failed", 302: "failed", 304: "failed", 307: "failed", 308: "failed",
    400: "failed", 401: "failed", 403: "failed", 404: "failed", 405: "failed", 409: "failed", 410: "failed",
    413: "failed", 418: "failed", 422: "failed", 451: "failed",
    408: "retrying", 425: "retrying", 429: "retrying",
    500: "retrying", 501: "retrying", 502: "retrying", 503: "retrying", 504: "retrying", 599: "retrying",
    "reset": "retrying", "hang": "retrying",
}  # fmt: skip


async def test_every_answer_has_the_verdict_of_the_table(database: Database) -> None:
    """What a target answers, or does not, decides whether it is final, tried again, or fails at once."""
    async with listening(by_path) as wire:
        base = f"http://127.0.0.1:{wire.port}"
        for answer in CELLS:
            await owed(
                database, f"a{answer}", batch=f"b{answer}", url=f"{base}/{answer}", retry=RETRY, timeout_seconds=0.5
            )
        closed = f"http://127.0.0.1:{free_port()}/"
        await owed(database, "refused", batch="c", url=closed, retry=RETRY)
        await owed(database, "unknown", batch="d", url="http://no-such-host.invalid/", retry=RETRY)
        await owed(database, "denied", batch="e", url="http://10.0.0.1/", retry=RETRY)
        w = real_worker(database)
        await run_dry(w)
        await w.dispatcher.close()
    final = {h["job_id"]: h["state"] for h in await rows(database, "history")}
    again = {e["job_id"]: e["state"] for e in await rows(database, "executions")}
    expected = {f"a{answer}": state for answer, state in CELLS.items()}
    expected |= {"refused": "retrying", "unknown": "retrying", "denied": "failed"}
    assert final | again == expected
    assert not final.keys() & again.keys()


async def test_an_odd_answer_does_no_harm_to_other_executions(database: Database) -> None:
    """A content type that breaks a reader is an answer like any other: it is recorded, and so are the others of its batch."""

    async def odd(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            kind = b"text/plain; charset*0=a; charset*=b" if b"odd" in await wire.request(reader) else b"text/plain"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: " + kind + b"\r\n\r\n\xc3\xa4")
            await writer.drain()

    names = ["odd", *(f"fine{i}" for i in range(5))]
    async with listening(odd) as wire:
        await owed(database, *names, url=wire.url)
        w = real_worker(database)
        await run_dry(w)
        await w.dispatcher.close()
    assert len(wire.requests) == len(names)
    found = {h["job_id"]: (h["state"], len(h["attempts"])) for h in await rows(database, "history")}
    assert found == dict.fromkeys(names, ("succeeded", 1))


async def test_an_answer_that_breaks_off_shows_its_status_and_is_retried(database: Database) -> None:
    """The attempt has both: what the target said, and what broke. Half a success is no success, and half a 410 pauses no job."""

    async def half(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        status = b"410 Gone" if b"/gone" in await wire.request(reader) else b"200 OK"
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 10\r\n\r\nhalf")
        await writer.drain()

    async with listening(half) as wire:
        for path in ("ok", "gone"):
            await owed(database, path, batch=path, url=f"{wire.url}/{path}", retry=RETRY)
        w = real_worker(database)
        await run_dry(w)
        await w.dispatcher.close()
    found = {e["job_id"]: e for e in await rows(database, "executions")}
    assert {j: (e["state"], e["attempts"][0]["status"], e["attempts"][0]["error"]) for j, e in found.items()} == {
        "ok": ("retrying", 200, "reset"),
        "gone": ("retrying", 410, "reset"),
    }
    assert "in the middle of the response" in found["ok"]["attempts"][0]["detail"]
    assert {j["state"] for j in await rows(database, "jobs")} == {"active"}


async def test_410_pauses_the_job_with_the_reason(database: Database) -> None:
    """After 410 the job is paused and says why; one that was given another target meanwhile is left alone."""
    await owed(database, "gone", batch="b1", url="http://a.example/x")
    await owed(database, "moved", batch="b2", url="http://a.example/x")

    async def answer(request: Any) -> Any:
        if request.headers["horae-job-id"] == "moved":
            await database.api["jobs"].update_one(
                {"_id": "moved"}, {"$set": {"url": "http://a.example/y"}, "$inc": {"revision": 1}}
            )
        return answering(410)(request)

    await run_dry(worker(database, answer))
    gone, moved = await rows(database, "jobs")
    assert gone["state"] == "paused"
    assert "http://a.example/x answered 410" in gone["state_reason"]
    assert gone["unsettled"] is not None
    assert moved["state"] == "active"
    assert [(h["state"], len(h["attempts"])) for h in await rows(database, "history")] == [("failed", 1)] * 2
    assert all("410" in h["reason"] for h in await rows(database, "history"))


@pytest.mark.parametrize(
    ("success", "status", "state"),
    [
        ([404], 404, "succeeded"),
        ([404], 200, "failed"),
        (["2xx", 503], 503, "succeeded"),
        (["2xx", 503], 204, "succeeded"),
        (["2xx", 410], 410, "succeeded"),
        ([202], 500, "dead"),
    ],
)
async def test_a_job_names_its_own_success_codes(
    database: Database, success: list[Any], status: int, state: str
) -> None:
    """`successCodes` take the place of 2xx; the rest of the table stays."""
    await owed(database, "a", success_codes=success, retry=ONCE)
    await run_dry(worker(database, answering(status)))
    assert [h["state"] for h in await rows(database, "history")] == [state]
    assert [j["state"] for j in await rows(database, "jobs")] == ["active"]


@pytest.mark.parametrize(
    ("status", "after", "least", "most"),
    [
        (429, "7", 7.0, 7.5),
        (503, "7", 7.0, 7.5),
        (503, "9999", 60.0, 60.5),
        (503, "nonsense", 1.0, 1.5),
        (503, "date+20", 18.0, 20.5),
        (503, "date-20", 1.0, 1.5),
    ],
)
async def test_retry_after_is_honoured(database: Database, status: int, after: str, least: float, most: float) -> None:
    """As seconds or as a date, up to `maxDelaySeconds`, never sooner than the back-off."""
    if after.startswith("date"):
        at = datetime.now(UTC) + timedelta(seconds=int(after[4:]))
        after = format_datetime(at, usegmt=True).replace(" ", "_")
    async with listening(by_path) as wire:
        await owed(database, "a", url=f"http://127.0.0.1:{wire.port}/{status}/{after}", retry=RETRY)
        w = real_worker(database)
        await run_dry(w)
    (execution,) = await rows(database, "executions")
    ended = int(execution["attempts"][0]["sent_at"]) + execution["attempts"][0]["ms"]
    waits = (int(execution["send_at"]) - ended) / 1000
    assert least - 0.1 <= waits <= most + 0.5


async def test_an_execution_older_than_its_maximum_age_is_not_sent_again(database: Database) -> None:
    """No attempt begins later than `maxAgeSeconds` after it was due, the first one included."""
    now = Clock().now_ms()
    await owed(database, "never", batch="b1", retry={**RETRY, "max_age_seconds": 60.0})
    once = {"initial_delay_seconds": 60.0, "max_age_seconds": (now - DUE) / 1000 + 50}
    await owed(database, "once", batch="b2", retry={**RETRY, **once})
    await owed(database, "again", batch="b3", retry={**RETRY, "max_age_seconds": (now - DUE) / 1000 + 600})
    w = worker(database, answering(503))
    await run_dry(w)
    found = {h["job_id"]: h for h in await rows(database, "history")}
    assert {j: (h["state"], len(h["attempts"])) for j, h in found.items()} == {
        "never": ("dead", 0),
        "once": ("dead", 1),
    }
    assert "maxAgeSeconds (60) passed" in found["never"]["reason"]
    assert "503" in found["once"]["reason"]
    assert [e["job_id"] for e in await rows(database, "executions")] == ["again"]
    await retries_now(database)


async def test_backoff_doubles_until_attempts_are_used_up(database: Database) -> None:
    """1 s, 2 s, 4 s and 8 s lie between five attempts; then it is dead."""
    await owed(database, "a", retry=RETRY)
    w = worker(database, answering(503))
    waits = []
    for _ in range(5):
        began = Clock().now_ms()
        await run_dry(w)
        waits += [(int(e["send_at"]) - began) / 1000 for e in await rows(database, "executions")]
        await retries_now(database)
    assert [round(s - 0.2) for s in waits] == [1, 2, 4, 8]
    (dead,) = await rows(database, "history")
    assert (dead["state"], len(dead["attempts"])) == ("dead", 5)
