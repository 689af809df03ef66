"""Where a message is: it waits in `messages`, is owed in `executions`, or is final in `history`.

It enters the next of these before it leaves the one before. So a reader that asks them in this order finds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.core.execution.model import MESSAGE_VERSION, Execution
from cluster.core.ids import lane_of
from cluster.core.limits.permits import UNLIMITED, limit_key_of
from cluster.core.targets import host_of, parse_target
from cluster.store.mongo.codec import LARGE_BODY, execution_from_document
from cluster.store.mongo.decoding import decode_one
from cluster.store.mongo.operation import operation
from cluster.store.queries.jobs_and_executions import merge_by_id

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

    from cluster.core.execution.view import ExecutionView
    from cluster.store.mongo.client import Database, Document

_WITHOUT_BODY = {LARGE_BODY: 0, "answer": 0}


def _of(message_id: str) -> Document:
    return {"_id": {"$gte": f"{message_id}:", "$lt": f"{message_id};"}}


async def known_ids(db: Database, ids: Collection[str]) -> set[str]:
    """Those of these executions of messages that exist: they wait, are owed, or are final."""
    known: set[str] = set()
    query = {"_id": {"$in": list(ids)}}
    with operation():
        for name in ("messages", "executions", "history"):
            known |= {d["_id"] async for d in db.work[name].find(query, {"_id": 1})}
    return known


async def waiting(db: Database, message_id: str) -> Execution | None:
    """The message, with its large body, if it waits to be an execution. Raises `UnreadableDocument`."""
    with operation():
        d = await db.work["messages"].find_one(_of(message_id))
    if d is None:
        return None
    if LARGE_BODY in d:
        d["message"][LARGE_BODY] = d[LARGE_BODY]
    return decode_one("message", d, execution_from_document)


async def owed(db: Database, message_id: str) -> Execution | None:
    """The execution of the message, if it is owed. Raises `UnreadableDocument`."""
    with operation():
        d = await db.work["executions"].find_one(_of(message_id), _WITHOUT_BODY)
    return None if d is None else decode_one("execution", d, execution_from_document)


async def recorded(db: Database, message_id: str) -> str | None:
    """The state in which history has the message; None: it has none."""
    with operation():
        d = await db.work["history"].find_one(_of(message_id), {"state": 1})
    return None if d is None else str(d["state"])


async def final_state(db: Database, execution_id: str) -> str | None:
    """The state in which history has this execution; None: it has none."""
    with operation():
        d = await db.work["history"].find_one({"_id": execution_id}, {"state": 1})
    return None if d is None else str(d["state"])


@dataclass(frozen=True, slots=True)
class MessageView:
    """A message as users see it: its execution, and its request as it is stored. `request` is None once it succeeded."""

    execution: ExecutionView
    request: Mapping[str, Any] | None
    waits: bool = False


async def view(db: Database, message_id: str, now_ms: int) -> MessageView | None:
    """The message, wherever it is; None if there is none. Raises `UnreadableDocument`."""
    query = _of(message_id)
    with operation():
        far = await db.api["messages"].find_one(query, _WITHOUT_BODY)
        owed_document = await db.api["executions"].find_one(query, _WITHOUT_BODY)
        final = await db.api["history"].find_one(query, _WITHOUT_BODY)
    documents = [d for d in (owed_document or far,) if d is not None]
    if not documents and final is None:
        return None
    views = merge_by_id(documents, [] if final is None else [final], now_ms)
    if not views:
        decode_one("message", documents[0] if documents else final or {}, execution_from_document)
        return None
    request = next((d["message"] for d in (owed_document, far, final) if d is not None and "message" in d), None)
    return MessageView(next(iter(views.values())), request, waits=owed_document is None and final is None)


async def request_of(db: Database, execution_id: str) -> Mapping[str, Any] | None:
    """The request of a message that is final, with its large body. None: it is not kept."""
    return (await requests_of(db, [execution_id])).get(execution_id)


async def requests_of(db: Database, ids: Collection[str]) -> dict[str, Mapping[str, Any]]:
    """The requests of messages that are final, by execution id, with their large bodies; those that are not kept are absent."""
    if not ids:
        return {}
    query = {"_id": {"$in": list(ids)}, "message": {"$exists": True}}
    with operation():
        documents = await db.work["history"].find(query, {"message": 1, LARGE_BODY: 1}).to_list()
    return {
        d["_id"]: {**d["message"], LARGE_BODY: d[LARGE_BODY]} if LARGE_BODY in d else d["message"] for d in documents
    }


async def body_sizes(db: Database, ids: Collection[str]) -> dict[str, int]:
    """How large the large bodies of final messages are (bytes), by execution id."""
    if not ids:
        return {}
    query = {"_id": {"$in": list(ids)}, "message.body_size": {"$exists": True}}
    with operation():
        return {
            d["_id"]: int(d["message"]["body_size"])
            async for d in db.work["history"].find(query, {"message.body_size": 1})
        }


async def labels_of(db: Database, ids: Collection[str]) -> dict[str, tuple[tuple[str, ...], str]]:
    """The tags and the host of messages that are final and can be sent again, by execution id."""
    if not ids:
        return {}
    query = {"_id": {"$in": list(ids)}, "message": {"$exists": True}}
    with operation():
        return {
            d["_id"]: (tuple(d["message"].get("tags", ())), host_of(d["message"].get("url")))
            async for d in db.work["history"].find(query, {"message.tags": 1, "message.url": 1})
        }


def replayed(execution_id: str, job_id: str, due_ms: int, request: Mapping[str, Any]) -> Execution:
    """The execution that sends a message again, without a batch; its caller says when."""
    host = parse_target(request["url"]).host_port if request else ""
    return Execution(
        id=execution_id,
        job_id=job_id,
        due_ms=due_ms,
        send_ms=due_ms,
        schedule_version=MESSAGE_VERSION,
        batch="",
        lane=lane_of(host),
        trigger=True,
        host=host,
        limit_key=limit_key_of(job_id, request.get("queue"), UNLIMITED),
        message=request,
    )
