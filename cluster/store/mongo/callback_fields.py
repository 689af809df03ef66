"""Callbacks as they are stored in a job or a message, their secrets encrypted; and the answers that they tell.

A secret is bound to the owner of its callback and to the kind of it. So the execution that sends the callback takes it along
as it is, and names what it is bound to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bson.binary import Binary
from bson.datetime_ms import DatetimeMS

from cluster.core.execution.model import Answer
from cluster.core.job.definition import After, Callback
from cluster.core.lifecycle import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cluster.core.execution.model import Ending
    from cluster.core.job.definition import Definition, StoredJob
    from cluster.store.mongo.client import Document
    from cluster.store.mongo.encryption import Keyring

CALLBACK_FIELDS = {"on_success": "onSuccess", "on_failure": "onFailure"}
"""By the name under which it is stored, the name of the field."""
SIGNING = "signingSecret"
TOLD_UNTIL = "told_until"
"""Of a deleted job with callbacks: when they go. Until then they are told how what was in flight has ended."""
TOLD_MS = 2 * 3_600_000
"""Longer than a request and its record may take: 15 minutes, and an hour in which MongoDB is away."""


def bound_to(owner: str, name: str) -> str:
    """What the secrets of a callback are bound to. No job has such an id. `name`: under which it is stored."""
    return f"{owner}#{CALLBACK_FIELDS[name]}"


def callback_fields(d: Definition, owner: str, keyring: Keyring) -> Document:
    """The stored form of both callbacks; None for one that there is not. Raises `InvalidInput` for a secret without a key."""
    return {
        "on_success": _stored(d.on_success, bound_to(owner, "on_success"), keyring),
        "on_failure": _stored(d.on_failure, bound_to(owner, "on_failure"), keyring),
    }


def follow_up_fields(job: StoredJob, keyring: Keyring) -> Document:
    """The same of a job, and what a chained one runs after; of a deleted one also when its callbacks go."""
    d = job.definition
    keeps = job.state is JobState.DELETED and d.callbacks
    return {
        **callback_fields(d, job.id, keyring),
        TOLD_UNTIL: DatetimeMS(job.updated_ms + TOLD_MS) if keeps else None,
        "after": None,
        **after_field(d),
    }


def after_field(d: Definition) -> Document:
    """What a chained job runs after; nothing for all others."""
    return {} if d.after is None else {"after": {"job": d.after.job_id, "on": d.after.on}}


def definition_follow_ups(d: Mapping[str, Any], keyring: Keyring) -> dict[str, Any]:
    """The callbacks of a `Definition`, and its `after`. Secrets that no key decrypts stay locked."""
    after = d.get("after")
    fields: dict[str, Any] = {
        name: _callback(d.get(name), bound_to(d["_id"], name), keyring) for name in CALLBACK_FIELDS
    }
    return fields | {"after": None if after is None else After(after["job"], after["on"])}


def _stored(c: Callback | None, bound: str, keyring: Keyring) -> Document | None:
    if c is None:
        return None
    if c.channel is not None:
        return {"channel": c.channel}
    document: Document = {"url": c.url}
    if c.headers:
        document["headers"] = [list(pair) for pair in c.headers]
    if c.secret_headers:
        document["secret_headers"] = [
            [name, keyring.encrypt(value, bound, f"headers.{name}")] for name, value in c.secret_headers
        ]
    if c.signing_secret is not None:
        document["signing_secret"] = keyring.encrypt(c.signing_secret, bound, SIGNING)
    return document


def _callback(stored: Mapping[str, Any] | None, bound: str, keyring: Keyring) -> Callback | None:
    if stored is None:
        return None
    signing = stored.get("signing_secret")
    return Callback(
        url=stored.get("url", ""),
        channel=stored.get("channel"),
        headers=tuple((name, value) for name, value in stored.get("headers", ())),
        secret_headers=tuple(
            (name, keyring.decrypt_or_lock(value, bound, f"headers.{name}"))
            for name, value in stored.get("secret_headers", ())
        ),
        signing_secret=None if signing is None else keyring.decrypt_or_lock(signing, bound, SIGNING),
    )


def _secrets(d: Mapping[str, Any], owner: str) -> Iterator[tuple[str, str, str]]:
    """Each stored secret of the callbacks: what it is bound to, its field, and its stored form."""
    for name in CALLBACK_FIELDS:
        stored, bound = d.get(name) or {}, bound_to(owner, name)
        yield from ((bound, f"headers.{header}", value) for header, value in stored.get("secret_headers", ()))
        if stored.get("signing_secret") is not None:
            yield bound, SIGNING, stored["signing_secret"]


def needs_rotation(d: Mapping[str, Any], keyring: Keyring) -> bool:
    """Whether a secret of a callback is not encrypted with the first key."""
    return any(keyring.needs_rotation(stored) for _, _, stored in _secrets(d, ""))


def require_decryptable(d: Mapping[str, Any], owner: str, keyring: Keyring) -> None:
    """Raises `UndecryptableSecret` unless every secret of the callbacks can be decrypted."""
    for bound, field, stored in _secrets(d, owner):
        keyring.decrypt(stored, bound, field)


def reencrypted(d: Mapping[str, Any], owner: str, keyring: Keyring) -> Document:
    """The callbacks that have secrets, with these under the first key."""
    fresh: Document = {}
    for name in CALLBACK_FIELDS:
        stored, bound = d.get(name), bound_to(owner, name)
        callback = _callback(stored, bound, keyring)
        if callback is not None and callback.has_secrets:
            fresh[name] = _stored(callback, bound, keyring)
    return fresh


def told_fields(e: Ending) -> Document:
    """What history keeps for a callback that is owed: that it is, and what it tells."""
    if not e.tells:
        return {}
    if e.answer is None:
        return {"callback": True}
    a = e.answer
    return {
        "callback": True,
        "answer": {"headers": [list(h) for h in a.headers], "body": Binary(a.body), "size": a.size},
    }


def answer_from_document(d: Mapping[str, Any] | None) -> Answer | None:
    """The answer that history has kept; None if it has none."""
    if d is None:
        return None
    return Answer(tuple((name, value) for name, value in d["headers"]), bytes(d["body"]), d["size"])
