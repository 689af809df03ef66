"""`nodes`: one heartbeat document per process start. A node is alive while its `rev` changes; no clocks are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pymongo.errors import WriteConcernError

from cluster.core.audit_entry import new_entry
from cluster.core.errors import InvariantBroken
from cluster.store import audited
from cluster.store.mongo.decoding import decode_readable
from cluster.store.mongo.operation import operation
from cluster.store.outbox import pushed

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database, Document


SILENT_MS = 5000
"""A node without a heartbeat for so long has ended, or cannot reach the database."""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node as operators see it."""

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

    def is_silent(self, now_ms: int) -> bool:
        """Whether there was no heartbeat for long. `now_ms`: the database's clock."""
        return now_ms - self.seen_ms >= SILENT_MS

    def leads(self, leader: str | None) -> bool:
        """Whether it leads. `leader`: the node of the lease. The last heartbeat of a dead leader says for ever that it leads."""
        return self.leading and self.id == leader


def _node(d: Document) -> NodeStatus:
    return NodeStatus(
        id=d["_id"],
        rev=d["rev"],
        host=d["host"],
        pid=d["pid"],
        version=d["version"],
        started_ms=int(d["started_at"]),
        seen_ms=int(d["seen_at"]),
        clock_offset_ms=d["clock_offset_ms"],
        in_flight=d["in_flight"],
        waiting=d["waiting"],
        leading=d["leading"],
        draining=d["draining"],
        counters=d.get("counters", {}),
    )


@dataclass(frozen=True, slots=True)
class OperatorRequests:
    """What operators have asked of a node."""

    drain: bool = False
    resign_term: int = 0
    """The term of which it is to resign as leader; 0: none."""


@dataclass(frozen=True, slots=True)
class WrittenHeartbeat:
    """What the write of a heartbeat has read: the database's clock in ms, and operators' requests."""

    now_ms: int
    requests: OperatorRequests


async def write_heartbeat(db: Database, node_id: str, fields: dict[str, Any]) -> WrittenHeartbeat:
    """Write the heartbeat of this node.

    Not by the driver's `find_one_and_update`, which repeats a write once: for this MongoDB keeps an image of the document
    with each write, a fifth of what a heartbeat costs it. The next heartbeat follows in a second or two.
    """
    literals = {k: {"$literal": v} for k, v in fields.items()}
    update: list[Document] = [
        {
            "$set": {
                **literals,
                "rev": {"$add": [{"$ifNull": ["$rev", 0]}, 1]},
                "seen_at": "$$NOW",
                "started_at": {"$ifNull": ["$started_at", "$$NOW"]},
            }
        }
    ]
    with operation():
        reply = await db.control.command(
            "findAndModify",
            "nodes",
            query={"_id": node_id},
            update=update,
            fields={"seen_at": 1, "drain_asked": 1, "resign_term": 1},
            upsert=True,
            new=True,
            writeConcern=db.control.write_concern.document,
            codec_options=db.control.codec_options,
        )
        if (unconfirmed := reply.get("writeConcernError")) is not None:
            raise WriteConcernError(str(unconfirmed.get("errmsg")), unconfirmed.get("code"), unconfirmed)
    d = reply["value"]
    if d is None:
        raise InvariantBroken("an upsert returned no document")
    return WrittenHeartbeat(int(d["seen_at"]), OperatorRequests(_asked_to_drain(d), _term_to_resign(d)))


def _asked_to_drain(d: Document) -> bool:
    return d.get("drain_asked") is True


def _term_to_resign(d: Document) -> int:
    return term if isinstance(term := d.get("resign_term"), int) else 0


async def primary_clock_ms(db: Database) -> int | None:
    """The primary's clock in ms, without waiting for other members; None if the member that answered is no primary."""
    with operation():
        hello = await db.control.client.admin.command("hello")
    return int(hello["localTime"].timestamp() * 1000) if hello["isWritablePrimary"] else None


@dataclass(frozen=True, slots=True)
class NodeHeartbeat:
    """What the other nodes need of a heartbeat, whatever release wrote it."""

    id: str
    rev: int
    clock_offset_ms: int
    host: str = ""
    clock_vote: int | None = None
    """By how much the primary's clock is wrong, as this node sees it; None: it cannot tell (see `core.clock_vote`)."""
    drain_requested: bool = False
    """An operator has asked the node to drain."""


def _beat(d: Document) -> NodeHeartbeat:
    rev, offset = d.get("rev"), d.get("clock_offset_ms")
    return NodeHeartbeat(
        id=str(d["_id"]),
        rev=rev if isinstance(rev, int) else 0,
        clock_offset_ms=offset if isinstance(offset, int) else 0,
        host=str(d.get("host", d["_id"])),
        clock_vote=vote if isinstance(vote := d.get("clock_vote"), int) else None,
        drain_requested=_asked_to_drain(d),
    )


async def heartbeats(db: Database) -> list[NodeHeartbeat]:
    """The heartbeat of every node that has a document, by id."""
    return (await heartbeats_and_clock(db))[0]


async def heartbeats_and_clock(db: Database) -> tuple[list[NodeHeartbeat], int | None]:
    """The same, and the primary's clock in ms when it began to read them; None: there is no document."""
    fields: Document = dict.fromkeys(("rev", "clock_offset_ms", "host", "clock_vote", "drain_asked"), 1)
    with operation():
        documents = await db.control["nodes"].find({}, {**fields, "now": "$$NOW"}).sort("_id", 1).to_list()
    return [_beat(d) for d in documents], int(documents[0]["now"]) if documents else None


async def nodes_and_clock(db: Database) -> tuple[list[NodeStatus], int]:
    """For operators: every node, and the database's clock (ms) to compare their heartbeats with."""
    with operation():
        hello = await db.api.client.admin.command("hello")
        documents = await db.api["nodes"].find().sort("_id", 1).to_list()
    return decode_readable("node", documents, _node), int(hello["localTime"].timestamp() * 1000)


async def delete(db: Database, node_id: str) -> None:
    """Delete the heartbeat of a node that has shut down, or has been dead for long."""
    with operation():
        await db.control["nodes"].delete_one({"_id": node_id})


async def request_drain(db: Database, node_id: str, now_ms: int, *, drain: bool) -> bool:
    """Ask a node to drain, or take that back; it reads requests with its next heartbeat. False if it has no heartbeat document."""
    return await _request(db, node_id, {"drain_asked": drain}, "drain" if drain else "undrain", now_ms)


async def request_resign(db: Database, node_id: str, now_ms: int, term: int) -> bool:
    """Ask a node to resign as leader of exactly this term. False if it has no heartbeat document."""
    return await _request(db, node_id, {"resign_term": term}, "resign", now_ms)


async def _request(db: Database, node_id: str, fields: Document, action: str, now_ms: int) -> bool:
    entry = new_entry(f"node:{node_id}", action, now_ms)
    with operation():
        result = await db.api["nodes"].update_one({"_id": node_id}, {"$set": fields, "$push": pushed(entry)})
    await audited.flush(db, "nodes", node_id)  # before the answer: the document goes when the node stops
    return result.matched_count > 0
