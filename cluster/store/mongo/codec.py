"""Values to documents and back. Instants are BSON dates in the database and `int` ms in the program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bson.datetime_ms import DatetimeMS

from cluster.core.alerts import NOT_WATCHED, ResultWatch
from cluster.core.execution.model import Attempt, Batch, Execution, Job, JobSchedule, RetryPolicy, Target
from cluster.core.execution.verdict import expand_codes
from cluster.core.lifecycle import JobState, State
from cluster.core.limits.permits import UNLIMITED, Limits
from cluster.core.schedule.schedule import parse_schedule
from cluster.store.mongo import job_secrets
from cluster.store.mongo.encryption import NO_KEYS
from cluster.store.mongo.job_secrets import authorization_value

if TYPE_CHECKING:
    from cluster.store.mongo.client import Document
    from cluster.store.mongo.encryption import Keyring

date = DatetimeMS


def instant(value: Any) -> int | None:
    """A stored date as ms, None kept."""
    return None if value is None else int(value)


def attempt_to_document(a: Attempt) -> Document:
    """As stored inside executions and history; absent fields are None."""
    document: Document = {
        "n": a.number,
        "sent_at": DatetimeMS(a.sent_ms),
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
    return document


def attempt_from_document(d: Document) -> Attempt:
    """The inverse of `attempt_to_document`."""
    return Attempt(
        d["n"],
        int(d["sent_at"]),
        d["node"],
        d["token"],
        d["ms"],
        d["status"],
        d.get("error"),
        d.get("detail"),
        d.get("excerpt"),
    )


def execution_to_document(e: Execution) -> Document:
    """As stored in `executions`."""
    return {
        "_id": e.id,
        "job_id": e.job_id,
        "due_at": DatetimeMS(e.due_ms),
        "send_at": DatetimeMS(e.send_ms),
        "schedule_version": e.schedule_version,
        "batch": e.batch,
        "lane": e.lane,
        "state": e.state.value,
        "attempts": [attempt_to_document(a) for a in e.attempts],
        "trigger": e.trigger,
        "owner": e.owner,
        "token": e.token,
        "host": e.host,
        **({} if e.limit_key is None else {"gate": e.limit_key}),
        **({} if e.replayed_ms is None else {"asked_at": DatetimeMS(e.replayed_ms)}),
    }


def execution_from_document(d: Document) -> Execution:
    """The inverse of `execution_to_document`."""
    attempts = d["attempts"]
    return Execution(
        d["_id"],
        d["job_id"],
        int(d["due_at"]),
        int(d["send_at"]),
        d["schedule_version"],
        d["batch"],
        d["lane"],
        State(d["state"]),
        () if attempts == [] else tuple(attempt_from_document(a) for a in attempts),
        d["trigger"],
        d["owner"],
        d["token"],
        instant(d.get("asked_at")),
        d.get("host", ""),
        d.get("gate"),
    )


def batch_to_document(b: Batch) -> Document:
    """As stored in `batches`."""
    return {
        "_id": b.id,
        "ids": list(b.ids),
        "lane": b.lane,
        "attempt": b.attempt,
        "send_at": DatetimeMS(b.send_ms),
        "claimable_at": DatetimeMS(b.claimable_ms),
        "late": b.late,
        "owner": b.owner,
        "token": b.token,
        "claims": b.claims,
        "claimed_at": None,
        "host": b.host,
        **({} if b.limit_key is None else {"gate": b.limit_key}),
        **({"held": True} if b.deferred else {}),
    }


def batch_from_document(d: Document) -> Batch:
    """The inverse of `batch_to_document`."""
    return Batch(
        d["_id"],
        tuple(d["ids"]),
        d["lane"],
        d["attempt"],
        int(d["send_at"]),
        int(d["claimable_at"]),
        d["late"],
        d["owner"],
        d["token"],
        d["claims"],
        d.get("host", ""),
        d.get("gate"),
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
    ),
    1,
)
_CONTENT_TYPES = {"json": "application/json", "text": "text/plain; charset=utf-8", "none": None}


def limits_from_document(d: Document) -> Limits:
    """A job's own limits."""
    if d.get("gate") is None:
        return UNLIMITED
    return Limits(d.get("max_per_second"), d.get("max_concurrent"))


