"""Alert rules and channels as JSON documents."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from cluster.core.alerts import AlertRules
from cluster.core.documents import strict_json
from cluster.core.documents.base import Model
from cluster.core.documents.mail_domains import ANY_DOMAIN, is_allowed_address, is_mail_address
from cluster.core.documents.secret_fields import SigningSecret, invalid
from cluster.core.targets import MAX_URL_LENGTH, InvalidTarget, check_target

MAX_CHANNELS = 8
CHANNEL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


def check_channel(name: str) -> str:
    """Check the name of a channel. Raises a fault."""
    if not CHANNEL_NAME.match(name):
        raise invalid("must have 1 to 64 characters out of A-Z a-z 0-9 _ -")
    return name


def _unique(names: list[str]) -> list[str]:
    if len(set(names)) != len(names):
        raise invalid("must not contain the same entry twice")
    return names


def _address(text: str, info: ValidationInfo) -> str:
    if not is_mail_address(text):
        raise invalid("must be a mail address such as ops@example.com")
    domains = (info.context or {}).get("mail_domains", ANY_DOMAIN)
    if not is_allowed_address(text, domains):
        raise invalid(f"must be in one of these domains: {', '.join(domains)} (HORAE_MAIL_DOMAINS of the nodes)")
    return text


class AlertSpec(Model):
    """When channels are notified. One alert when an incident begins, one when it is over."""

    channels: Annotated[list[Annotated[str, AfterValidator(check_channel)]], AfterValidator(_unique)] = Field(
        max_length=MAX_CHANNELS,
        description="Names of channels (`PUT /channels/{name}`). Empty: no alerts, not even those of the default rules.",
        examples=[["ops"]],
    )
    on_dead: bool = Field(default=False, description="An execution used up its attempts or its time.")
    after_failures: int | None = Field(
        default=None, ge=1, le=100, description="This many executions in a row ended as failed or dead."
    )
    on_missed: bool = Field(default=False, description="Occurrences were missed and will not be sent.")
    drift_over_ms: int | None = Field(
        default=None, ge=1, le=86_400_000, description="A first attempt was sent more than this after its planned time."
    )
    no_run_for_seconds: int | None = Field(
        default=None,
        ge=5,
        le=31 * 86_400,
        description="No execution has succeeded for this long while the job is active.",
    )
    on_recovery: bool = Field(default=True, description="Notify also when the incident is over.")
    remind_after_seconds: int | None = Field(
        default=None, ge=60, le=31 * 86_400, description="Notify again at this interval while the incident lasts."
    )

    @model_validator(mode="after")
    def _is_complete(self) -> AlertSpec:
        rules = (self.on_dead, self.after_failures, self.on_missed, self.drift_over_ms, self.no_run_for_seconds)
        if self.channels and not any(rules):
            raise invalid("has no rule: set onDead, afterFailures, onMissed, driftOverMs or noRunForSeconds")
        if any(rules) and not self.channels:
            raise invalid("has rules but no channel: name at least one of your channels in channels")
        return self

    def to_json(self) -> str:
        """The text that is stored with the job."""
        return strict_json.dumps(self.model_dump(by_alias=True)).decode()

    def to_rules(self) -> AlertRules:
        """The rules as a value."""
        return AlertRules(
            tuple(self.channels),
            on_dead=self.on_dead,
            after_failures=self.after_failures,
            on_missed=self.on_missed,
            drift_over_ms=self.drift_over_ms,
            no_run_ms=None if self.no_run_for_seconds is None else self.no_run_for_seconds * 1000,
            on_recovery=self.on_recovery,
            remind_ms=None if self.remind_after_seconds is None else self.remind_after_seconds * 1000,
        )


def parse_alert_rules(text: str | None) -> AlertRules | None:
    """The rules in a stored text. None if there are none, or if the text is older than alert rules."""
    if text is None:
        return None
    try:
        return AlertSpec.model_validate(orjson.loads(text)).to_rules()
    except ValueError:
        return None


def _url(url: str, info: ValidationInfo) -> str:
    try:
        check_target(url, (info.context or {}).get("networks", ()))
    except InvalidTarget as exc:
        raise invalid(str(exc)) from exc
    return url


class ChannelSpec(Model):
    """The destination of alerts."""

    type: Literal["webhook", "slack", "email"] = Field(
        description="`webhook`: a JSON object; `slack`: a message for Slack or a compatible service; `email`."
    )
    url: Annotated[str, AfterValidator(_url)] | None = Field(
        default=None,
        max_length=MAX_URL_LENGTH,
        description="The URL of a webhook or of Slack. The one of Slack is a secret: it is shown as "
        '`{"secret": true}`. Send that back to keep the stored URL.',
        examples=["https://api.example.com/alerts"],
        json_schema_extra={
            "anyOf": [
                {"type": "string", "maxLength": MAX_URL_LENGTH},
                {
                    "type": "object",
                    "properties": {"secret": {"const": True}},
                    "required": ["secret"],
                    "additionalProperties": False,
                },
                {"type": "null"},
            ]
        },
    )
    to: Annotated[list[Annotated[str, AfterValidator(_address)]], AfterValidator(_unique)] | None = Field(
        default=None, min_length=1, max_length=20, description="Mail addresses.", examples=[["ops@example.com"]]
    )
    signing_secret: SigningSecret = Field(
        default=None,
        description='For a webhook. Never shown: a stored one reads as `{"secret": true}`; send that back, or omit it, to keep '
        "it. null removes it.",
    )

    @model_validator(mode="after")
    def _is_complete(self, info: ValidationInfo) -> ChannelSpec:
        context: dict[str, Any] = info.context or {}
        if self.type == "email":
            if self.to is None or self.url is not None:
                raise invalid("of type email must have to (the addresses) and no url")
            if not context.get("can_mail", True):
                raise invalid("cannot be used: this node has no mail server; set HORAE_SMTP_HOST and HORAE_SMTP_FROM")
        elif self.url is None or self.to is not None:
            raise invalid(f"of type {self.type} must have url and no to")
        if self.type != "webhook" and "signing_secret" in self.model_fields_set and self.signing_secret is not None:
            raise invalid("must not have a signingSecret: only requests to a webhook are signed")
        return self
