"""Settings from the environment or `.env`; config/README.md lists them. All invalid ones are reported together at start.

A setting may also be in a file whose path is in `<NAME>_FILE`, as containers receive their secrets.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from cluster.core import timings
from cluster.core.documents.mail_domains import MAIL_DOMAIN, domain_of
from cluster.core.errors import ConfigurationError
from cluster.core.timings import Timings

SECRET_KEY_BYTES = 32
SCOPES = ("read", "write", "admin")
_KEY_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_PATH_PREFIX = re.compile(r"(/(?!\.\.?(/|\Z))[A-Za-z0-9_.-]+)+", re.ASCII)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key of `HORAE_API_KEYS`. Logs show its name, never the key."""

    name: str
    key: SecretStr
    scope: Literal["read", "write", "admin"]


class Settings(BaseSettings):
    """The settings of one `horae serve`."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True, populate_by_name=True
    )

    mongodb_uri: SecretStr | None = Field(None, validation_alias="MONGODB_URI")
    db_name: str = Field("horae", validation_alias="DB_NAME", pattern=r"^[A-Za-z0-9_-]{1,38}$")
    host: str = Field("127.0.0.1", validation_alias="HOST", min_length=1)
    port: int = Field(5000, validation_alias="PORT", ge=1, le=65535)
    nodes: int = Field(2, validation_alias="HORAE_NODES", ge=1, le=64)
    data_dir: str = Field(".horae", validation_alias="HORAE_DATA_DIR", min_length=1)
    api_keys: Annotated[tuple[ApiKey, ...], NoDecode] = Field((), validation_alias="HORAE_API_KEYS")
    secret_keys: Annotated[tuple[bytes, ...], NoDecode] = Field((), validation_alias="HORAE_SECRET_KEY", repr=False)
    requests_per_second: float = Field(500, validation_alias="HORAE_REQUESTS_PER_SECOND", ge=0, le=1_000_000)
    allowed_networks: Annotated[tuple[Any, ...], NoDecode] = Field((), validation_alias="HORAE_ALLOWED_NETWORKS")
    leader_lease_seconds: float = Field(6, validation_alias="HORAE_LEADER_LEASE_SECONDS", gt=0, le=300)
    lookahead_seconds: float = Field(15, validation_alias="HORAE_LOOKAHEAD_SECONDS", gt=0, le=600)
    batch_lease_seconds: float = Field(10, validation_alias="HORAE_BATCH_LEASE_SECONDS", gt=0, le=600)
    max_connections: int = Field(1000, validation_alias="HORAE_MAX_CONNECTIONS", ge=16, le=50_000)
    max_connections_per_address: int = Field(100, validation_alias="HORAE_MAX_CONNECTIONS_PER_ADDRESS", ge=4, le=50_000)
    event_viewers: int = Field(50, validation_alias="HORAE_EVENT_VIEWERS", ge=1, le=10_000)
    trusted_proxies: Annotated[tuple[Any, ...], NoDecode] = Field((), validation_alias="HORAE_TRUSTED_PROXIES")
    max_in_flight: int = Field(256, validation_alias="HORAE_MAX_IN_FLIGHT", ge=4, le=10_000)
    retention_days: float = Field(7, validation_alias="HORAE_RETENTION_DAYS", gt=0, le=3650)
    audit_retention_days: float = Field(365, validation_alias="HORAE_AUDIT_RETENTION_DAYS", ge=1, le=3650)
    completed_retention_days: float = Field(30, validation_alias="HORAE_COMPLETED_RETENTION_DAYS", ge=0, le=3650)
    paced_retention: bool = Field(default=True, validation_alias="HORAE_PACED_RETENTION")
    smtp_host: str | None = Field(None, validation_alias="HORAE_SMTP_HOST")
    smtp_port: int = Field(587, validation_alias="HORAE_SMTP_PORT", ge=1, le=65535)
    smtp_security: Literal["starttls", "tls", "plain"] = Field("starttls", validation_alias="HORAE_SMTP_SECURITY")
    smtp_user: str | None = Field(None, validation_alias="HORAE_SMTP_USER")
    smtp_password: SecretStr | None = Field(None, validation_alias="HORAE_SMTP_PASSWORD")
    smtp_from: str | None = Field(
        None, validation_alias="HORAE_SMTP_FROM", pattern=r"^([^<>@\r\n]* <)?[^<>@\s]+@[^<>@\s]+>?$"
    )
    mail_domains: Annotated[tuple[str, ...], NoDecode] = Field((), validation_alias="HORAE_MAIL_DOMAINS")
    otlp_endpoint: str | None = Field(
        None, validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT", pattern=r"^(https?://[^\s/]+.*)?$"
    )
    trace_ratio: float = Field(1.0, validation_alias="HORAE_TRACE_RATIO", ge=0, le=1)
    metrics_port: int | None = Field(None, validation_alias="HORAE_METRICS_PORT", ge=1, le=65535)
    metrics_open: bool = Field(default=False, validation_alias="HORAE_METRICS_OPEN")
    dashboard: Literal["off", "read", "full"] = Field("full", validation_alias="HORAE_DASHBOARD")
    path_prefix: str = Field("", validation_alias="HORAE_PATH_PREFIX", max_length=200)
    log_format: Literal["console", "json"] = Field("console", validation_alias="HORAE_LOG_FORMAT")

    @field_validator("mongodb_uri", mode="before")
    @classmethod
    def _uri(cls, value: Any) -> Any:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if text in (None, ""):
            return None
        if not str(text).startswith(("mongodb://", "mongodb+srv://")):
            raise ValueError("must begin with mongodb:// or mongodb+srv://")
        return text

    @field_validator("path_prefix", mode="before")
    @classmethod
    def _prefix(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        prefix = value.rstrip("/")
        if prefix and not _PATH_PREFIX.fullmatch(prefix):
            raise ValueError(
                "must be a path such as /horae, of A-Z a-z 0-9 _ . - and slashes, without . or .. as a segment"
            )
        return prefix

    @field_validator("metrics_port", mode="before")
    @classmethod
    def _no_metrics_port(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("allowed_networks", "trusted_proxies", mode="before")
    @classmethod
    def _networks(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        networks = []
        for part in filter(None, (p.strip() for p in value.split(","))):
            try:
                networks.append(ipaddress.ip_network(part, strict=False))
            except ValueError:
                raise ValueError(
                    f"'{part}' is not a network; write networks in CIDR notation, such as 127.0.0.0/8,10.1.0.0/16"
                ) from None
        return tuple(networks)

    @field_validator("mail_domains", mode="before")
    @classmethod
    def _domains(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        domains = tuple(part.strip().lower() for part in value.split(",") if part.strip())
        for domain in domains:
            if not MAIL_DOMAIN.fullmatch(domain):
                raise ValueError(
                    f"'{domain[:100]}' is not a domain; write domains such as example.com,example.org, or * for any"
                )
        return domains

    @field_validator("api_keys", mode="before")
    @classmethod
    def _keys(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        keys: list[ApiKey] = []
        for number, part in enumerate(filter(None, (p.strip() for p in value.split(","))), 1):
            # Never quote the part: it carries the key.
            name, _, rest = part.partition(":")
            key, _, scope = rest.rpartition(":")
            if not _KEY_NAME.match(name) or scope not in SCOPES:
                raise ValueError(
                    f"entry {number} must be name:key:scope; the name has 1 to 64 of A-Z a-z 0-9 _ . -, the scope is "
                    f"one of {', '.join(SCOPES)}"
                )
            if len(key) < 16:
                raise ValueError(f"entry {number} ('{name}') has a key shorter than 16 characters; choose a longer one")
            if any(name == k.name for k in keys):
                raise ValueError(f"the name '{name}' is used twice; give each key its own name")
            keys.append(ApiKey(name, SecretStr(key), scope))  # type: ignore[arg-type]
        return tuple(keys)

    @field_validator("secret_keys", mode="before")
    @classmethod
    def _secret_keys(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        keys: list[bytes] = []
        for number, part in enumerate(filter(None, (p.strip() for p in value.split(","))), 1):
            try:
                key = base64.b64decode(part, validate=True)
            except (binascii.Error, ValueError):
                key = b""
            if len(key) != SECRET_KEY_BYTES:  # never quote the part: it is the key
                raise ValueError(
                    f"entry {number} must be the base64 of 32 random bytes; make one with `horae secrets new-key`"
                )
            keys.append(key)
        return tuple(keys)

    @model_validator(mode="after")
    def _check_combinations(self) -> Settings:
        problems = timings.timing_problems(self.timings)
        if self.keyless_and_reachable and self.mongodb_uri is None:
            problems.append(
                f"HOST {self.host} is reachable from other machines and HORAE_API_KEYS is empty: set HORAE_API_KEYS "
                "(name:key:scope), or set HOST to 127.0.0.1"
            )
        if any(network.prefixlen == 0 for network in self.trusted_proxies):
            problems.append(
                "HORAE_TRUSTED_PROXIES names every address, so that every client could name itself as it likes: name the "
                "networks of your proxies only"
            )
        if self.metrics_port == self.port:
            problems.append(
                f"HORAE_METRICS_PORT and PORT are both {self.port}: choose another port for the metrics, or unset it"
            )
        if self.max_connections_per_address > self.max_connections:
            problems.append(
                f"HORAE_MAX_CONNECTIONS_PER_ADDRESS {self.max_connections_per_address} is more than "
                f"HORAE_MAX_CONNECTIONS {self.max_connections}: one address could use all of them; choose a smaller one"
            )
        if self.smtp_host and not self.smtp_from:
            problems.append(
                "HORAE_SMTP_FROM is required with HORAE_SMTP_HOST: set it to the sender of alerts, such as horae@example.com"
            )
        if self.smtp_user and self.smtp_security == "plain" and not is_loopback(self.smtp_host or ""):
            problems.append(
                "HORAE_SMTP_SECURITY plain would send the password unencrypted to another machine: set it to starttls or tls"
            )
        if (self.smtp_user is None) != (self.smtp_password is None):
            problems.append("HORAE_SMTP_USER and HORAE_SMTP_PASSWORD must be set together: set both or neither")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def timings(self) -> Timings:
        """The timings derived from the settings."""
        return Timings.from_settings(
            leader_lease=self.leader_lease_seconds,
            lookahead=self.lookahead_seconds,
            batch_lease=self.batch_lease_seconds,
        )

    @property
    def viewer_limits(self) -> tuple[int, int]:
        """Viewers of live events of one node, in all and of one address. Half of the connections are for other requests."""
        most = min(self.event_viewers, self.max_connections // 2)
        return most, min(most, self.max_connections_per_address // 2)

    @property
    def allowed_mail_domains(self) -> tuple[str, ...]:
        """The domains that alerts may be mailed to: those of the setting, else that of the sender."""
        return self.mail_domains or ((domain_of(self.smtp_from),) if self.smtp_from else ())

    @property
    def keyless_and_reachable(self) -> bool:
        """Whether other machines can reach this node and the settings have no key: then the database must have one."""
        return not self.api_keys and not is_loopback(self.host)

    @property
    def uri(self) -> str | None:
        """The URI of the database, with its password; None: the embedded one."""
        return None if self.mongodb_uri is None else self.mongodb_uri.get_secret_value()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_settings(env_file: str | Path | None = ".env", **overrides: Any) -> Settings:
    """The settings of this process; `overrides` are field names. Raises `ConfigurationError` naming every problem."""
    from_files, problems = _from_files()
    given = from_files | {k: v for k, v in overrides.items() if v is not None}
    try:
        settings = Settings(_env_file=env_file, **given)
    except ValidationError as exc:
        problems.extend(_problems(exc))
    if problems:
        raise ConfigurationError(problems)  # without the cause: it quotes the values, secrets among them
    return settings


def _from_files() -> tuple[dict[str, str], list[str]]:
    """The settings whose `<NAME>_FILE` is set, by field name, and the problems with these files."""
    from_files: dict[str, str] = {}
    problems: list[str] = []
    for field, info in Settings.model_fields.items():
        name = str(info.validation_alias)
        path = os.environ.get(f"{name}_FILE")
        if not path:
            continue
        if os.environ.get(name):
            problems.append(f"{name} and {name}_FILE are both set: unset one of them")
            continue
        try:
            from_files[field] = Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError) as exc:
            problems.append(
                f"{name}_FILE: cannot read '{path}' ({getattr(exc, 'strerror', None) or 'not a text file'})"
            )
    return from_files, problems


def _problems(exc: ValidationError) -> list[str]:
    problems: list[str] = []
    for error in exc.errors(include_url=False, include_input=False):
        message = error["msg"].removeprefix("Value error, ")
        if error["loc"]:
            name = str(error["loc"][0])
            field = Settings.model_fields.get(name)
            shown = str(field.validation_alias) if field is not None else name
            problems.append(f"{shown}: {message[:1].lower()}{message[1:]}")
        else:
            problems.extend(message.split("\n"))
    return problems
