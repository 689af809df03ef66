"""What follows executions: `history` and `jobs` as `follow_ups` reads them, and the requests of callbacks."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bson.binary import Binary
from bson.datetime_ms import DatetimeMS

from cluster.core.documents import strict_json
from cluster.core.execution.follow_up import (
    FIELDS,
    ChainedJob,
    ChainedPeriod,
    EndedExecution,
    content_of,
    kind_of,
    kinds_told,
    sentence_of,
)
from cluster.core.execution.model import MESSAGE_VERSION, Execution
from cluster.core.execution.templates import fill_in_headers, values_of
from cluster.core.ids import callback_id, lane_of
from cluster.core.lifecycle import JobState, State
from cluster.core.targets import parse_target
from cluster.store.alert_jobs import ALERT_RETRY
from cluster.store.history import UNFOLLOWED
from cluster.store.mongo.callback_fields import answer_from_document, bound_to
from cluster.store.mongo.codec import INLINE_BODY_BYTES, LARGE_BODY
from cluster.store.mongo.decoding import decode_readable
from cluster.store.mongo.operation import ONE_REPLY, operation

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cluster.store.mongo.client import Database, Document

CALLBACK_RETRY = ALERT_RETRY
_RETRY = {name: getattr(CALLBACK_RETRY, name) for name in type(CALLBACK_RETRY).__slots__}


async def results(db: Database, ids: Collection[str]) -> dict[str, EndedExecution]:
    """The results of those of these executions that history has as ended so that something may follow, by id."""
    fields: Document = {
        **dict.fromkeys(("job_id", "due_at", "state", "reason", "ended_at", "answer"), 1),
        "attempts": {"$slice": ["$attempts", -1]},
        "made": {"$add": [{"$size": "$attempts"}, {"$ifNull": ["$attempts_left_out", 0]}]},
    }
    with operation():
        documents = await db.work["history"].find({"_id": {"$in": list(ids)}}, fields, batch_size=ONE_REPLY).to_list()
    read = decode_readable("history", documents, ended_of)
    return {e.id: e for e in read if kind_of(e.state) is not None}


def ended_of(d: Document) -> EndedExecution:
    """A record with its last attempt as a value; `made`: how many attempts there were."""
    last = d["attempts"][-1] if d["attempts"] else {}
    return EndedExecution(
        id=d["_id"],
        job_id=d["job_id"],
        due_ms=int(d["due_at"]),
        state=d["state"],
        ended_ms=int(d["ended_at"]),
        reason=d["reason"],
        attempts=d["made"],
        status=last.get("status"),
        error=last.get("error"),
        excerpt=last.get("excerpt"),
        answer=answer_from_document(d.get("answer")),
    )


def ended_at(ended: EndedExecution, at_ms: int) -> EndedExecution:
    """The same, as if it had ended at another instant."""
    return replace(ended, ended_ms=at_ms)


@dataclass(frozen=True, slots=True)
class Ended:
    """An execution that may have ended: its id, its job, its request if it is a message, and its state if that was read."""

    id: str
    job_id: str
    message: Mapping[str, Any] | None = None
    state: str = ""
    unfollowed: bool = False
    """Whether its record is marked."""


async def unfollowed(db: Database, limit: int) -> list[Ended]:
    """Executions whose record replaced another one, and of which nobody has noted that what follows is written."""
    with operation():
        documents = await db.work["history"].find({UNFOLLOWED: True}, _OF_ENDED).limit(limit).to_list()
    return [_ended(d) for d in documents]


async def left_to_follow(db: Database, ids: Collection[str], also: Collection[str]) -> list[Ended]:
    """Those of these executions whose record is marked, and those of `also` that have a record."""
    query: Document = {"_id": {"$in": list(ids)}, UNFOLLOWED: True}
    if also:
        query = {"$or": [query, {"_id": {"$in": list(also)}}]}
    with operation():
        documents = await db.work["history"].find(query, _OF_ENDED).to_list()
    return [_ended(d) for d in documents]


_OF_ENDED = {"job_id": 1, "message": 1, "state": 1, UNFOLLOWED: 1}


def _ended(d: Document) -> Ended:
    return Ended(d["_id"], d["job_id"], d.get("message"), d["state"], bool(d.get(UNFOLLOWED)))


async def mark_followed(db: Database, states: Mapping[str, str]) -> None:
    """What follows these executions in these states is written. The request of a message that has succeeded goes with the mark.

    `states`: read or written before what follows was written. A success that came since keeps its mark: whoever recorded it
    may have died before it wrote what follows that.
    """
    by_state: defaultdict[str, list[str]] = defaultdict(list)
    for name, state in states.items():
        by_state[state].append(name)
    with operation():
        for state, ids in by_state.items():
            over = [UNFOLLOWED, *(("message", LARGE_BODY) if state == State.SUCCEEDED.value else ())]
            await db.work["history"].update_many(
                {"_id": {"$in": ids}, UNFOLLOWED: True, "state": state}, {"$unset": dict.fromkeys(over, "")}
            )


@dataclass(frozen=True, slots=True)
class FollowedJob:
    """A job or a message: its callbacks as they are stored, by kind, and whether jobs may be chained to it."""

    callbacks: Mapping[str, Mapping[str, Any]]
    has_chained: bool = False
    retention_days: float | None = None


def followed_message(message: Mapping[str, Any]) -> FollowedJob:
    """What follows a message; nothing follows a callback."""
    callbacks = {kind: message[FIELDS[kind]] for kind in kinds_told(message)}
    return FollowedJob(callbacks, retention_days=message.get("retention_days"))


async def jobs(db: Database, job_ids: Collection[str]) -> dict[str, FollowedJob]:
    """What follows these jobs, by id. A deleted one keeps its callbacks for a while, and who is chained to it: what was in
    flight when it was deleted is followed.
    """
    if not job_ids:
        return {}
    fields = dict.fromkeys(("on_success", "on_failure", "followed_by.job", "retention_days"), 1)
    with operation():
        documents = await db.work["jobs"].find({"_id": {"$in": list(job_ids)}}, fields).to_list()
    return {
        d["_id"]: FollowedJob(
            {kind: d[FIELDS[kind]] for kind in kinds_told(d)}, bool(d.get("followed_by")), d.get("retention_days")
        )
        for d in documents
    }


async def chained(db: Database, job_ids: Collection[str]) -> dict[str, list[ChainedJob]]:
    """The jobs that are chained to these, as they are now, by the job that they run after."""
    by_job: dict[str, list[ChainedJob]] = {}
    if not job_ids:
        return by_job
    names = ("after", "state", "active_from", "schedule_version", "lane", "host", "gate", "created_at")
    fields = dict.fromkeys((*names, "past.from", "past.to", "past.ended_by", "past.after"), 1)
    query: Document = {"after.job": {"$in": list(job_ids)}, "state": {"$ne": JobState.DELETED.value}}
    with operation():
        documents = await db.work["jobs"].find(query, fields).to_list()
    for job, after in decode_readable("job", documents, lambda d: (_chained(d), d["after"]["job"])):
        by_job.setdefault(after, []).append(job)
    return by_job


def _chained(d: Document) -> ChainedJob:
    return ChainedJob(
        id=d["_id"],
        on=d["after"]["on"],
        state=JobState(d["state"]),
        active_from_ms=int(d["active_from"]),
        schedule_version=d["schedule_version"],
        lane=int(d["lane"]),
        host=d.get("host", ""),
        limit_key=d.get("gate"),
        past=tuple(
            ChainedPeriod(int(p["from"]), int(p["to"]), p.get("ended_by", ""), *_after(p.get("after")))
            for p in d.get("past") or ()
        ),
        created_ms=int(d.get("created_at") or 0),
    )


def _after(stored: Mapping[str, Any] | None) -> tuple[str, str]:
    return ("", "") if stored is None else (stored["job"], stored["on"])


async def recorded(db: Database, ids: Collection[str]) -> set[str]:
    """Those of these executions of which history has a record, in whatever state."""
    with operation():
        return {d["_id"] async for d in db.work["history"].find({"_id": {"$in": list(ids)}}, {"_id": 1})}


def callback_of(ended: EndedExecution, kind: str, stored: Mapping[str, Any], retention_days: float | None) -> Execution:
    """The execution that sends this callback, without a batch. It carries its request, as a message does."""
    content, channel = content_of(ended), stored.get("channel")
    if channel is not None:
        content["text"] = sentence_of(ended)
    name = callback_id(ended.id, kind, ended.due_ms)
    host = "" if channel is not None else parse_target(stored["url"]).host_port
    return Execution(
        id=name,
        job_id=name.partition(":")[0],
        due_ms=ended.due_ms,
        send_ms=ended.ended_ms,
        schedule_version=MESSAGE_VERSION,
        batch="",
        lane=lane_of(host or f"channel:{channel}"),
        trigger=True,
        replayed_ms=ended.ended_ms,
        host=host,
        request_id=ended.id,
        message=_request(ended, kind, stored, strict_json.dumps(content), retention_days),
    )


def _request(
    ended: EndedExecution, kind: str, stored: Mapping[str, Any], body: bytes, retention_days: float | None
) -> Document:
    values = values_of(ended.id, ended.job_id, ended.due_ms, ended.attempts)
    request: Document = {
        "url": f"channel:{stored['channel']}" if "channel" in stored else stored["url"],
        **{name: stored[name] for name in ("channel", "secret_headers", "signing_secret") if name in stored},
        **({"headers": fill_in_headers(stored["headers"], values)} if "headers" in stored else {}),
        "bound_to": bound_to(ended.job_id, FIELDS[kind]),
        "follows": ended.id,
        "body_kind": "json",
        "templates": False,
        "created_at": DatetimeMS(ended.ended_ms),
        "retry": _RETRY,
    }
    if retention_days is not None:
        request["retention_days"] = retention_days
    if len(body) > INLINE_BODY_BYTES:
        return request | {"body_size": len(body), LARGE_BODY: Binary(body)}
    return request | {"body": Binary(body)}
