"""A holder stops before another node may begin: its trust counts from before the question was sent."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx

from cluster.clock import JUMP_MS, Clock
from cluster.core.errors import OutcomeUnknown
from cluster.core.timings import Timings
from cluster.leader.elector import Elector
from cluster.node import Node, NodeSettings
from cluster.outbound.sender import Sender
from cluster.store import batches, leases, nodes
from cluster.store.batches import ClaimFilter
from tests.support.engine import worker
from tests.support.waiting import eventually
from tests.support.workers import answering, owed

if TYPE_CHECKING:
    import pytest

    from cluster.store.mongo.client import Database

SLOW = 0.4
"""How long the database takes to answer here (s)."""
TIMINGS = Timings(leader_lease=3.0, batch_lease=3.0, margin=0.5)


def slow(real: Any, asked: list[float]) -> Any:
    """The same function with a slow answer. `asked`: when the questions were sent, monotonic seconds."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        asked.append(Clock.monotonic())
        result = await real(*args, **kwargs)
        await asyncio.sleep(SLOW)
        return result

    return call


async def test_a_claim_is_valid_from_before_it_was_asked_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database's lease began somewhere between the question and the answer; only the question is sure."""
    await owed(database, "a")
    w = worker(database, answering(200), timings=TIMINGS)
    asked: list[float] = []
    monkeypatch.setattr(batches, "claim", slow(batches.claim, asked))
    claimed = await w.claiming.claimer.step(ClaimFilter())
    assert claimed is not None
    assert claimed.valid_until <= asked[0] + TIMINGS.batch_lease - TIMINGS.margin


async def test_a_renewal_is_valid_from_before_it_was_asked_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for renewing."""
    await owed(database, "a")
    gate = asyncio.Event()

    async def hang(_: httpx.Request) -> httpx.Response:
        await gate.wait()
        return httpx.Response(200)

    w = worker(database, hang, timings=TIMINGS)
    await w.claiming.claim_once()
    asked: list[float] = []
    monkeypatch.setattr(batches, "renew", slow(batches.renew, asked))
    assert await w.lease_keeper.renew_once() == set()
    (held,) = w.held.values()
    assert held.valid_until <= asked[0] + TIMINGS.batch_lease - TIMINGS.margin
    gate.set()


async def test_a_term_is_trusted_from_before_it_was_asked_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taking over and renewing, also when the answer was lost and a read decided."""
    limit = TIMINGS.leader_lease - TIMINGS.margin
    real = leases.renew
    asked: list[float] = []
    monkeypatch.setattr(leases, "take_over", slow(leases.take_over, asked))
    monkeypatch.setattr(leases, "renew", slow(leases.renew, asked))
    e = Elector(database, Clock(), TIMINGS, "a", "a")
    for _ in ("take over", "renew"):
        term = await e.step()
        assert term is not None
        assert term.trusted_until <= asked[-1] + limit

    async def unanswered(*args: Any) -> bool:
        asked.append(Clock.monotonic())
        await real(*args)
        raise OutcomeUnknown("no answer")

    monkeypatch.setattr(leases, "renew", unanswered)
    term = await e.step()
    assert term is not None
    assert term.trusted_until <= asked[-1] + limit


async def test_a_jump_of_the_databases_clock_stops_reclaiming(
    mongodb_uri: str, db_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heartbeat notices it; leases that look ended by the new clock are left to their owners for a lease."""
    node = Node(NodeSettings(mongodb_uri, db_name, shutdown_seconds=1), Sender(httpx.MockTransport(answering(200))))
    try:
        await node.start()
        await eventually(lambda: _ready(node), 10)
        assert not node.worker.context.reclaim_pause.active
        real = nodes.write_heartbeat

        async def ahead(*args: Any) -> nodes.WrittenHeartbeat:
            written = await real(*args)
            return replace(written, now_ms=written.now_ms + JUMP_MS + 1000)

        monkeypatch.setattr(nodes, "write_heartbeat", ahead)
        await eventually(lambda: _cautious(node), 5)
    finally:
        await node.shutdown()


async def _ready(node: Node) -> bool:
    return node.ready


async def _cautious(node: Node) -> bool:
    return node.worker.context.reclaim_pause.active


async def test_after_an_unknown_claim_the_batch_is_free_before_its_lease_ends(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim loop remembers that a batch may name this node, and releases it in the next turn."""
    await owed(database, "a")
    real = batches.claim
    calls = [0]

    async def unanswered(*args: Any) -> Any:
        calls[0] += 1
        found = await real(*args)
        if calls[0] == 1:
            raise OutcomeUnknown("no answer")
        return found

    monkeypatch.setattr(batches, "claim", unanswered)
    w = worker(database, answering(200), claimers=1)
    w.start()
    await eventually(lambda: _final(database), 5)
    await w.shutdown(2)


async def _final(db: Database) -> Any:
    return await db.api["history"].find_one({"state": "succeeded"})
