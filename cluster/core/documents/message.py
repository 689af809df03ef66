"""The JSON document of a message: what a job's document says of its request, and when it is due."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, ValidationInfo

from cluster.core.documents.base import Model, empty
from cluster.core.documents.follow_ups import CallbackSpec, wanted_callback
from cluster.core.documents.job import Instant
from cluster.core.documents.job_json import faults_of
from cluster.core.documents.json_source import canonical
from cluster.core.documents.request_fields import (
    AuthField,
    BodyField,
    CodesField,
    QueueField,
    TagsField,
    TargetField,
    encode_body,
)
from cluster.core.documents.retry import RetrySpec
from cluster.core.documents.secret_fields import MAX_HEADERS, Headers, SigningSecret, invalid
from cluster.core.errors import Fault, InvalidInput
from cluster.core.ids import lane_of
from cluster.core.job.definition import Definition
from cluster.core.job.message import DEDUP_RETENTION_DAYS, MOST_AHEAD_MS, NewMessage
from cluster.core.job.wanted import WantedJob
from cluster.core.targets import MAX_URL_LENGTH, parse_target

PAST_GRACE_MS = 1000
"""An `at` that has passed by less is sent at once: the message was on its way, or the caller's clock is a little behind."""
AHEAD_GRACE_MS = 60_000
"""An `at` may be a year ahead by a clock that is a minute ahead too."""
_DELAY = re.compile(r"(?:\d{1,9}[smhd])+\Z", re.ASCII)
_PART = re.compile(r"(\d+)([smhd])")
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
OVERHEAD_BYTES = 1024
"""About what a message takes in memory beside its body."""


def _text(value: Any) -> Any:
    if not isinstance(value, str):
        raise invalid('must be a string, such as "30s"')
    return value


def _delay(text: str) -> str:
    units = [unit for _, unit in _PART.findall(text)]
    if not _DELAY.match(text) or len(set(units)) < len(units):
        raise invalid("must be a number of s, m, h or d, or several, such as 30s or 1h30m")
    return text


def delay_ms(text: str) -> int:
    """The length of a checked delay, ms."""
    return sum(int(n) * _UNIT_MS[unit] for n, unit in _PART.findall(text))


def _only_one(at: int | None, info: ValidationInfo) -> int | None:
    if at is not None and info.data.get("delay") is not None:
        raise invalid("must not be combined with delay: use one of them")
    return at


_DEFAULT_RETRY = RetrySpec()
_DEFAULT_POLICY = _DEFAULT_RETRY.to_retry_policy()


class MessageSpec(Model):
    """A message: one request, sent once, now or later."""

    api: TargetField = Field(
        max_length=MAX_URL_LENGTH,
        description="The URL that receives the POST.",
        examples=["https://api.example.com/webhook"],
    )
    delay: Annotated[str, Field(max_length=40), BeforeValidator(_text), AfterValidator(_delay)] | None = Field(
        default=None, description="How long from now it is due.", examples=["30s", "1h30m"]
    )
    at: Annotated[Instant | None, AfterValidator(_only_one)] = Field(
        default=None, description="When it is due, at most 365 days ahead. Without `at` and `delay`: at once."
    )
    expires_at: Instant | None = Field(default=None, description="It is not sent, and not retried, after this.")
    dedup_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="For 24 hours, a message with the same one is the same message: it is sent once.",
    )
    tags: TagsField = empty(list, max_length=32)
    templates: bool = Field(default=True, description="As of a job. `{{jobId}}` is the id of the message.")
    headers: Headers = empty(
        dict,
        max_length=MAX_HEADERS,
        description='A value is a string, or `{"secret": "..."}`, which is never shown.',
    )
    auth: AuthField = None
    body: BodyField = Field(
        default=None,
        description="Any JSON value, sent as JSON with the bytes that were given, or a string, sent as it is. null: no "
        "body.",
    )
    timeout_seconds: float = Field(default=30.0, ge=0.1, le=900, allow_inf_nan=False)
    retry: RetrySpec = _DEFAULT_RETRY
    success_codes: CodesField | None = Field(default=None, min_length=1, max_length=64)
    queue: QueueField | None = Field(default=None, max_length=64, description="The queue whose limits it shares.")
    retention_days: float | None = Field(
        default=None,
        ge=0.1,
        le=3650,
        allow_inf_nan=False,
        description="How long it is kept after it ended. null: as long as the operator's setting says.",
    )
    on_success: CallbackSpec | None = Field(default=None, description="Told when it has succeeded.")
    on_failure: CallbackSpec | None = Field(default=None, description="Told when it has failed for good.")
    signing_secret: SigningSecret = Field(default=None, description="Write-only.")

    def definition(self) -> Definition:
        """What it has in common with a job. Raises `InvalidInput` for a secret that is to be kept: none is stored."""
        body, kind = encode_body(self.body)
        host = parse_target(self.api).host_port
        definition = Definition(
            schedule="",
            url=self.api,
            lane=lane_of(host),
            host=host,
            tags=tuple(self.tags),
            headers=tuple((name, value) for name, value in self.headers.items() if isinstance(value, str)),
            body=body,
            body_kind=kind,
            templates=self.templates,
            timeout_seconds=self.timeout_seconds,
            retry=_DEFAULT_POLICY if self.retry is _DEFAULT_RETRY else self.retry.to_retry_policy(),
            success_codes=None if self.success_codes is None else tuple(self.success_codes),
            retention_days=self.retention_days,
            queue=self.queue,
        )
        secret_headers = tuple((name, value) for name, value in self.headers.items() if not isinstance(value, str))
        parts = (self.auth, self.signing_secret, self.on_success, self.on_failure)
        if not secret_headers and all(part is None for part in parts):
            return definition
        wanted = WantedJob(
            definition=definition,
            secret_headers=secret_headers,
            auth=None if self.auth is None else self.auth.to_wanted(),
            signing_secret=self.signing_secret,
            on_success=wanted_callback(self.on_success, complete=True),
            on_failure=wanted_callback(self.on_failure, complete=True),
        )
        return wanted.resolve(None)


