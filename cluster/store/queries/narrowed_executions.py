"""Executions narrowed to a host, to how their last attempt ended, or to who holds them: conditions for pages of executions.

Results are narrowed among those that did not succeed, which have an index of their own: the others would have to be read one
by one, however many there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.core.ids import is_message
from cluster.core.limits.permits import QUEUE_PREFIX
from cluster.core.targets import host_of, is_host
from cluster.store.mongo.operation import operation
from cluster.store.replayable import NOT_SENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.store.mongo.client import Database, Document

ENDED_WITH = (
    *("dns", "connect", "tls", "timeout", "stalled", "reset", "denied", "too_large", "protocol", "other"),
    NOT_SENT,
)
"""How a last attempt may have ended without an answer."""
UNHAPPY = ("cancelled", "dead", "failed", "missed", "skipped")
INDEX = "unhappy_by_end"
PORTION = 2000
MOST = 20_000
"""So many results are looked at for one page, which may then have fewer executions than were asked for."""


@dataclass(frozen=True, slots=True)
class Narrowed:
    """Only executions of this host (with or without a port), whose last attempt ended with this error or status; unfinished
    ones that this node holds, that are in this batch, or that count under the limits of this queue.
    """

    host: str | None = None
    error: str | None = None
    status: int | None = None
    node: str | None = None
    batch: str | None = None
    queue: str | None = None

    @property
    def is_of_unfinished(self) -> bool:
        """Whether no result can match."""
        return self.node is not None or self.batch is not None or self.queue is not None


EVERY = Narrowed()


def last_attempt(error: str | None, status: int | None) -> list[Document]:
    """The conditions on how the last attempt ended."""
    found: list[Document] = []
    if error == NOT_SENT:
        found.append({"attempts": {"$size": 0}})
    elif error is not None:
        found.append({"$expr": _last_is("error", error)})
    if status is not None:
        found.append({"$expr": _last_is("status", status)})
    return found


def _last_is(name: str, value: object) -> Document:
    return {"$eq": [{"$let": {"vars": {"last": {"$last": "$attempts"}}, "in": f"$$last.{name}"}}, value]}


async def owed_conditions(db: Database, f: Narrowed) -> list[Document]:
    """The conditions on `executions`, which are few and are read one by one anyway."""
    found = last_attempt(f.error, f.status)
    if f.host is not None:
        has_port = ":" in f.host.rpartition("]")[2]
        found.append({"host": f.host if has_port else {"$gte": f"{f.host}:", "$lt": f"{f.host};"}})
    if f.node is not None:
        query = {"late": {"$in": [False, True]}, "owner": f.node}
        with operation():
            held = [d["_id"] async for d in db.api["batches"].find(query, {"_id": 1})]
        found.append({"batch": {"$in": held}})
    if f.batch is not None:
        found.append({"batch": f.batch})
    if f.queue is not None:
        found.append({"gate": QUEUE_PREFIX + f.queue})
    return found


async def of_host(db: Database, candidates: Sequence[Document], host: str) -> list[Document]:
    """Those of these results (`_id`, `job_id`) whose target has the host: that of their job, or of the message while it can
    be sent again.
    """
    messages = [d["_id"] for d in candidates if is_message(d["job_id"])]
    names = sorted({d["job_id"] for d in candidates if not is_message(d["job_id"])})
    with operation():
        hosts = {d["_id"]: d.get("host") async for d in db.api["jobs"].find({"_id": {"$in": names}}, {"host": 1})}
        if messages:
            query = {"_id": {"$in": messages}, "message.url": {"$exists": True}}
            async for d in db.api["history"].find(query, {"message.url": 1}):
                hosts[d["_id"]] = host_of(d["message"]["url"])
    named = (hosts.get(d["_id"] if is_message(d["job_id"]) else d["job_id"]) for d in candidates)
    return [d for d, of in zip(candidates, named, strict=True) if of and is_host(of, host)]
