"""The events of one database, read from one change stream.

The stream begins at a time of the database and not behind a token: a token is accepted only by a stream with the same
conditions, and a time by every stream of every node. Changes up to the position that was asked for are skipped here.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from bson.timestamp import Timestamp
from pymongo.errors import OperationFailure, PyMongoError

from cluster.core.errors import HistoryLost, NoChangeStreams
from cluster.core.events import LiveEvent, attempt_fields, execution_event, position_time
from cluster.core.instants import format_instant
from cluster.core.lifecycle import JobState
from cluster.store.history import LEFT_OUT, REOPENED
from cluster.store.mongo.codec import attempt_from_document, instant
from cluster.store.mongo.decoding import decode_readable
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Collection

    from pymongo.asynchronous.change_stream import AsyncDatabaseChangeStream

    from cluster.core.events import Demand
    from cluster.store.mongo.client import Database, Document

WAIT_MS = 500
"""How long a read waits for the first change."""
MOST_AT_ONCE = 500
COMMENT = "horae events"
"""The stream carries this comment, so that operators find it among the operations of the database."""
_LOST = 286
_UNSUPPORTED = {13, 59, 115, 303, 40324, 40573}
"""Not authorized; unknown or unsupported command or stage; not a replica set."""
_JOB_FIELDS = ("revision", "state", "created_at", "name", "updated_at")


class ChangeFeed:
    """The events behind a position, in order. `position` is that of the last change that was looked at."""

    def __init__(self, stream: AsyncDatabaseChangeStream[Document], after: str, leader: tuple[Any, Any]) -> None:
        self._stream = stream
        self._leader = leader
        self.position = after or self._token()

    @classmethod
    async def open(cls, db: Database, demand: Demand, after: str = "") -> ChangeFeed:
        """Begin behind `after`, or now. Raises `HistoryLost`, `NoChangeStreams`, `StoreUnavailable`."""
        at = position_time(after)
        with operation():
            try:
                stream = await db.api.watch(
                    _pipeline(demand),
                    start_at_operation_time=None if at is None else Timestamp(*at),
                    max_await_time_ms=WAIT_MS,
                    batch_size=MOST_AT_ONCE,
                    comment=COMMENT,
                )
                lease = await db.api["leases"].find_one({}) if "leader" in demand.kinds else None
            except OperationFailure as exc:
                _raise_known(exc)
                raise
        return cls(stream, after, _holder(lease or {}))

    async def next(self) -> list[LiveEvent]:
        """The next events: those that are there, else the first ones that come within `WAIT_MS`; empty: none came.

        Raises as `open` does.
        """
        changes: list[Document] = []
        with operation():
            try:
                change = await self._stream.try_next()
                while change is not None:
                    changes.append(change)
                    # Only the cursor knows whether its batch has more. To ask for another one would wait for it.
                    if len(changes) >= MOST_AT_ONCE or not self._stream._cursor._has_next():  # noqa: SLF001
                        break
                    change = await self._stream.try_next()
            except OperationFailure as exc:
                _raise_known(exc)
                raise
        begin = self.position
        events = decode_readable("change", changes, lambda c: _event(c, begin))
        self.position = max(begin, self._token())
        return [e for e in events if e is not None and self._leads_anew(e)]

    def _leads_anew(self, e: LiveEvent) -> bool:
        """Whether an event of the leader's lease is more than a renewal."""
        if e.kind != "leader" or "rev" not in e.data:
            return True
        before, self._leader = self._leader, (e.data["nodeId"], e.data["term"])
        del e.data["rev"]
        return before != self._leader

    async def close(self) -> None:
        """End the stream. The server ends it by itself, later, if it cannot be told."""
        with suppress(PyMongoError):
            await self._stream.close()

    def _token(self) -> str:
        token: Any = self._stream.resume_token
        return "" if token is None else str(token["_data"])


def _holder(lease: Document) -> tuple[Any, Any]:
    return lease.get("holder"), lease.get("term")


def _raise_known(exc: OperationFailure) -> None:
    if exc.code == _LOST:
        raise HistoryLost("the log of the database does not reach back so far") from exc
    if exc.code in _UNSUPPORTED:
        raise NoChangeStreams(str((exc.details or {}).get("errmsg", exc))[:200]) from exc


def _pipeline(demand: Demand) -> list[Document]:
    """The changes that are wanted, with the fields that events show and no others: jobs have secrets and large bodies."""
    wanted = [c for kind in sorted(demand.kinds) for c in _conditions(kind, demand)]
    changed = "updateDescription.updatedFields"
    return [
        {"$match": {"$or": wanted or [{"operationType": "nothing"}]}},
        {
            "$project": {
                "operationType": 1,
                "ns.coll": 1,
                "documentKey": 1,
                "clusterTime": 1,
                "wallTime": 1,
                "full": {
                    "$cond": [
                        {"$eq": ["$ns.coll", "jobs"]},
                        {name: f"$fullDocument.{name}" for name in _JOB_FIELDS},
                        "$fullDocument",
                    ]
                },
                "changed": {
                    "$cond": [
                        {"$eq": ["$ns.coll", "jobs"]},
                        {name: f"${changed}.{name}" for name in _JOB_FIELDS},
                        f"${changed}",
                    ]
                },
            }
        },
        {"$project": {"full.attempts.excerpt": 0, "full.attempts.detail": 0, "full.answer": 0, "changed.answer": 0}},
    ]


