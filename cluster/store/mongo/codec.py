"""Values to documents and back. Instants are BSON dates in the database and `int` ms in the program."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from bson.datetime_ms import DatetimeMS

from cluster.core.alerts import NOT_WATCHED, ResultWatch
from cluster.core.execution.follow_up import kinds_told
from cluster.core.execution.lateness import kept_parts, parts_of
from cluster.core.execution.model import Attempt, EndedPeriod, Execution, Job, RetryPolicy, Target
from cluster.core.execution.verdict import expand_codes
from cluster.core.lifecycle import STATE_TEXT, JobState, State
from cluster.core.limits.permits import UNLIMITED, Limits
from cluster.store.mongo import job_secrets
from cluster.store.mongo.encryption import NO_KEYS
from cluster.store.mongo.job_secrets import authorization_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster.store.mongo.client import Document
    from cluster.store.mongo.encryption import Keyring


def instant(value: Any) -> int | None:
    """A stored date as ms; None stays None."""
    return None if value is None else int(value)


def date(ms: int | None) -> DatetimeMS | None:
    """An instant in ms as it is stored; None stays None."""
    return None if ms is None else DatetimeMS(ms)


@lru_cache(maxsize=4096)
def shared_date(ms: int) -> DatetimeMS:
    """An instant in ms as it is stored. Executions of one second share it: to make one takes ten times as long."""
    return DatetimeMS(ms)


LATE = "late"
"""In an attempt: the parts of its lateness that are not 0, by name."""
CLAIMED_BEFORE = "held"
"""How long before an attempt its batch was claimed, in ms: a quarter of the bytes of a second date."""


def attempt_to_document(a: Attempt) -> Document:
    """As stored inside executions and history; `error`, `detail` and `excerpt` are absent where they are None, and so
    are the parts of a lateness where it was not split.
    """
    document: Document = {
        "n": a.number,
        "sent_at": shared_date(a.sent_ms),
        "node": a.node,
        "token": a.token,
        "ms": round(a.duration_ms, 1),
        "status": a.status,
    }
    if a.error is not None:
        document["error"] = a.error
    if a.detail is not None:
        document["detail"] = a.detail
    if a.excerpt is not None:
        document["excerpt"] = a.excerpt
    if late := kept_parts(a.late):
        document[LATE] = late
    if a.claimed_ms:
        document[CLAIMED_BEFORE] = a.sent_ms - a.claimed_ms
    return document


def attempt_from_document(d: Document) -> Attempt:
    """The inverse of `attempt_to_document`."""
    held = d.get(CLAIMED_BEFORE)
    return Attempt(
        number=d["n"],
        sent_ms=int(d["sent_at"]),
        node=d["node"],
        token=d["token"],
        duration_ms=d["ms"],
        status=d["status"],
        error=d.get("error"),
        detail=d.get("detail"),
        excerpt=d.get("excerpt"),
        late=parts_of(d.get(LATE)),
        claimed_ms=None if held is None else int(d["sent_at"]) - held,
    )


LARGE_BODY = "large_body"
"""The body of a message that is not read along with its execution. It is beside `message`, so that reads can leave it out."""


def message_fields(message: Mapping[str, Any] | None) -> Document:
    """The request of a message as it is stored beside its execution; nothing for an execution of a job."""
    if message is None:
        return {}
    if LARGE_BODY not in message:
        return {"message": message}
    return {
        "message": {name: value for name, value in message.items() if name != LARGE_BODY},
        LARGE_BODY: message[LARGE_BODY],
    }


def execution_to_document(e: Execution) -> Document:
    """As stored in `executions`."""
    document: Document = {
        "_id": e.id,
        "job_id": e.job_id,
        "due_at": shared_date(e.due_ms),
        "send_at": shared_date(e.send_ms),
        "schedule_version": e.schedule_version,
        "batch": e.batch,
        "lane": e.lane,
        "state": STATE_TEXT[e.state],
        "attempts": [attempt_to_document(a) for a in e.attempts],
        "trigger": e.trigger,
        "owner": e.owner,
        "token": e.token,
        "host": e.host,
    }
    if e.limit_key is not None:
        document["gate"] = e.limit_key
    if e.replayed_ms is not None:
        document["asked_at"] = DatetimeMS(e.replayed_ms)
    if e.request_id is not None:
        document["request"] = e.request_id
    if e.waits:
        document["waits"] = True
    if e.message is not None:
        document |= message_fields(e.message)
    if e.cancelled:
        document["cancelled"] = True
    return document


_STATES = {s.value: s for s in State}
"""To look a state up takes a fifth of the time that the enumeration takes to find it."""


def execution_from_document(d: Document) -> Execution:
    """The inverse of `execution_to_document`."""
    attempts = d["attempts"]
    return Execution(
        id=d["_id"],
        job_id=d["job_id"],
        due_ms=int(d["due_at"]),
        send_ms=int(d["send_at"]),
        schedule_version=d["schedule_version"],
        batch=d["batch"],
        lane=d["lane"],
        state=_STATES.get(d["state"]) or State(d["state"]),
        attempts=() if attempts == [] else tuple(attempt_from_document(a) for a in attempts),
        trigger=d["trigger"],
        owner=d["owner"],
        token=d["token"],
        replayed_ms=instant(d.get("asked_at")),
        host=d.get("host", ""),
        limit_key=d.get("gate"),
        request_id=d.get("request"),
        waits=d.get("waits", False),
        message=d.get("message"),
        cancelled=d.get("cancelled", False),
    )


JOB_FIELDS = dict.fromkeys(
    (
        "state",
        "schedule_version",
        "active_from",
        "lane",
        "url",
        "headers",
        "secret_headers",
        "auth",
        "body",
        "body_kind",
        "templates",
        "timeout_seconds",
        "retry",
        "overlap",
        "spread_seconds",
        "signing_secret",
        "previous_signing_secret",
        "revision",
        "retention_days",
        "success_codes",
        "host",
        "gate",
        "max_per_second",
        "max_concurrent",
        "watch",
        "channel",
        "tags",
        "on_success",
        "on_failure",
        "followed_by.job",
        "created_at",
        "past.schedule_version",
        "past.to",
        "past.ended_by",
    ),
    1,
)
INLINE_BODY_BYTES = 8 * 1024
"""Larger bodies are not read along with their jobs: a node prepares up to 2,048 executions."""
_BODY_SIZE = {"$cond": [{"$in": [{"$type": "$body"}, ["binData", "string"]]}, {"$binarySize": "$body"}, 0]}
JOB_FIELDS_WITHOUT_LARGE_BODY: Document = {
    **JOB_FIELDS,
    "body": {"$cond": [{"$gt": [_BODY_SIZE, INLINE_BODY_BYTES]}, None, "$body"]},
    "body_size": _BODY_SIZE,
}
_CONTENT_TYPES = {"json": "application/json", "text": "text/plain; charset=utf-8", "none": None}


def limits_from_document(d: Document) -> Limits:
    """The limits of the job itself, not those of its queue."""
    if d.get("gate") is None:
        return UNLIMITED
    return Limits(d.get("max_per_second"), d.get("max_concurrent"))


def target_from_document(d: Document, keyring: Keyring) -> Target:
    """The request of a job with its secrets decrypted. Raises `UndecryptableSecret`."""
    headers = tuple((name, value) for name, value in d["headers"])
    unread_bytes = d.get("body_size", 0) if d["body"] is None else 0
    body = b"" if unread_bytes else bytes(d["body"])
    templated = d.get("templates", True) and (b"{{" in body or any("{{" in value for _, value in headers))
    secrets: tuple[str, ...] = ()
    if d.get("secret_headers") or d.get("auth"):
        secret_headers = job_secrets.decrypt_headers(keyring, d)
        auth = job_secrets.decrypt_auth(keyring, d)
        headers += secret_headers
        secrets = tuple(value for _, value in secret_headers)
        if auth is not None:
            authorization = authorization_value(auth)
            headers += (("Authorization", authorization),)
            secrets += (auth.secret, authorization.partition(" ")[2])
    return Target(
        url=d["url"],
        headers=headers,
        body=body,
        unread_bytes=unread_bytes,
        content_type=_CONTENT_TYPES[d["body_kind"]],
        timeout_seconds=d["timeout_seconds"],
        secrets=secrets,
        templated=templated,
        body_is_json=d["body_kind"] == "json",
    )


def retry_from_document(d: Document) -> RetryPolicy:
    """The `retry` of a job document."""
    return RetryPolicy(
        max_attempts=d["max_attempts"],
        initial_delay_seconds=d["initial_delay_seconds"],
        multiplier=d["multiplier"],
        max_delay_seconds=d["max_delay_seconds"],
        jitter=d["jitter"],
        max_age_seconds=d.get("max_age_seconds"),
    )


def job_from_document(d: Document, keyring: Keyring = NO_KEYS) -> Job:
    """A job as dispatch needs it, from a document with `JOB_FIELDS`. Raises `UndecryptableSecret`."""
    success_codes = d.get("success_codes")
    tells = kinds_told(d)
    target = target_from_document(d, keyring)
    return Job(
        id=d["_id"],
        state=JobState(d["state"]),
        schedule_version=d["schedule_version"],
        active_from_ms=int(d["active_from"]),
        lane=d["lane"],
        target=replace(target, keeps_answer=True) if tells else target,
        retry=retry_from_document(d["retry"]),
        overlap_skip=d["overlap"] == "skip",
        spread_seconds=d["spread_seconds"],
        signing_secret=keyring.decrypt_optional(d.get("signing_secret"), d["_id"], "signingSecret"),
        previous_signing_secret=keyring.decrypt_optional(
            d.get("previous_signing_secret"), d["_id"], "previousSigningSecret"
        ),
        revision=d["revision"],
        retention_days=d.get("retention_days"),
        success_codes=None if success_codes is None else expand_codes(tuple(success_codes)),
        host=d.get("host") or f"lane {d['lane']}",  # jobs of schema version 1 have no host
        limit_key=d.get("gate"),
        limits=limits_from_document(d),
        watch=watch_from_document(d),
        channel=d.get("channel"),
        tags=tuple(d.get("tags") or ()),
        past=tuple(
            EndedPeriod(p["schedule_version"], int(p["to"]), p.get("ended_by", "")) for p in d.get("past") or ()
        ),
        created_ms=instant(d.get("created_at")) or 0,
        tells=tells,
        followed=bool(tells or d.get("followed_by")),
    )


def watch_from_document(d: Document) -> ResultWatch | None:
    """Which results of a job alerts are decided on; None: as the default alert rules say."""
    if d.get("channel") is not None:
        return NOT_WATCHED
    watch = d.get("watch")
    return None if watch is None else ResultWatch(watch["marks"], watch["drift_over_ms"])
