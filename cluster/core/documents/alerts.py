"""Alert rules and channels as users write them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from cluster.core.alerts import AlertRules
from cluster.core.documents import strict_json
from cluster.core.documents.base import Model
from cluster.core.documents.secret_fields import SigningSecret, invalid
from cluster.core.targets import MAX_URL_LENGTH, InvalidTarget, check_target

MAX_CHANNELS = 8
CHANNEL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*\Z")


def check_channel(name: str) -> str:
    """A channel's name that may be used. Raises a fault."""
    if not CHANNEL_NAME.match(name):
        raise invalid("must be 1 to 64 of the characters A-Z a-z 0-9 _ -")
    return name


def _different(names: list[str]) -> list[str]:
    if len(set(names)) != len(names):
        raise invalid("must not name the same one twice")
    return names


def _address(text: str) -> str:
    if not _ADDRESS.match(text):
        raise invalid("must be a mail address such as ops@example.com")
    return text


class AlertSpec(Model):
    """When somebody is told, and how. One alert when something begins, one when it ends."""

    channels: Annotated[list[Annotated[str, AfterValidator(check_channel)]], AfterValidator(_different)] = Field(
        max_length=MAX_CHANNELS,
        description="Names of channels (`PUT /channels/{name}`). Empty: no alerts, whatever the default says.",
        examples=[["ops"]],
    )
    on_dead: bool = Field(default=False, description="An execution used up its attempts or its time.")
    after_failures: int | None = Field(
        default=None, ge=1, le=100, description="So many executions in a row ended as failed or dead."
    )
    on_missed: bool = Field(default=False, description="Occurrences were missed and will not be sent.")
    drift_over_ms: int | None = Field(
        default=None, ge=1, le=86_400_000, description="A first attempt left so much later than planned."
    )
    no_run_for_seconds: int | None = Field(
        default=None,
        ge=5,
        le=31 * 86_400,
        description="No execution has succeeded for so long while the job is active.",
    )
    on_recovery: bool = Field(default=True, description="Tell also when it is over.")
    remind_after_seconds: int | None = Field(
        default=None, ge=60, le=31 * 86_400, description="Tell again every so often while it lasts."
    )

    @model_validator(mode="after")
    def _whole(self) -> AlertSpec:
        rules = (self.on_dead, self.after_failures, self.on_missed, self.drift_over_ms, self.no_run_for_seconds)
        if self.channels and not any(rules):
            raise invalid("has no rule: set onDead, afterFailures, onMissed, driftOverMs or noRunForSeconds")
        if any(rules) and not self.channels:
            raise invalid("has rules and nobody to tell: name at least one of your channels in channels")
        return self

    def to_json(self) -> str:
        """As it is stored with the job."""
        return strict_json.dumps(self.model_dump(by_alias=True)).decode()

    def to_rules(self) -> AlertRules:
        """For the engine."""
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
    """The rules in a stored text; None for none, and for what was kept before there were rules."""
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
    """Where alerts go."""

    type: Literal["webhook", "slack", "email"] = Field(
        description="`webhook`: a JSON object; `slack`: a message for Slack and what takes the same; `email`."
    )
    url: Annotated[str, AfterValidator(_url)] | None = Field(
        default=None,
        max_length=MAX_URL_LENGTH,
        description='Of a webhook or of Slack. That of Slack is a secret: it reads as `{"secret": true}`, and whoever '
        "sends that back keeps what is stored.",
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
    to: Annotated[list[Annotated[str, AfterValidator(_address)]], AfterValidator(_different)] | None = Field(
        default=None, min_length=1, max_length=20, description="Mail addresses.", examples=[["ops@example.com"]]
    )
    signing_secret: SigningSecret = Field(
        default=None, description="Of a webhook, write-only. Left out: an earlier one is kept. null: none."
    )

    @model_validator(mode="after")
    def _whole(self, info: ValidationInfo) -> ChannelSpec:
        context: dict[str, Any] = info.context or {}
        if self.type == "email":
            if self.to is None or self.url is not None:
                raise invalid("must have to, the addresses, and no url")
            if not context.get("mail", True):
                raise invalid("cannot be used: this node has no mail server, set HORAE_SMTP_HOST and HORAE_SMTP_FROM")
        elif self.url is None or self.to is not None:
            raise invalid("must have url, and no to")
        if self.type != "webhook" and "signing_secret" in self.model_fields_set and self.signing_secret is not None:
            raise invalid("must not have a signingSecret: only a webhook is signed")
        return self
