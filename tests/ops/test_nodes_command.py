"""`horae nodes` after a leader was killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.store import leases, nodes

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database
    from tests.support.commands import Commands

BEAT = {"host": "h", "pid": 1, "version": "1", "clock_offset_ms": 0, "in_flight": 0, "waiting": 0, "draining": False}


async def _killed_leader(db: Database) -> None:
    for node in ("killed", "present"):
        await nodes.write_heartbeat(db, node, {**BEAT, "leading": True})
    _, now_ms = await nodes.nodes_and_clock(db)
    await db.api["nodes"].update_one({"_id": "killed"}, {"$set": {"seen_at": DatetimeMS(now_ms - 6000)}})
    await leases.take_over(db, await leases.read(db), "holder", "present")


def test_a_leader_that_was_killed_is_shown_as_silent_and_not_as_leading(horae: Commands) -> None:
    """Its last heartbeat says for ever that it leads."""
    horae.on(_killed_leader)
    shown = horae("nodes", "-o", "table")
    assert shown.exit_code == 1, "a node is silent"
    roles = {
        line.split()[0]: line.split()[-1] for line in shown.output.splitlines() if line.strip().startswith(("k", "p"))
    }
    assert roles == {"killed": "silent", "present": "leader"}
    assert {n["nodeId"]: n["leading"] for n in horae.json("nodes")} == {"killed": False, "present": True}
