"""A node of several on one machine is killed: its siblings need not wait for its leases."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support.cluster_progress import every_second, next_second, recorded_until, settle, wait_past
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.processes import Nodes, Receiver

JOBS = 100
LONG_LEASES = {
    "HORAE_LEADER_LEASE_SECONDS": "20",
    "HORAE_LOOKAHEAD_SECONDS": "45",
    "HORAE_BATCH_LEASE_SECONDS": "30",
}
"""So long that even a busy machine shows whether somebody waits for them."""


def _holds_nothing(nodes: Nodes, name: str) -> bool:
    return nodes.db["batches"].count_documents({"owner": name}, limit=1) == 0


def _another_leads(nodes: Nodes, name: str) -> bool:
    return nodes.leader() not in (None, name)


@pytest.mark.takes(30)
@pytest.mark.timeout(120)
def test_what_a_killed_node_held_leaves_long_before_its_lease_ends(
    cluster: Callable[..., Nodes], receiver: Receiver
) -> None:
    """A node and then the leader are killed under load. Nothing is lost, and nobody waits for a lease: neither of a batch
    nor of the leader."""
    nodes = cluster(3, **LONG_LEASES)
    nodes.load(every_second(receiver, JOBS))
    settle(nodes)
    start = next_second(nodes) + 3000
    wait_past(nodes, start + 1500)
    for victim in ("a node", "the leader"):
        leader = wait_until(lambda: found if (found := nodes.leader()) in nodes.alive() else None, 20, "a leader")
        assert leader is not None
        name = leader if victim == "the leader" else next(n for n in nodes.alive() if n != leader)
        nodes.kill(name)
        wait_until(partial(_holds_nothing, nodes, name), 12, "its batches to be free")
        if victim == "the leader":
            wait_until(partial(_another_leads, nodes, name), 12, "another leader, before the lease has ended")
        wait_past(nodes, nodes.now_ms() + 3000)
    finish = next_second(nodes)
    wait_past(nodes, finish + 500)
    wait_until(lambda: recorded_until(nodes, finish), 40, "everything due is recorded")
    expected = {f"j{i}:{t}" for i in range(JOBS) for t in range(start, finish, 1000)}
    wait_until(lambda: expected <= set(receiver.by_execution()) or None, 10, "every arrival")
    assert "sibling_ended" in nodes.log()