def _conditions(kind: str, demand: Demand) -> list[Document]:
    field = "updateDescription.updatedFields"

    def of(collection: str, operation_type: str, **more: Any) -> Document:
        return {"ns.coll": collection, "operationType": operation_type, **more}

    if kind == "execution":
        states = sorted(demand.states)
        replayed = [REOPENED] if "retrying" in states else []
        found = [
            of("history", "insert", **{"fullDocument.state": {"$in": states}}),
            of("history", "update", **{f"{field}.state": {"$in": [*states, *replayed]}}),
        ]
        if "retrying" in states:
            found.append(of("executions", "update", **{f"{field}.state": "retrying"}))
        return found
    if kind == "job":
        return [
            of("jobs", "insert", **{"fullDocument.channel": None}),
            of("jobs", "update", **{f"{field}.revision": {"$exists": True}}),
        ]
    if kind == "leader":
        moved = [{f"{field}.{name}": {"$exists": True}} for name in ("holder", "term")]
        # A small document may be replaced as a whole by any of its writes, each renewal too: `_leads_anew` tells.
        return [of("leases", "update", **{"$or": moved}), of("leases", "replace")]
    if kind == "breaker":
        return [{"ns.coll": "breakers", "operationType": {"$in": ["insert", "update", "delete"]}}]
    return [
        of("incidents", "insert"),
        of("incidents", "update", **{f"{field}.open": {"$exists": True}}),
    ]


def _event(c: Document, after: str) -> LiveEvent | None:
    position = str(c["_id"]["_data"])
    if position <= after:
        return None
    name = str(c["documentKey"]["_id"])
    fields = c.get("full") or c.get("changed") or {}
    at = {"at": format_instant(instant(c.get("wallTime")) or c["clusterTime"].time * 1000)}  # wallTime: from 6.0 on
    collection, deleted = c["ns"]["coll"], c["operationType"] == "delete"
    if collection in ("history", "executions"):
        return _execution_event(position, name, fields)
    if collection == "jobs":
        return _job_event(position, name, fields, created=c["operationType"] == "insert")
    if collection == "leases":
        known = {name: fields[name] for name in ("term",) if fields.get(name) is not None}
        whole = {"rev": True} if c["operationType"] == "replace" else {}
        return LiveEvent(position, "leader", {"nodeId": fields.get("holder"), **known, **at, **whole})
    if collection == "breakers":
        state = "closed" if deleted else "half-open" if fields.get("half_open") else "open"
        reason = {} if fields.get("why") is None else {"reason": fields["why"]}
        return LiveEvent(position, "breaker", {"host": name, "state": state, **reason, **at})
    job_id, _, kind = name.rpartition(":")
    shown = {"detail": fields["detail"]} if fields.get("detail") is not None else {}
    data = {"jobId": job_id, "kind": kind, "state": "open" if fields.get("open") else "closed", **shown, **at}
    return LiveEvent(position, "alert", data, job_id)


def _execution_event(position: str, name: str, fields: Document) -> LiveEvent:
    """An insertion has all fields, a change only those that it sets."""
    state = "retrying" if fields["state"] == REOPENED else str(fields["state"])
    attempts = fields.get("attempts")
    if attempts is None:  # a change adds an attempt under its number
        added = sorted((int(k.partition(".")[2]), v) for k, v in fields.items() if k.startswith("attempts."))
        last, count = (added[-1][1], added[-1][0] + 1) if added else (None, 0)
    else:
        last, count = (attempts[-1] if attempts else None), len(attempts) + fields.get(LEFT_OUT, 0)
    known = attempt_fields(None if last is None else attempt_from_document(last), state, count)
    if fields.get("drift_ms") is not None:
        known["driftMs"] = fields["drift_ms"]
    if fields.get("reason") is not None:
        known["reason"] = fields["reason"]
    if fields.get("ended_at") is not None:
        known["endedAt"] = format_instant(int(fields["ended_at"]))
    if state == "retrying" and fields.get("send_at") is not None:
        known["nextAttemptAt"] = format_instant(int(fields["send_at"]))
    if state == "missed" and "last_at" in fields:
        known |= {"missedCount": fields.get("count", 1), "missedUntil": format_instant(int(fields["last_at"]))}
    return execution_event(position, name, state, known)


_CHANGES = {"paused": "paused", "active": "resumed", "completed": "completed", "deleted": "deleted"}


def _job_event(position: str, name: str, fields: Document, *, created: bool) -> LiveEvent | None:
    if name.startswith("alert."):
        return None
    state = fields.get("state")
    created = created or fields.get("created_at") is not None  # the id of a deleted job is used again
    change = "created" if created else _CHANGES.get(str(state), "changed")
    data: dict[str, Any] = {"jobId": name, "change": change, "revision": fields["revision"]}
    if state is not None and state != JobState.DELETED.value:
        data["state"] = state
    if fields.get("updated_at") is not None:
        data["at"] = format_instant(int(fields["updated_at"]))
    return LiveEvent(position, "job", data, name)


async def tags_of(db: Database, job_ids: Collection[str]) -> dict[str, frozenset[str]]:
    """The tags of these jobs, as they are now; those of deleted jobs too."""
    with operation():
        documents = await db.api["jobs"].find({"_id": {"$in": list(job_ids)}}, {"tags": 1}).to_list()
    return {d["_id"]: frozenset(d.get("tags") or ()) for d in documents}