_OF_JOBS = {
    "schedule": "is unknown; a message is due once: use delay or at",
    "after": "is unknown; only a job may run after another one",
    "messageId": "is set by Horae; remove it",
    "executionId": "is set by Horae; remove it",
}


def read_message(
    value: Any, context: dict[str, Any], now_ms: int, retention_days: float, *, repeatable: bool = False
) -> NewMessage:
    """The message in a JSON value. Raises `InvalidInput` with all faults. `retention_days`: the operator's.

    A request that is `repeatable`, or has a `dedupId`, may be the repetition of one that was accepted. So times that have
    passed are no fault yet, but `passed`: they count only if there was no such request.
    """
    if not isinstance(value, dict):
        raise InvalidInput([Fault("", "must be a JSON object")])
    try:
        spec = MessageSpec.model_validate(value, context=context)
    except ValidationError as exc:
        raise InvalidInput([_of_message(f) for f in faults_of(exc)]) from exc
    due_ms = now_ms
    if spec.at is not None:
        due_ms = spec.at
    elif spec.delay is not None:
        due_ms = now_ms + delay_ms(spec.delay)
    passed = _check_times(spec, due_ms, now_ms)
    if passed and spec.dedup_id is None and not repeatable:
        raise InvalidInput(passed)
    definition = spec.definition()
    if spec.dedup_id is not None and (spec.retention_days or retention_days) < DEDUP_RETENTION_DAYS:
        definition = replace(definition, retention_days=DEDUP_RETENTION_DAYS)
    return NewMessage(
        definition=definition,
        due_ms=due_ms,
        created_ms=now_ms,
        expires_ms=spec.expires_at,
        dedup_id=spec.dedup_id,
        digest="" if spec.dedup_id is None else _digest(value),
        size=OVERHEAD_BYTES + len(definition.body),
        passed=tuple(passed),
    )


def _check_times(spec: MessageSpec, due_ms: int, now_ms: int) -> list[Fault]:
    """What has passed. Raises `InvalidInput` for what no passing of time explains."""
    always: list[Fault] = []
    passed: list[Fault] = []
    most_ms = now_ms + MOST_AHEAD_MS
    if due_ms > most_ms + (0 if spec.at is None else AHEAD_GRACE_MS):
        always.append(Fault("at" if spec.at is not None else "delay", "must be at most 365 days ahead"))
    if spec.at is not None and due_ms < now_ms - PAST_GRACE_MS:
        passed.append(Fault("at", "has passed; leave it out to send the message at once"))
    if spec.expires_at is not None and spec.expires_at <= max(due_ms, now_ms):
        never = spec.at is not None and spec.expires_at <= spec.at
        (always if never else passed).append(Fault("expiresAt", "must be later than the message is due"))
    if always:
        raise InvalidInput([*passed, *always])
    return passed


def _of_message(fault: Fault) -> Fault:
    """Some fields of jobs have another word here."""
    return Fault(fault.path, _OF_JOBS[fault.path]) if fault.path in _OF_JOBS else fault


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()
