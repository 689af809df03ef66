"""Messages: how many are accepted a second, by batches and one by one; how soon they arrive; and what those that wait cost."""

from __future__ import annotations

import asyncio
import io
import random
import threading
import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click
import orjson

from cluster.core.instants import format_instant
from ops.bench.results import Row, cpu_per_execution
from ops.bench.testbed import cpu_of, database_now, lateness, running_cluster, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ops.bench.testbed import Cluster, Testbed

NDJSON = "application/x-ndjson"
CONNECTIONS = 64
IDLE_MESSAGES = 40
COPIED = 5000
REST_BEGINS, REST_SECONDS = 5.0, 20.0
BATCH_LINES = 750
"""Lines of one batch of the steady case: four batches a second are 3,000/s."""


def rows(testbed: Testbed, rate: int, seconds: int) -> list[Row]:
    """One message on an idle cluster; accepted by batch; accepted one by one; accepted and sent, `rate` a second."""
    with running_cluster(testbed) as cluster:
        made = [_idle(cluster), _by_batch(cluster), _one_by_one(cluster)]
    with running_cluster(testbed) as cluster:
        return [*made, _steady(cluster, rate, seconds)]


def due_at_once(testbed: Testbed, waiting: int, size: int) -> Row:
    """`size` messages that come due within one minute, while `waiting` others wait."""
    with running_cluster(testbed) as cluster:
        _let_wait(cluster, waiting)
        return _due(cluster, waiting, size)


def waiting_costs(testbed: Testbed, waiting: int, size: int) -> list[Row]:
    """What the leader uses while nothing waits, and while `waiting` messages do; and the row of those that come due then."""
    with running_cluster(testbed) as cluster:
        before = _at_rest(cluster, 0)
        _let_wait(cluster, waiting)
        return [before, _at_rest(cluster, waiting), _due(cluster, waiting, size)]


def _let_wait(cluster: Cluster, waiting: int) -> None:
    """Some are accepted; the others are copies of these in the database, because to accept a million takes minutes."""
    if not waiting:
        return
    _upload(cluster, (_message(cluster, delay="90d") for _ in range(min(waiting, COPIED))))
    some = list(cluster.db["messages"].find())
    for first in range(len(some), waiting, len(some)):
        size = min(len(some), waiting - first)
        copies = [_copy(d, first + n) for n, d in enumerate(some[:size])]
        cluster.db["messages"].insert_many(copies, ordered=False)


def _copy(d: dict[str, Any], number: int) -> dict[str, Any]:
    """Another message, due some ms later."""
    due = d["due_at"] + timedelta(milliseconds=number % 86_400_000)
    name = f"{d['job_id'][:-8]}{number:08d}"
    return {**d, "_id": f"{name}:{int(due.timestamp() * 1000)}", "job_id": name, "due_at": due, "send_at": due}


def _at_rest(cluster: Cluster, waiting: int) -> Row:
    """The CPU of the leader and of mongod while nothing is due."""
    time.sleep(REST_BEGINS)
    lease = cluster.db["leases"].find_one({"_id": "leader"}) or {}
    pid = int(lease["node"].split("-")[-2])
    leader = next(p for p in cluster.nodes() if p.pid == pid)
    started, used, others = time.monotonic(), cpu_of(leader), cluster.cpu()
    time.sleep(REST_SECONDS)
    seconds = time.monotonic() - started
    share, mongod = cpu_of(leader) - used, cluster.cpu()[1] - others[1]
    note = f"leader {100 * share / seconds:.1f} % of a core, mongod {100 * mongod / seconds:.1f} %"
    return Row(f"at rest, {waiting:,} messages wait", node_mb=cluster.memory(), note=note)


