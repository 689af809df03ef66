"""A job as a request asks for it: each secret is new, or is kept from the stored job."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cluster.core.errors import Fault, InvalidInput
from cluster.core.job.definition import PAUSE_AS_IT_IS, Auth, WantedPause

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cluster.core.job.definition import Callback, Definition
    from cluster.core.lifecycle import JobState
    from cluster.core.schedule.calendar_days import ExcludedDays

NO_STORED_SECRET = "has no stored secret: send its value instead of the placeholder"  # noqa: S105 - a message


@dataclass(frozen=True, slots=True)
class SecretValue:
    """A new secret."""

    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeepSecret:
    """The stored secret stays. `required`: the request is at fault if none is stored."""

    required: bool = True


KEEP_SECRET = KeepSecret()
KEEP_IF_STORED = KeepSecret(required=False)
WantedSecret = SecretValue | KeepSecret


@dataclass(frozen=True, slots=True)
class WantedAuth:
    """The `Authorization` header that is wanted. `kind` is `basic` or `bearer`; a bearer has no user."""

    kind: str
    user: str
    secret: WantedSecret


@dataclass(frozen=True, slots=True)
class WantedCallback:
    """A checked callback. `callback` is without secrets."""

    callback: Callback
    secret_headers: tuple[tuple[str, WantedSecret], ...] = ()
    signing_secret: WantedSecret | None = None

    def resolve(self, stored: Callback | None, field_name: str, missing: list[Fault]) -> Callback:
        """The callback with its secrets; the kept ones come from `stored`. Those that are not there go to `missing`."""
        kept = () if stored is None else stored.secret_headers
        signing = None if stored is None else stored.signing_secret
        return replace(
            self.callback,
            secret_headers=_resolve_headers(self.secret_headers, kept, f"{field_name}.headers", missing),
            signing_secret=resolve_secret(self.signing_secret, signing, f"{field_name}.signingSecret", missing),
        )


@dataclass(frozen=True, slots=True)
class WantedJob:
    """A checked job. `definition` is without secrets."""

    definition: Definition
    secret_headers: tuple[tuple[str, WantedSecret], ...] = ()
    auth: WantedAuth | None = None
    signing_secret: WantedSecret | None = None
    previous_signing_secret: WantedSecret | None = None
    alert_channels: tuple[str, ...] = ()
    """The channels that its alert rules name."""
    state: JobState | None = None
    """`active` or `paused`. None: as it is; a new job is active."""
    pause: WantedPause = PAUSE_AS_IT_IS
    on_success: WantedCallback | None = None
    on_failure: WantedCallback | None = None

    @property
    def callback_channels(self) -> dict[str, str]:
        """The channels that its callbacks name, by the field."""
        both = (("onSuccess", self.on_success), ("onFailure", self.on_failure))
        named = {f"{name}.channel": c.callback.channel for name, c in both if c is not None}
        return {name: channel for name, channel in named.items() if channel is not None}

    @property
    def calendar_name(self) -> str | None:
        """The calendar that it names."""
        return None if self.definition.calendar is None else self.definition.calendar.name

    def with_days(self, days: Mapping[str, ExcludedDays]) -> WantedJob:
        """The same job with the days of its calendar; `days` by name. Raises `InvalidInput` if that does not exist."""
        calendar = self.definition.calendar
        if calendar is None:
            return self
        if calendar.name not in days:
            raise InvalidInput([unknown_calendar(calendar.name)])
        looked_up = replace(calendar, days=days[calendar.name])
        return replace(self, definition=replace(self.definition, calendar=looked_up))

    def resolve(self, stored: Definition | None) -> Definition:
        """The definition with its secrets; the kept ones come from `stored`.

        Raises `InvalidInput` with every secret that must be kept and is not stored.
        """
        missing: list[Fault] = []
        signing, previous = (None, None) if stored is None else (stored.signing_secret, stored.previous_signing_secret)
        on_success, on_failure = (None, None) if stored is None else (stored.on_success, stored.on_failure)
        headers = () if stored is None else stored.secret_headers
        resolved = replace(
            self.definition,
            secret_headers=_resolve_headers(self.secret_headers, headers, "headers", missing),
            auth=self._auth(stored, missing),
            signing_secret=resolve_secret(self.signing_secret, signing, "signingSecret", missing),
            previous_signing_secret=resolve_secret(
                self.previous_signing_secret, previous, "previousSigningSecret", missing
            ),
            on_success=_resolved(self.on_success, on_success, "onSuccess", missing),
            on_failure=_resolved(self.on_failure, on_failure, "onFailure", missing),
        )
        if missing:
            raise InvalidInput(missing)
        return resolved

    def _auth(self, stored: Definition | None, missing: list[Fault]) -> Auth | None:
        wanted = self.auth
        if wanted is None:
            return None
        if isinstance(wanted.secret, SecretValue):
            return Auth(wanted.kind, wanted.user, wanted.secret.value)
        kept = None if stored is None else stored.auth
        if kept is None or kept.kind != wanted.kind:
            missing.append(Fault(f"auth.{'password' if wanted.kind == 'basic' else 'token'}", NO_STORED_SECRET))
            return None
        return Auth(wanted.kind, wanted.user, kept.secret)


def _resolved(
    wanted: WantedCallback | None, stored: Callback | None, field_name: str, missing: list[Fault]
) -> Callback | None:
    return None if wanted is None else wanted.resolve(stored, field_name, missing)


def _resolve_headers(
    wanted: Sequence[tuple[str, WantedSecret]], stored: Sequence[tuple[str, str]], path: str, missing: list[Fault]
) -> tuple[tuple[str, str], ...]:
    """The secret headers with their values; the kept ones come from `stored`. Those that are not there go to `missing`."""
    kept = {name.lower(): value for name, value in stored}
    resolved: list[tuple[str, str]] = []
    for name, secret in wanted:
        value = secret.value if isinstance(secret, SecretValue) else kept.get(name.lower())
        if value is None:
            missing.append(Fault(f"{path}.{name}", NO_STORED_SECRET))
        else:
            resolved.append((name, value))
    return tuple(resolved)


def unknown_calendar(name: str) -> Fault:
    """The fault of a request that names a calendar that does not exist."""
    return Fault("calendar.name", f"there is no calendar '{name}': make it with PUT /calendars/{name}")


def resolve_secret(wanted: WantedSecret | None, stored: str | None, path: str, missing: list[Fault]) -> str | None:
    """The value of a secret. If it must be kept and is not stored, the field `path` goes to `missing`."""
    if wanted is None:
        return None
    if isinstance(wanted, SecretValue):
        return wanted.value
    if stored is None and wanted.required:
        missing.append(Fault(path, NO_STORED_SECRET))
    return stored
