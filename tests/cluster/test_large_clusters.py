"""What nodes of a large cluster do less often, so that the database does not spend itself on idle nodes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest_asyncio

from cluster.clock import Clock
from cluster.core.election import CANDIDATES, first_candidates
from cluster.core.timings import Timings
from cluster.heartbeat import HEARTBEAT_SECONDS, MANY_NODES, MISSED_HEARTBEATS, RECENT_BEATS
from cluster.leader.elector import Elector
from cluster.leader.liveness import BLIND_SECONDS, RARELY_READING_BLIND_SECONDS, Liveness
from cluster.node import Node, NodeSettings
from cluster.outbound.sender import Sender
from cluster.store import nodes
from cluster.store.nodes import NodeHeartbeat
from tests.support.workers import answering

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from cluster.store.mongo.client import Database


@pytest_asyncio.fixture
async def node(mongodb_uri: str, db_name: str) -> AsyncIterator[Node]:
    """A whole node in this process, not started: its heartbeats are written by hand."""
    n = Node(NodeSettings(mongodb_uri, db_name, shutdown_seconds=1), Sender(httpx.MockTransport(answering(200))))
    yield n
    await n.shutdown()


async def others(db: Database, count: int) -> None:
    for i in range(count):
        await nodes.write_heartbeat(db, f"other{i}", {"host": "h", "clock_offset_ms": 0, "clock_vote": 0})


async def watched(n: Node) -> None:
    """The node has beaten and watched the others."""
    await n.heartbeat.beat()
    await n.heartbeat.beat()
    await n.heartbeat.beat()


async def test_nodes_of_a_large_cluster_beat_half_as_often_unless_they_lead(node: Node) -> None:
    await others(node.db, MANY_NODES - 1)
    await watched(node)
    assert node.heartbeat.seconds == HEARTBEAT_SECONDS, "eight nodes are no large cluster"
    await others(node.db, MANY_NODES + 2)
    await watched(node)
    assert node.heartbeat.seconds == 2 * HEARTBEAT_SECONDS
    assert 2 * node.heartbeat.seconds * 1000 < nodes.SILENT_MS, "one that is late by a beat is not shown as silent"
    assert await node.elector.step() is not None
    assert node.heartbeat.seconds == HEARTBEAT_SECONDS


async def test_a_doubt_about_the_databases_clock_is_voted_on_as_soon_as_in_a_small_cluster(node: Node) -> None:
    await others(node.db, MANY_NODES + 2)
    await watched(node)
    node.clock.held_ms = 5000
    assert node.heartbeat.seconds == HEARTBEAT_SECONDS


async def test_the_drift_of_the_last_seconds_is_of_as_many_seconds(node: Node) -> None:
    """Whatever the time between two beats is."""
    await others(node.db, MANY_NODES + 2)
    await watched(node)
    for _ in range(RECENT_BEATS):
        node.worker.stats.drift.add(3)
        await node.heartbeat.beat()
    own = await node.db.api["nodes"].find_one({"_id": node.id})
    assert own is not None
    assert sum(own["counters"]["drift_recent"]) == RECENT_BEATS / 2


async def test_requests_of_operators_are_read_with_the_heartbeat_itself(node: Node) -> None:
    """They need no look at the other nodes, which is rarer."""
    await watched(node)
    now = Clock().now_ms()
    for drain in (True, False):
        assert await nodes.request_drain(node.db, node.id, now, drain=drain)
        await node.heartbeat.beat()
        assert node.worker.draining is drain


async def test_a_leader_resigns_the_term_that_it_was_asked_to_and_no_later_one(node: Node) -> None:
    await watched(node)
    term = await node.elector.step()
    assert term is not None
    assert await nodes.request_resign(node.db, node.id, Clock().now_ms(), term.number - 1)
    await node.heartbeat.beat()
    assert node.elector.term is not None
    assert await nodes.request_resign(node.db, node.id, Clock().now_ms(), term.number)
    await node.heartbeat.beat()
    assert node.elector.term is None


def test_enough_nodes_watch_the_lease() -> None:
    """All of a small cluster; of a large one eight, not those of one host, and the same whoever asks."""
    few = {f"a-{i}" for i in range(CANDIDATES)}
    assert first_candidates(few) == few
    many = [f"{host}-{i}" for host in "abcd" for i in range(8)]
    chosen = first_candidates(many)
    assert len(chosen) == CANDIDATES
    assert chosen == first_candidates(reversed(many))
    assert len({c[0] for c in chosen}) > 1
    left = first_candidates(set(many) - chosen)
    assert len(left) == CANDIDATES, "when they are gone, others take their place"


async def test_a_node_in_reserve_looks_half_as_often_and_takes_over_all_the_same(database: Database) -> None:
    """If the leader and all others are gone, it is the next one."""
    timings = Timings(leader_lease=0.3, renew_retry=0.05, margin=0.05)
    leader = Elector(database, Clock(), timings, "a", "a")
    assert await leader.step()
    reserve = Elector(database, Clock(), timings, "b", "b")
    reserve.set_reserve(in_reserve=True)
    began = Clock.monotonic()
    await reserve.until_next_step()
    assert Clock.monotonic() - began >= 2 * timings.follow_seconds * 0.99
    async with asyncio.timeout(10):
        while await reserve.step() is None:
            await reserve.until_next_step()
    assert reserve.term is not None
    assert reserve.term.number == 2


async def test_a_leader_that_loses_its_database_is_not_ready_until_it_has_one(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its term ends meanwhile: that makes its beats slower, and itself no more ready."""
    await others(node.db, MANY_NODES + 2)
    await watched(node)
    assert await node.elector.step() is not None
    await node.heartbeat.beat()
    began = Clock.monotonic()
    monkeypatch.setattr(node.clock, "monotonic", lambda: began + MISSED_HEARTBEATS * HEARTBEAT_SECONDS + 0.5)
    assert (node.elector.term is not None, node.heartbeat.unheard) == (True, True)
    monkeypatch.setattr(node.clock, "monotonic", lambda: began + 7)
    assert (node.elector.term is not None, node.heartbeat.unheard) == (False, True)


def test_a_node_that_reads_heartbeats_rarely_still_sees_who_is_silent() -> None:
    """Beats that take a second each are no blindness, at either pace."""
    for every, blind in ((2 * (1 + 1), BLIND_SECONDS), (2 * (2 + 1), RARELY_READING_BLIND_SECONDS)):
        census = Liveness()
        for n in range(6):
            census.observe([NodeHeartbeat("alive", n, 0), NodeHeartbeat("dead", 7, 0)], float(n * every), blind)
        assert census.live_nodes(5.0 * every, 10) == {"alive"}