def target_from_document(d: Document, keyring: Keyring) -> Target:
    """Where a job sends, its secrets opened. Raises `SecretUnreadable`."""
    headers = tuple((name, value) for name, value in d["headers"])
    body = bytes(d["body"])
    templated = b"{{" in body or any("{{" in value for _, value in headers)
    secrets: tuple[str, ...] = ()
    if d.get("secret_headers") or d.get("auth"):
        hidden = job_secrets.decrypt_headers(keyring, d)
        auth = job_secrets.decrypt_auth(keyring, d)
        headers += hidden
        secrets = tuple(value for _, value in hidden)
        if auth is not None:
            said = authorization_value(auth)
            headers += (("Authorization", said),)
            secrets += (auth.secret, said.partition(" ")[2])
    kind = _CONTENT_TYPES[d["body_kind"]]
    return Target(d["url"], headers, body, kind, d["timeout_seconds"], secrets, templated)


def job_from_document(d: Document, keyring: Keyring = NO_KEYS) -> Job:
    """A job as dispatch needs it, from a document with `JOB_FIELDS`. Raises `SecretUnreadable`."""
    retry = d["retry"]
    return Job(
        d["_id"],
        JobState(d["state"]),
        d["schedule_version"],
        int(d["active_from"]),
        d["lane"],
        target_from_document(d, keyring),
        RetryPolicy(
            retry["max_attempts"],
            retry["initial_delay_seconds"],
            retry["multiplier"],
            retry["max_delay_seconds"],
            retry["jitter"],
            retry.get("max_age_seconds"),
        ),
        d["overlap"] == "skip",
        d["spread_seconds"],
        keyring.decrypt_optional(d.get("signing_secret"), d["_id"], "signingSecret"),
        keyring.decrypt_optional(d.get("previous_signing_secret"), d["_id"], "previousSigningSecret"),
        d["revision"],
        d.get("retention_days"),
        expand_codes(tuple(own)) if (own := d.get("success_codes")) is not None else None,
        d.get("host") or f"lane {d['lane']}",  # written before hosts were
        d.get("gate"),
        limits_from_document(d),
        watch_from_document(d),
        d.get("channel"),
    )


def watch_from_document(d: Document) -> ResultWatch | None:
    """Which results of a job are marked for alerts."""
    if d.get("channel") is not None:
        return NOT_WATCHED
    own = d.get("watch")
    return None if own is None else ResultWatch(own["marks"], own["drift_over_ms"])


JOB_SCHEDULE_FIELDS = dict.fromkeys(
    (
        "state",
        "schedule_key",
        "schedule_version",
        "active_from",
        "start_at",
        "end_at",
        "lane",
        "spread_seconds",
        "catch_up",
        "catch_up_window_seconds",
        "unsettled",
        "retention_days",
        "host",
        "gate",
    ),
    1,
)


UNSETTLED_FIELDS = {**JOB_SCHEDULE_FIELDS, "past": 1}


def _past(job_id: str, d: Document) -> JobSchedule:
    anchor = instant(d.get("anchor")) or 0
    return JobSchedule(
        job_id,
        parse_schedule(d["schedule"], d["timezone"], anchor).key,
        d["schedule_version"],
        int(d["from"]),
        instant(d.get("start_at")),
        instant(d.get("end_at")),
        0,
        0,
        change_id=d.get("unsettled"),
    )


def job_schedule_from_document(d: Document) -> JobSchedule:
    """A job as the leader needs it, from a document with `OWING_FIELDS` or `UNSETTLED_FIELDS`."""
    periods = d.get("past") or ()
    return JobSchedule(
        d["_id"],
        d["schedule_key"],
        d["schedule_version"],
        int(d["active_from"]),
        instant(d.get("start_at")),
        instant(d.get("end_at")),
        int(d["lane"]),
        int(d["spread_seconds"]),
        d["catch_up"],
        int(d["catch_up_window_seconds"]),
        JobState(d["state"]),
        d.get("unsettled"),
        tuple((_past(d["_id"], p), int(p["to"])) for p in periods),
        d.get("retention_days"),
        d.get("host", ""),
        d.get("gate"),
    )
