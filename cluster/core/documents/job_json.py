"""Jobs from JSON, with all faults of the document, and jobs to JSON."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from cluster.core import instants
from cluster.core.documents import json_source, strict_json
from cluster.core.documents.alerts import MAX_CHANNELS
from cluster.core.documents.base import to_camel
from cluster.core.documents.follow_ups import shown_after, shown_callbacks
from cluster.core.documents.job import WINDOW_LIMIT, JobSpec
from cluster.core.documents.json_source import JsonText
from cluster.core.documents.mail_domains import ANY_DOMAIN
from cluster.core.documents.secret_marks import SECRET_PLACEHOLDER
from cluster.core.documents.unknown_fields import unknown_field
from cluster.core.errors import Fault, InvalidInput

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from cluster.core.job.definition import Auth, Definition
    from cluster.core.job.wanted import WantedJob
    from cluster.core.targets import IPNetwork

MAX_FAULTS = 100
MAX_SUGGESTIONS = 10
"""The faults that may name a similar field. To look for one costs more than all the rest of a fault."""
DAY_SECONDS = 86_400
_TYPES = {
    "string_type": "must be a string",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be an array",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "missing": "is required",
    "string_pattern_mismatch": "contains characters that are not allowed here",
    "finite_number": "must be a finite number",
}
_LITERALS = {"True": "true", "False": "false"}
_LIMITS = {
    "string_too_long": ("max_length", "must have at most {} characters"),
    "string_too_short": ("min_length", "must have at least {} character(s)"),
    "too_short": ("min_length", "must have at least {} entry"),
    "too_long": ("max_length", "must have at most {} entries"),
    "greater_than_equal": ("ge", "must be at least {}"),
    "greater_than": ("gt", "must be more than {}"),
    "less_than_equal": ("le", "must be at most {}"),
}


@dataclass(frozen=True)
class DocumentLimits:
    """The limits that the operator's settings put on documents. The retention bounds the catch-up window."""

    networks: tuple[IPNetwork, ...] = ()
    retention_days: float = 7.0
    can_encrypt: bool = True
    """Whether this node has a key to encrypt secrets with."""
    can_mail: bool = False
    """Whether this node has a mail server for alerts."""
    mail_domains: tuple[str, ...] = ANY_DOMAIN
    """The domains that alerts may be mailed to."""

    @property
    def context(self) -> dict[str, Any]:
        """The context of the models' validators."""
        window = max(3600, int(self.retention_days * DAY_SECONDS / 2))
        return {
            "networks": self.networks,
            "longest_window": min(WINDOW_LIMIT, window),
            "can_encrypt": self.can_encrypt,
            "can_mail": self.can_mail,
            "mail_domains": self.mail_domains,
        }


def read_job(value: Any, context: dict[str, Any]) -> WantedJob:
    """The job in a JSON value. Raises `InvalidInput` with all faults."""
    return _spec(value, context).to_wanted()


def apply_patch(definition: Definition, patch: dict[str, Any], context: dict[str, Any]) -> WantedJob:
    """The job after a merge patch of a stored definition. Raises `InvalidInput` with all faults."""
    document = merge_patch(job_document(definition), {n: v for n, v in patch.items() if n != "body"})
    if "body" in patch:
        document["body"] = _patched_body(document["body"], patch["body"])
    wanted = _spec(document, context).to_wanted(complete=True)
    keeps = replace(wanted.pause, keeps_until="pausedUntil" not in patch, keeps_reason="pauseReason" not in patch)
    return replace(wanted, pause=keeps)


def _patched_body(body: Any, patch: Any) -> Any:
    """The body after a merge patch of it. What the patch does not touch keeps its bytes."""
    if patch is None or isinstance(patch, str):
        return patch
    text = patch.text if isinstance(patch, JsonText) else strict_json.dumps(patch)
    stored = body.text.decode() if isinstance(body, JsonText) else None
    return JsonText(json_source.merge(stored, text.decode()).encode())


def channels_in_patch(patch: dict[str, Any]) -> list[str]:
    """The channels that the alert rules of a merge patch name; none if they are not a list of names."""
    rules = patch.get("alerts")
    named = rules.get("channels") if isinstance(rules, dict) else None
    if not isinstance(named, list) or len(named) > MAX_CHANNELS or not all(isinstance(name, str) for name in named):
        return []
    return named


def callback_channels_in_patch(patch: dict[str, Any]) -> dict[str, str]:
    """The channels that the callbacks of a merge patch name, by the path of their fields in a request with `patch`."""
    named: dict[str, str] = {}
    for field in ("onSuccess", "onFailure"):
        callback = patch.get(field)
        channel = callback.get("channel") if isinstance(callback, dict) else None
        if isinstance(channel, str):
            named[f"patch.{field}.channel"] = channel
    return named


