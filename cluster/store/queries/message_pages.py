"""Messages that have not ended, in pages: first those that are executions, in the order in which they were accepted; then
those that wait for that, the one that is due first in front.

A message enters `executions` before it leaves `messages`, so the second part leaves out what the first has.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.store.mongo.codec import LARGE_BODY
from cluster.store.mongo.decoding import decode_readable
from cluster.store.mongo.operation import operation
from cluster.store.queries.jobs_and_executions import owed_view
from cluster.store.queries.message_states import MessageView

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database, Document

_SHOWN: Document = {LARGE_BODY: 0, "message.body": 0, "message.headers": 0, "attempts.excerpt": 0}
_FIRST, _BEHIND = "msg.", "msg/"


@dataclass(frozen=True, slots=True)
class MessagePlace:
    """The last message of a page: whether it waited, when it was due (ms), its execution's id."""

    waits: bool
    due_ms: int
    id: str


async def page(
    db: Database, limit: int, now_ms: int, after: MessagePlace | None
) -> tuple[list[MessageView], MessagePlace | None]:
    """The messages behind a place, at most `limit`, and the place of the last one if there may be more."""
    owed: list[Document] = []
    if after is None or not after.waits:
        ids: Document = {"$gte": _FIRST, "$lt": _BEHIND} if after is None else {"$gt": after.id, "$lt": _BEHIND}
        with operation():
            owed = await db.api["executions"].find({"_id": ids}, _SHOWN).sort("_id", 1).limit(limit).to_list()
    waiting, last = await _waiting(db, limit - len(owed), after) if len(owed) < limit else ([], None)

    def view(d: Document, *, waits: bool) -> MessageView:
        return MessageView(owed_view(d, now_ms), d.get("message"), waits)

    views = decode_readable("message", owed, partial(view, waits=False))
    views += decode_readable("message", waiting, partial(view, waits=True))
    if last is None and len(owed) == limit:
        return views, MessagePlace(waits=False, due_ms=0, id=str(owed[-1]["_id"]))
    return views, last


async def _waiting(db: Database, limit: int, after: MessagePlace | None) -> tuple[list[Document], MessagePlace | None]:
    """Messages that wait, and the place of the last one if there may be more."""
    query: Document = {}
    if after is not None and after.waits:
        at = DatetimeMS(after.due_ms)
        query = {"$or": [{"due_at": {"$gt": at}}, {"due_at": at, "_id": {"$gt": after.id}}]}
    with operation():
        cursor = db.api["messages"].find(query, _SHOWN).sort([("due_at", 1), ("_id", 1)]).limit(limit)
        documents = await cursor.to_list()
        ids = [d["_id"] for d in documents]
        moved = {d["_id"] async for d in db.api["executions"].find({"_id": {"$in": ids}}, {"_id": 1})}
    last = documents[-1] if len(documents) == limit else None
    place = None if last is None else MessagePlace(waits=True, due_ms=int(last["due_at"]), id=str(last["_id"]))
    return [d for d in documents if d["_id"] not in moved], place
