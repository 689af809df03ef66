"""What differs between two states of a job, for people to read: its definition, its state, the terms of its pause.

Secrets are never shown. One that was replaced is a difference between two placeholders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cluster.core.documents.differences import Difference, difference, differences, pointer
from cluster.core.documents.job_json import job_document
from cluster.core.documents.json_source import JsonText
from cluster.core.documents.secret_marks import SECRET_PLACEHOLDER
from cluster.core.instants import format_optional_instant
from cluster.core.lifecycle import JobState

if TYPE_CHECKING:
    from cluster.core.job.definition import Definition, StoredJob


def job_differences(before: StoredJob | None, after: StoredJob) -> list[Difference]:
    """The fields that differ. Of a job that was deleted only its state does."""
    if before is None or before.state is JobState.DELETED:
        return differences({}, _shown(after))
    if after.state is JobState.DELETED:
        return [difference("/state", before.state.value, after.state.value)]
    return differences(_shown(before), _shown(after)) + _replaced_secrets(before.definition, after.definition)


def _shown(job: StoredJob) -> dict[str, Any]:
    shown = job_document(job.definition)
    if isinstance(shown["body"], JsonText):  # as it is sent: two texts of one value differ
        shown["body"] = shown["body"].text.decode()
    return shown | {
        "state": job.state.value,
        "stateReason": job.state_reason,
        "pausedUntil": format_optional_instant(job.pause.until_ms),
        "pauseReason": job.pause.reason,
    }


def _replaced_secrets(before: Definition, after: Definition) -> list[Difference]:
    old, new = _secrets(before), _secrets(after)
    replaced = [path for path in old if path in new and old[path] != new[path]]
    return [difference(path, SECRET_PLACEHOLDER, SECRET_PLACEHOLDER) for path in replaced]


def _secrets(d: Definition) -> dict[str, str]:
    """By path."""
    found = {pointer("headers", name): value for name, value in d.secret_headers}
    if d.auth is not None:
        found[pointer("auth", "password" if d.auth.kind == "basic" else "token")] = d.auth.secret
    for name, value in (
        ("signingSecret", d.signing_secret),
        ("previousSigningSecret", d.previous_signing_secret),
    ):
        if value is not None:
            found[pointer(name)] = value
    for name, callback in d.callbacks.items():
        found |= {pointer(name, "headers", header): value for header, value in callback.secret_headers}
        if callback.signing_secret is not None:
            found[pointer(name, "signingSecret")] = callback.signing_secret
    return found