def _spec(value: Any, context: dict[str, Any]) -> JobSpec:
    try:
        return JobSpec.model_validate(value, context=context)
    except ValidationError as exc:
        raise InvalidInput(faults_of(exc)) from exc


def faults_of(exc: ValidationError) -> list[Fault]:
    """The faults that pydantic found, as paths and sentences."""
    found = exc.errors(include_url=False, include_input=False)[:MAX_FAULTS]
    faults, unknown = [], 0
    for e in found:
        faults.append(_fault(e, exc.title, suggest=unknown < MAX_SUGGESTIONS))
        unknown += e["type"] == "extra_forbidden"
    return faults


def _fault(e: ErrorDetails, model: str, *, suggest: bool) -> Fault:
    loc = [str(part)[:128] for part in e["loc"] if part != "[key]"]
    if (
        e["type"] == "horae" and loc and loc[-1] == "max_delay_seconds"
    ):  # a default that does not fit is named from inside
        loc[-1] = to_camel(loc[-1])
    return Fault(".".join(loc), _message(e, loc, model, suggest=suggest))


def _message(e: ErrorDetails, loc: list[str], model: str, *, suggest: bool) -> str:
    kind, context = e["type"], e.get("ctx", {})
    if kind in _TYPES:
        return _TYPES[kind]
    if kind in _LIMITS:
        name, sentence = _LIMITS[kind]
        return sentence.format(context[name])
    if kind == "literal_error":
        return f"must be {_LITERALS.get(context['expected'], context['expected'].replace(chr(39), chr(34)))}"
    if kind == "extra_forbidden":
        return unknown_field(loc, model, suggest=suggest)
    return e["msg"]


def job_document(d: Definition) -> dict[str, Any]:
    """The JSON document of a definition, with all defaults. Secrets are shown as placeholders.

    Signing secrets are in it only where one is stored: so whoever sends the document back asks for what was there.
    """
    return {
        "name": d.name,
        "description": d.description,
        "tags": list(d.tags),
        "schedule": d.schedule or None,
        "after": shown_after(d.after),
        "timezone": d.timezone,
        "api": d.url,
        "type": "ATLEAST_ONCE",
        "templates": d.templates,
        "headers": {**dict(d.headers), **{name: SECRET_PLACEHOLDER for name, _ in d.secret_headers}},
        "auth": _auth(d.auth),
        "body": decode_body(d.body, d.body_kind),
        "timeoutSeconds": d.timeout_seconds,
        "retry": {
            "maxAttempts": d.retry.max_attempts,
            "initialDelaySeconds": d.retry.initial_delay_seconds,
            "multiplier": d.retry.multiplier,
            "maxDelaySeconds": d.retry.max_delay_seconds,
            "jitter": d.retry.jitter,
            "maxAgeSeconds": d.retry.max_age_seconds,
        },
        "successCodes": None if d.success_codes is None else list(d.success_codes),
        "catchUp": d.catch_up,
        "catchUpWindowSeconds": d.catch_up_window_seconds,
        "overlap": d.overlap,
        "spreadSeconds": d.spread_seconds,
        "calendar": None if d.calendar is None else {"name": d.calendar.name, "onExcluded": d.calendar.on_excluded},
        "startAt": instants.format_optional_instant(d.start_ms),
        "endAt": instants.format_optional_instant(d.end_ms),
        "retentionDays": d.retention_days,
        "completedRetentionDays": d.completed_retention_days,
        "deleteAfterRun": d.delete_after_run,
        "maxPerSecond": d.limits.per_second,
        "maxConcurrent": d.limits.concurrent,
        "queue": d.queue,
        **shown_callbacks(d),
        "alerts": None if d.alerts is None else orjson.loads(d.alerts),
        **_signing(signingSecret=d.signing_secret, previousSigningSecret=d.previous_signing_secret),
    }


def _signing(**secrets: str | None) -> dict[str, Any]:
    return {name: SECRET_PLACEHOLDER for name, value in secrets.items() if value is not None}


def _auth(auth: Auth | None) -> dict[str, Any] | None:
    if auth is None:
        return None
    if auth.kind == "basic":
        return {"type": "basic", "username": auth.user, "password": SECRET_PLACEHOLDER}
    return {"type": "bearer", "token": SECRET_PLACEHOLDER}


def decode_body(body: bytes, kind: str) -> Any:
    """The body as the user wrote it. JSON is a `JsonText`."""
    if kind == "none":
        return None
    return body.decode() if kind == "text" else JsonText(body)


def merge_patch(target: Any, patch: Any) -> Any:
    """The target after a JSON merge patch (RFC 7396): null removes, objects merge, any other value replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result
