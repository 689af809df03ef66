"""Messages: the request of one as it is stored beside its execution, and as it is sent.

Fields that have their defaults are absent: a message is stored and read once, and most of it is defaults.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bson.binary import Binary
from bson.datetime_ms import DatetimeMS

from cluster.core.alerts import NOT_WATCHED
from cluster.core.execution.follow_up import kinds_told
from cluster.core.execution.model import MESSAGE_VERSION, Job, RetryPolicy
from cluster.core.execution.verdict import expand_codes
from cluster.core.job.definition import Definition
from cluster.core.lifecycle import JobState, State
from cluster.store.mongo import job_secrets
from cluster.store.mongo.callback_fields import callback_fields
from cluster.store.mongo.codec import (
    INLINE_BODY_BYTES,
    LARGE_BODY,
    instant,
    message_fields,
    retry_from_document,
    target_from_document,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cluster.core.execution.model import Execution
    from cluster.core.job.message import NewMessage
    from cluster.store.mongo.client import Document
    from cluster.store.mongo.encryption import Keyring

_DEFAULT_RETRY = RetryPolicy()
_DEFAULT_TIMEOUT = Definition(schedule="", url="", lane=0).timeout_seconds


def message_to_document(m: NewMessage, message_id: str, keyring: Keyring) -> Document:
    """The request of a message as it is stored, with a large body under `LARGE_BODY`. Raises `InvalidInput` without a key."""
    d = m.definition
    document: Document = {"url": d.url, "body_kind": d.body_kind, "created_at": DatetimeMS(m.created_ms)}
    if len(d.body) > INLINE_BODY_BYTES:
        document |= {"body_size": len(d.body), LARGE_BODY: Binary(d.body)}
    elif d.body:
        document["body"] = Binary(d.body)
    optional: Document = {
        "headers": [list(pair) for pair in d.headers],
        "tags": list(d.tags),
        "queue": d.queue,
        "success_codes": None if d.success_codes is None else list(d.success_codes),
        "retention_days": d.retention_days,
        "expires_at": None if m.expires_ms is None else DatetimeMS(m.expires_ms),
    }
    if d.secret_headers or d.auth is not None or d.signing_secret is not None:
        optional |= job_secrets.encrypted_fields(d, message_id, keyring)
    if d.on_success is not None or d.on_failure is not None:
        optional |= callback_fields(d, message_id, keyring)
    document |= {name: value for name, value in optional.items() if value not in (None, [])}
    if not d.templates:
        document["templates"] = False
    if d.timeout_seconds != _DEFAULT_TIMEOUT:
        document["timeout_seconds"] = d.timeout_seconds
    if d.retry != _DEFAULT_RETRY:
        document["retry"] = {name: getattr(d.retry, name) for name in RetryPolicy.__slots__}
    return document


def message_as_job(e: Execution, message: Mapping[str, Any], keyring: Keyring, body: bytes | None = None) -> Job:
    """A message as dispatch needs it. `body`: its large body, if it was read. Raises `UndecryptableSecret`."""
    codes, retry = message.get("success_codes"), message.get("retry")
    bound = message.get("bound_to", e.job_id)
    d: Document = {
        "_id": bound,
        "headers": (),
        "timeout_seconds": _DEFAULT_TIMEOUT,
        **message,
        "body": message.get("body", b"") if body is None else body,
    }
    if body is None and "body_size" in message:
        d["body"] = None
    tells = kinds_told(message)
    target = target_from_document(d, keyring)
    return Job(
        id=e.job_id,
        state=JobState.ACTIVE,
        schedule_version=MESSAGE_VERSION,
        active_from_ms=0,
        lane=e.lane,
        target=replace(target, keeps_answer=True) if tells else target,
        retry=_DEFAULT_RETRY if retry is None else retry_from_document(retry),
        signing_secret=keyring.decrypt_optional(message.get("signing_secret"), bound, "signingSecret"),
        retention_days=message.get("retention_days"),
        success_codes=None if codes is None else expand_codes(tuple(codes)),
        host=e.host,
        limit_key=e.limit_key,
        watch=NOT_WATCHED,
        channel=message.get("channel"),
        tags=tuple(message.get("tags", ())),
        expires_ms=instant(message.get("expires_at")),
        tells=tells,
        followed=bool(tells),
    )


def request_in_history(message: Mapping[str, Any] | None, state: State) -> Document:
    """What history keeps of a message: all of it while a replay may send it again, then how its answers are judged."""
    if message is None or state is not State.SUCCEEDED:
        return message_fields(message)
    codes = message.get("success_codes")
    return {} if codes is None else {"success_codes": codes}