def _due(cluster: Cluster, waiting: int, size: int) -> Row:
    first = (database_now(cluster) + timedelta(seconds=20)).replace(microsecond=0)
    start_ms = int(first.timestamp() * 1000)
    wanted = (_message(cluster, at=format_instant(start_ms + n * 60_000 // size)) for n in range(size))
    took = _upload(cluster, wanted)
    wait_for(lambda: database_now(cluster) >= first, 60, "the clock of the database does not advance")
    cpu = cluster.cpu()
    wait_for(lambda: cluster.db["history"].estimated_document_count() >= size, 150, "messages were not delivered")
    spent = [b - a for a, b in zip(cpu, cluster.cpu(), strict=True)]
    row = Row(
        f"{size:,} messages due within a minute, {waiting:,} others wait",
        rate=size / 60,
        node_mb=cluster.memory(),
        **cpu_per_execution(spent, size),
        **lateness(cluster, {}),
        note=f"accepted in {took:.1f} s",
    )
    return _with_missing(row, size)


def _message(cluster: Cluster, **fields: Any) -> dict[str, Any]:
    return {"api": f"http://127.0.0.1:{cluster.target.port}/m", "body": {"n": 1}, **fields}


def _upload(cluster: Cluster, messages: Iterable[dict[str, Any]]) -> float:
    """Seconds for one batch."""
    file = io.BytesIO(b"".join(orjson.dumps(m) + b"\n" for m in messages))
    started = time.monotonic()
    result = cluster.api.upload("/messages/batch", file, NDJSON)
    if result["failed"]:
        raise click.ClickException(f"messages were refused: {result['errors'][:1]}")
    return time.monotonic() - started


def _idle(cluster: Cluster) -> Row:
    """From the request to the request: the caller's clock and the nodes' differ by a ms at most, on one machine."""
    began: dict[str, float] = {}
    for _ in range(IDLE_MESSAGES):
        time.sleep(random.uniform(0.3, 0.6))  # noqa: S311 - not in step with any poll
        at = time.time() * 1000
        began[cluster.api.call("POST", "/messages", _message(cluster))["executionId"]] = at
    wait_for(lambda: cluster.db["history"].estimated_document_count() >= IDLE_MESSAGES, 20, "messages did not arrive")
    took = sorted(
        h["attempts"][0]["sent_at"].timestamp() * 1000 - began[h["_id"]] for h in cluster.db["history"].find()
    )
    return Row(
        "one message on an idle cluster, from POST to the target",
        executions=len(took),
        p50=took[len(took) // 2],
        p95=took[int(len(took) * 0.95)],
        longest=took[-1],
        earliest=took[0],
        note="ms from the POST to the request",
    )


def _by_batch(cluster: Cluster) -> Row:
    size, parts = 15_000, 2
    cpu, before = cluster.cpu(), cluster.db["messages"].estimated_document_count()
    started = time.monotonic()
    uploads = [
        threading.Thread(target=_upload, args=(cluster, [_message(cluster, delay="1h") for _ in range(size)]))
        for _ in range(parts)
    ]
    for t in uploads:
        t.start()
    for t in uploads:
        t.join()
    took = time.monotonic() - started
    accepted = cluster.db["messages"].estimated_document_count() - before
    spent = [b - a for a, b in zip(cpu, cluster.cpu(), strict=True)]
    row = Row(
        f"{size * parts:,} messages accepted by {parts} batches",
        rate=accepted / took,
        executions=accepted,
        **cpu_per_execution(spent, max(1, accepted)),
    )
    return _with_missing(row, size * parts)


def _one_by_one(cluster: Cluster, seconds: float = 8.0) -> Row:
    """As fast as they are answered, over kept connections."""
    body = orjson.dumps(_message(cluster, delay="1h"))
    head = f"POST /messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    cpu = cluster.cpu()
    answers, took = asyncio.run(_flood(cluster.port, head.encode() + body, seconds))
    spent = [b - a for a, b in zip(cpu, cluster.cpu(), strict=True)]
    good = sorted(ms for status, ms in answers if status == 202)
    if not good:
        raise click.ClickException(f"messages were refused with status {sorted({status for status, _ in answers})}")
    return Row(
        f"accepted one by one, {CONNECTIONS} kept connections",
        rate=len(good) / took,
        executions=len(good),
        missing=len(answers) - len(good),
        p50=good[len(good) // 2],
        p99=good[int(len(good) * 0.99)],
        longest=good[-1],
        **cpu_per_execution(spent, max(1, len(good))),
        note="ms: response times",
    )


async def _flood(port: int, request: bytes, seconds: float) -> tuple[list[tuple[int, float]], float]:
    answers: list[tuple[int, float]] = []
    started = time.monotonic()

    async def caller() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() - started < seconds:
            at = time.monotonic()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            await reader.readexactly(length)
            answers.append((int(head[9:12]), (time.monotonic() - at) * 1000))
        writer.close()

    await asyncio.gather(*(caller() for _ in range(CONNECTIONS)))
    return answers, time.monotonic() - started


def _steady(cluster: Cluster, rate: int, seconds: int) -> Row:
    """Batches at a steady pace; each message is due when its line is read."""
    lines = [_message(cluster) for _ in range(BATCH_LINES)]
    _upload(cluster, lines)
    wait_for(lambda: cluster.db["history"].estimated_document_count() >= BATCH_LINES, 30, "messages did not arrive")
    cpu, start = cluster.cpu(), database_now(cluster)
    batches = rate * seconds // BATCH_LINES
    began = time.monotonic()
    senders: list[threading.Thread] = []
    for n in range(batches):
        time.sleep(max(0.0, began + n * BATCH_LINES / rate - time.monotonic()))
        senders.append(_started(lambda: _upload(cluster, lines)))
    for t in senders:
        t.join()
    sent = batches * BATCH_LINES
    wait_for(
        lambda: cluster.db["history"].estimated_document_count() >= sent + BATCH_LINES, 60, "messages did not arrive"
    )
    spent = [b - a for a, b in zip(cpu, cluster.cpu(), strict=True)]
    window = {"due_at": {"$gte": start}}
    row = Row(
        f"{rate}/s accepted by batches and sent at once",
        rate=sent / seconds,
        node_mb=cluster.memory(),
        **cpu_per_execution(spent, sent),
        **lateness(cluster, window),
        note="lateness: from the moment the line was read",
    )
    return _with_missing(row, sent)


def _started(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def _with_missing(row: Row, expected: int) -> Row:
    return replace(row, missing=expected - row.executions)
