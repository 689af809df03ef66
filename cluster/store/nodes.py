"""`nodes`: one heartbeat document per process start. Whether a node lives is judged by its `rev` changing, not by time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pymongo import ReturnDocument

from cluster.core.errors import InvariantBroken
from cluster.store.mongo.decoding import decode_readable
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database, Document


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node as the others see it."""

    id: str
    rev: int
    host: str
    pid: int
    version: str
    started_ms: int
    seen_ms: int
    clock_offset_ms: int
    in_flight: int
    waiting: int
    leading: bool
    draining: bool
    counters: dict[str, Any]


def _node(d: Document) -> NodeStatus:
    return NodeStatus(
        d["_id"],
        d["rev"],
        d["host"],
        d["pid"],
        d["version"],
        int(d["started_at"]),
        int(d["seen_at"]),
        d["clock_offset_ms"],
        d["in_flight"],
        d["waiting"],
        d["leading"],
        d["draining"],
        d.get("counters", {}),
    )


async def write_heartbeat(db: Database, node_id: str, fields: dict[str, Any]) -> int:
    """Show that we live; returns the database's clock in ms, read by the same write."""
    values = {k: {"$literal": v} for k, v in fields.items()}
    update: list[Document] = [
        {
            "$set": {
                **values,
                "rev": {"$add": [{"$ifNull": ["$rev", 0]}, 1]},
                "seen_at": "$$NOW",
                "started_at": {"$ifNull": ["$started_at", "$$NOW"]},
            }
        }
    ]
    with operation():
        found = await db.control["nodes"].find_one_and_update(
            {"_id": node_id}, update, {"seen_at": 1}, upsert=True, return_document=ReturnDocument.AFTER
        )
    if found is None:
        raise InvariantBroken("an upsert returned no document")
    return int(found["seen_at"])


async def primary_clock_ms(db: Database) -> int | None:
    """The primary's clock in ms, by a question that waits for no other member; None if who answered is none."""
    with operation():
        hello = await db.control.client.admin.command("hello")
    return int(hello["localTime"].timestamp() * 1000) if hello["isWritablePrimary"] else None


@dataclass(frozen=True, slots=True)
class NodeHeartbeat:
    """What the census needs of a heartbeat, whatever release wrote it."""

    id: str
    rev: int
    clock_offset_ms: int
    drain_requested: bool = False
    """An operator wants it to stand aside."""
    resign_term: int = 0
    """An operator wants it to give up leading if this is its term."""


def _beat(d: Document) -> NodeHeartbeat:
    rev, offset = d.get("rev"), d.get("clock_offset_ms")
    return NodeHeartbeat(
        str(d["_id"]),
        rev if isinstance(rev, int) else 0,
        offset if isinstance(offset, int) else 0,
        d.get("drain_asked") is True,
        term if isinstance(term := d.get("resign_term"), int) else 0,
    )


async def heartbeats(db: Database) -> list[NodeHeartbeat]:
    """The heartbeat of every node that has not been forgotten, by id."""
    fields = {"rev": 1, "clock_offset_ms": 1, "drain_asked": 1, "resign_term": 1}
    with operation():
        return [_beat(d) for d in await db.control["nodes"].find({}, fields).sort("_id", 1).to_list()]


async def nodes_and_clock(db: Database) -> tuple[list[NodeStatus], int]:
    """For operators: every node, and the database's clock in ms to judge their age by."""
    with operation():
        hello = await db.api.client.admin.command("hello")
        found = await db.api["nodes"].find().sort("_id", 1).to_list()
    return decode_readable("node", found, _node), int(hello["localTime"].timestamp() * 1000)


async def delete(db: Database, node_id: str) -> None:
    """Remove a node that has stopped or has been dead for long."""
    with operation():
        await db.control["nodes"].delete_one({"_id": node_id})


async def request_drain(db: Database, node_id: str, *, drain: bool) -> bool:
    """Ask a node to stand aside, or take that back. It looks every two seconds. False: it has no heartbeat document."""
    with operation():
        result = await db.api["nodes"].update_one({"_id": node_id}, {"$set": {"drain_asked": drain}})
    return result.matched_count > 0


async def request_resign(db: Database, node_id: str, term: int) -> bool:
    """Ask a node to give up leading in exactly this term. False: it has no heartbeat document."""
    with operation():
        result = await db.api["nodes"].update_one({"_id": node_id}, {"$set": {"resign_term": term}})
    return result.matched_count > 0
