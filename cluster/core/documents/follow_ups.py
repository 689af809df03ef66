"""What follows an execution, in the document of a job or message: callbacks, and the job that a chained job runs after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from cluster.core.documents.alerts import check_channel
from cluster.core.documents.base import Model, empty
from cluster.core.documents.request_fields import TargetField
from cluster.core.documents.secret_fields import MAX_HEADERS, Headers, SigningSecret, invalid
from cluster.core.documents.secret_marks import SECRET_PLACEHOLDER
from cluster.core.ids import JOB_ID
from cluster.core.job.definition import After, Callback
from cluster.core.job.wanted import KEEP_IF_STORED, WantedCallback
from cluster.core.targets import MAX_URL_LENGTH

if TYPE_CHECKING:
    from pydantic import ValidationInfo

    from cluster.core.job.definition import Definition

CALLBACKS = {"onSuccess": "on_success", "onFailure": "on_failure"}
"""The fields of both callbacks, and their names here."""


class CallbackSpec(Model):
    """Who is told how an execution ended: a URL or a channel. It is sent at least once, and has no callback itself."""

    api: TargetField | None = Field(
        default=None,
        max_length=MAX_URL_LENGTH,
        description="The URL that receives a POST with the result as JSON.",
        examples=["https://api.example.com/results"],
    )
    channel: Annotated[str, AfterValidator(check_channel)] | None = Field(
        default=None, description="Instead of a URL: a channel (`PUT /channels/{name}`)."
    )
    headers: Headers = empty(
        dict,
        max_length=MAX_HEADERS,
        description='As of a job: a value is a string, or `{"secret": "..."}`, which is never shown.',
    )
    signing_secret: SigningSecret = Field(default=None, description="Never shown, as of a job.")

    @model_validator(mode="after")
    def _is_complete(self) -> CallbackSpec:
        if (self.api is None) == (self.channel is None):
            raise invalid("must have either api or channel")
        if self.channel is not None and (self.headers or self.signing_secret is not None):
            raise invalid("to a channel must have no headers and no signingSecret: the channel has its own")
        return self

    def to_wanted(self, *, complete: bool = False) -> WantedCallback:
        """The value. `complete`: an omitted signing secret is removed; else the stored one is kept."""
        keeps = not complete and "signing_secret" not in self.model_fields_set and self.channel is None
        return WantedCallback(
            callback=Callback(
                url=self.api or "",
                channel=self.channel,
                headers=tuple((name, value) for name, value in self.headers.items() if isinstance(value, str)),
            ),
            secret_headers=tuple((name, value) for name, value in self.headers.items() if not isinstance(value, str)),
            signing_secret=KEEP_IF_STORED if keeps else self.signing_secret,
        )


def wanted_callback(spec: CallbackSpec | None, *, complete: bool) -> WantedCallback | None:
    """The value; None if there is none."""
    return None if spec is None else spec.to_wanted(complete=complete)


def _job_id(job_id: str) -> str:
    if not JOB_ID.match(job_id):
        raise invalid("must have 1 to 64 characters out of A-Z a-z 0-9 _ -")
    return job_id


class AfterSpec(Model):
    """The job that a chained job runs after, instead of a schedule."""

    job_id: Annotated[str, AfterValidator(_job_id)] = Field(
        description="It runs once after each execution of this job.", examples=["import"]
    )
    on: Literal["succeeded", "failed", "any"] = Field(
        default="succeeded",
        description="After which results. `failed` includes `dead`; nothing runs after a cancelled, skipped or missed one.",
    )

    def to_after(self) -> After:
        """The value."""
        return After(self.job_id, self.on)


def not_chained(value: Any, info: ValidationInfo) -> Any:
    """Raises a fault for a field that only a job with a schedule may have."""
    if value and info.data.get("after") is not None:
        raise invalid("is for jobs with a schedule: a job with `after` runs when the other one has ended")
    return value


def shown_callbacks(d: Definition) -> dict[str, Any]:
    """The callbacks of a definition as JSON. Secrets are shown as placeholders, a signing secret only where one is stored."""
    return {name: _shown(getattr(d, field)) for name, field in CALLBACKS.items()}


def _shown(c: Callback | None) -> dict[str, Any] | None:
    if c is None:
        return None
    if c.channel is not None:
        return {"channel": c.channel}
    shown: dict[str, Any] = {
        "api": c.url,
        "headers": {**dict(c.headers), **{name: SECRET_PLACEHOLDER for name, _ in c.secret_headers}},
    }
    if c.signing_secret is not None:
        shown["signingSecret"] = SECRET_PLACEHOLDER
    return shown


def shown_after(after: After | None) -> dict[str, Any] | None:
    """What a job runs after, as JSON."""
    return None if after is None else {"jobId": after.job_id, "on": after.on}


def callback_channels(values: dict[str, Any]) -> dict[str, str]:
    """The channels that callbacks of a document name, by the field; nothing of what is not as it should be."""
    found: dict[str, str] = {}
    for name in CALLBACKS:
        callback = values.get(name)
        channel = callback.get("channel") if isinstance(callback, dict) else None
        if isinstance(channel, str):
            found[f"{name}.channel"] = channel
    return found
