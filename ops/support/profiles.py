"""Profiles: the addresses and key files of several clusters, kept in a file of the user. Keys themselves are not in it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import orjson


@dataclass(frozen=True, slots=True)
class Profile:
    """One cluster: the address of its API, and the file that holds the key."""

    name: str
    url: str
    key_file: str | None = None

    def key(self) -> str | None:
        """The key in the file. Raises `UsageError` if the file cannot be read."""
        if self.key_file is None:
            return None
        try:
            return Path(self.key_file).expanduser().read_text().strip() or None
        except (OSError, UnicodeDecodeError) as exc:
            raise click.UsageError(f"profile '{self.name}': its key file cannot be read: {exc}") from exc


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
            name: Profile(name, str(fields["url"]), fields.get("keyFile")) for name, fields in value["profiles"].items()
        }
        return Profiles(value.get("current"), profiles)
    except FileNotFoundError:
        return Profiles(None, {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise click.UsageError(f"{file} cannot be read as profiles: {exc}; correct or remove it") from exc


def save_profiles(profiles: Profiles) -> None:
    """Replace the file at once: a reader sees the old one or the new one."""
    file = profiles_file()
    value: dict[str, Any] = {
        "current": profiles.current,
        "profiles": {
            p.name: {"url": p.url} | ({} if p.key_file is None else {"keyFile": p.key_file})
            for p in profiles.profiles.values()
        },
    }
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    fresh.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")
    fresh.replace(file)
