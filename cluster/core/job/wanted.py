"""A job as a request asks for it: each secret is new, or is kept from the stored job."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cluster.core.errors import Fault, InvalidInput
from cluster.core.job.definition import PAUSE_AS_IT_IS, Auth, WantedPause

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster.core.job.definition import Definition
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

        Raises `InvalidInput` for a secret that must be kept and is not stored.
        """
        return replace(
            self.definition,
            secret_headers=self._secret_headers(stored),
            auth=self._auth(stored),
            signing_secret=resolve_secret(
                self.signing_secret, None if stored is None else stored.signing_secret, "signingSecret"
            ),
            previous_signing_secret=resolve_secret(
                self.previous_signing_secret,
                None if stored is None else stored.previous_signing_secret,
                "previousSigningSecret",
            ),
        )

    def _secret_headers(self, stored: Definition | None) -> tuple[tuple[str, str], ...]:
        kept = {} if stored is None else {name.lower(): value for name, value in stored.secret_headers}
        resolved: list[tuple[str, str]] = []
        faults: list[Fault] = []
        for name, secret in self.secret_headers:
            value = secret.value if isinstance(secret, SecretValue) else kept.get(name.lower())
            if value is None:
                faults.append(Fault(f"headers.{name}", NO_STORED_SECRET))
            else:
                resolved.append((name, value))
        if faults:
            raise InvalidInput(faults)
        return tuple(resolved)

    def _auth(self, stored: Definition | None) -> Auth | None:
        wanted = self.auth
        if wanted is None:
            return None
        if isinstance(wanted.secret, SecretValue):
            return Auth(wanted.kind, wanted.user, wanted.secret.value)
        kept = None if stored is None else stored.auth
        if kept is None or kept.kind != wanted.kind:
            raise InvalidInput([Fault(f"auth.{'password' if wanted.kind == 'basic' else 'token'}", NO_STORED_SECRET)])
        return Auth(wanted.kind, wanted.user, kept.secret)


def unknown_calendar(name: str) -> Fault:
    """The fault of a request that names a calendar that does not exist."""
    return Fault("calendar.name", f"there is no calendar '{name}': make it with PUT /calendars/{name}")


def resolve_secret(wanted: WantedSecret | None, stored: str | None, path: str) -> str | None:
    """The value of a secret. Raises `InvalidInput`, for the field `path`, if it must be kept and is not stored."""
    if wanted is None:
        return None
    if isinstance(wanted, SecretValue):
        return wanted.value
    if stored is None and wanted.required:
        raise InvalidInput([Fault(path, NO_STORED_SECRET)])
    return stored
