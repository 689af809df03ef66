"""Profiles: the addresses and key files of several clusters, kept in a file of the user. Keys themselves are not in it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import click
import orjson


@dataclass(frozen=True, slots=True)
class Profile:
    """One cluster: the address of its API, and the file that holds the key."""

    name: str
    url: str
    key_file: str | None = None

    def key(self) -> str | None:
        """The key in the file. Raises `UsageError` if there is none: without it, requests would be sent as nobody's."""
        if self.key_file is None:
            return None
        try:
            text = Path(self.key_file).expanduser().read_text().strip()
        except (OSError, ValueError, RuntimeError) as exc:
            raise click.UsageError(f"profile '{self.name}': its key file cannot be read: {exc}") from exc
        if not text:
            raise click.UsageError(
                f"profile '{self.name}': its key file {self.key_file} is empty; write the API key into it"
            )
        return checked_key(text, f"profile '{self.name}': its key file {self.key_file}")


def checked_key(text: str, where: str) -> str:
    """The API key in a text. Raises `UsageError`, without the text, if it is not one line of printable ASCII."""
    if not text.isascii() or not text.isprintable() or " " in text:
        raise click.UsageError(f"{where} must hold one API key and nothing else: printable ASCII without blanks")
    return text


def checked_address(url: str) -> SplitResult:
    """The parts of the address of an API. Raises `UsageError` if it is none."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or not url.isprintable() or " " in url or parts.query or parts.fragment:
        raise click.UsageError(f"'{url}' is not the address of an API; write one such as http://127.0.0.1:5000")
    return parts


@dataclass(frozen=True, slots=True)
class Profiles:
    """All profiles, and which of them is in use."""

    current: str | None
    profiles: dict[str, Profile]

    def selected(self) -> Profile | None:
        """The profile of HORAE_PROFILE, else the one in use. Raises `UsageError` for an unknown name."""
        name = os.environ.get("HORAE_PROFILE") or self.current
        return None if name is None else self.named(name)

    def named(self, name: str) -> Profile:
        """Raises `UsageError` for an unknown name."""
        if name not in self.profiles:
            known = ", ".join(sorted(self.profiles)) or "none"
            raise click.UsageError(
                f"there is no profile '{name}' (there are: {known}); make it with `horae config set {name} --url URL`"
            )
        return self.profiles[name]


def profiles_file() -> Path:
    """HORAE_CONFIG, or horae/config.json in the user's folder for settings."""
    if given := os.environ.get("HORAE_CONFIG"):
        return Path(given)
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "horae" / "config.json"


def load_profiles() -> Profiles:
    """The profiles; none if there is no file. Raises `UsageError` if it cannot be read."""
    file = profiles_file()
    try:
        value = orjson.loads(file.read_bytes())
        profiles = {
            name: Profile(name, _text(fields["url"]), _optional_text(fields.get("keyFile")))
            for name, fields in value["profiles"].items()
        }
        return Profiles(_optional_text(value.get("current")), profiles)
    except FileNotFoundError:
        return Profiles(None, {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise click.UsageError(f"{file} cannot be read as profiles: {exc}; correct or remove it") from exc


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} must be a text")
    return value


def _optional_text(value: Any) -> str | None:
    return None if value is None else _text(value)


def save_profiles(profiles: Profiles) -> None:
    """Replace the file at once: a reader sees the old one or the new one. Raises `UsageError` if it cannot be written."""
    file = profiles_file()
    value: dict[str, Any] = {
        "current": profiles.current,
        "profiles": {
            p.name: {"url": p.url} | ({} if p.key_file is None else {"keyFile": p.key_file})
            for p in profiles.profiles.values()
        },
    }
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")
        fresh.replace(file)
    except OSError as exc:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise click.UsageError(f"{file} cannot be written: {exc}; HORAE_CONFIG names another file") from exc
