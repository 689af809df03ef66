"""Nodes as operators see them: what a node that has ended said last is out of date."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bson.datetime_ms import DatetimeMS

from cluster.store import leases, nodes

if TYPE_CHECKING:
    from tests.support.api_client import Api

BEAT = {"host": "h", "pid": 1, "version": "1", "clock_offset_ms": 0, "in_flight": 0, "waiting": 0, "draining": False}


@pytest.fixture
async def api_after_a_killed_leader(api: Api) -> Api:
    """Two nodes whose last heartbeat says that they lead. The first one was killed, and the second one has the lease."""
    for node in ("killed", "present", "follower"):
        await nodes.write_heartbeat(api.db, node, {**BEAT, "leading": node != "follower"})
    _, now_ms = await nodes.nodes_and_clock(api.db)
    await api.db.api["nodes"].update_one({"_id": "killed"}, {"$set": {"seen_at": DatetimeMS(now_ms - 6000)}})
    assert await leases.take_over(api.db, await leases.read(api.db), "holder", "present")
    return api


async def test_one_node_is_shown_as_leading(api_after_a_killed_leader: Api) -> None:
    """The one that has the lease. A node without heartbeats is shown as silent."""
    shown = (await api_after_a_killed_leader.call("GET", "/cluster")).json
    assert shown["leader"]["nodeId"] == "present"
    found = {n["nodeId"]: (n["leading"], n["silent"]) for n in shown["nodes"]}
    assert found == {"killed": (False, True), "present": (True, False), "follower": (False, False)}


async def test_a_leader_without_the_lease_is_not_shown_as_leading(api_after_a_killed_leader: Api) -> None:
    """Also before it is silent: it was replaced, and does not know that yet."""
    api = api_after_a_killed_leader
    assert await leases.take_over(api.db, await leases.read(api.db), "holder-2", "follower")
    shown = (await api.call("GET", "/cluster")).json
    assert [n["nodeId"] for n in shown["nodes"] if n["leading"]] == []
