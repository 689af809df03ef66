"""crontab(5) files: the form of a user's crontab, and the form of /etc/crontab and /etc/cron.d, which names a user.

Read as Vixie's cron, Debian's and cronie document them. `CRON_TZ` and `RANDOM_DELAY` hold for the lines below them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cluster.core.schedule.cron_syntax import ALIASES
from cluster.core.zones import zone_names
from ops.migrate.command_names import command_name
from ops.migrate.cron_fields import cron_schedule
from ops.migrate.translation import Draft, Untranslatable

if TYPE_CHECKING:
    from ops.migrate.translation import Job, Translation

Form = Literal["auto", "user", "system"]
FILE = ""
"""The place of a remark about the whole file."""
MAX_SPREAD = 86_400
_SETTING = re.compile(r"(?P<quote>[\"']?)(?P<name>[A-Za-z_]\w*)(?P=quote)\s*=\s*(?P<value>.*)\Z")
_ENTRY = re.compile(r"(?P<time>@\S+|\S+(?:\s+\S+){4})\s+(?P<rest>\S.*)\Z", re.DOTALL)
_USER = re.compile(r"[a-z_][a-z0-9_.-]*\$?(?::[a-z0-9_.-]+)?\Z")
_STDIN = re.compile(r"(?<!\\)%")
_SYSTEM_PATHS = ("/etc/crontab", "/etc/cron.d/")
_SURE_USERS = frozenset({"root", "nobody", "www-data"})
_SHELL_WORDS = frozenset(
    {"cd", "test", "sh", "bash", "php", "python", "python3", "perl", "ruby", "curl", "wget", "echo"}
)
NO_MAIL = (
    "MAILTO: Horae mails no output. Alerts say when a job fails, also by email (PUT /channels, PUT /alerts/default)"
)
STANDING = (
    (
        "cron does not run later what it could not run in time, so each job has catchUp none; Horae can do so "
        "(catchUp all or latest)"
    ),
    (
        "cron runs a command once, as long as it takes; Horae sends a request that failed again (retry.maxAttempts, 5) and "
        "waits for its answer for timeoutSeconds (30)"
    ),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line that runs a command: its time as five fields or an alias, and the rest of the line."""

    number: int
    time: str
    rest: str

    @property
    def place(self) -> str:
        """Where it stands."""
        return f"line {self.number}"


@dataclass
class _Settings:
    """What the file and its settings so far say about the lines below them."""

    user_column: bool
    timezone: str
    zone_is_given: bool
    unknown_zone: str | None = None
    spread_seconds: int = 0
    used_default_zone: bool = False

    def set_zone(self, name: str) -> None:
        """CRON_TZ."""
        known = name in zone_names()
        self.timezone, self.zone_is_given = (name, True) if known else (self.timezone, self.zone_is_given)
        self.unknown_zone = None if known else name

    def set_spread(self, seconds: int) -> None:
        """RANDOM_DELAY."""
        self.spread_seconds = seconds

    def note_use(self) -> None:
        """A job was made."""
        self.used_default_zone = self.used_default_zone or not self.zone_is_given


def translate_crontab(text: str, translation: Translation, *, timezone: str | None, form: Form, path: str) -> None:
    """Add the jobs of a crontab. `timezone`: the zone of the machine; None: not known."""
    lines = [(number, line.strip(" \t\r")) for number, line in enumerate(text.split("\n"), 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    entries = [entry for number, line in lines if (entry := _entry(number, line)) is not None]
    user_column = _has_user_column(text, entries, translation, form=form, path=path)
    settings = _Settings(user_column, timezone or "UTC", timezone is not None)
    for number, line in lines:
        place = f"line {number}"
        if "\N{REPLACEMENT CHARACTER}" in line:
            translation.remark(place, "is not UTF-8; the unreadable bytes were replaced")
        if setting := _setting(line):
            _apply(setting["name"], setting["value"].strip(), place, settings, translation)
        elif (entry := _entry(number, line)) is None:
            translation.leave_out(place, "is neither a setting nor five fields (or @daily and the like) and a command")
        else:
            _add(entry, settings, translation)
    if settings.used_default_zone:
        translation.remark(
            FILE, "does not say in which time zone its machine was: read as UTC; give another one with --timezone"
        )
    if translation.jobs:
        for difference in STANDING:
            translation.remark(FILE, difference)


def _setting(line: str) -> re.Match[str] | None:
    return _SETTING.match(line)


def _entry(number: int, line: str) -> Entry | None:
    if _setting(line):
        return None
    match = _ENTRY.match(line)
    return None if match is None else Entry(number, match["time"], match["rest"])


def _has_user_column(text: str, entries: list[Entry], translation: Translation, *, form: Form, path: str) -> bool:
    """Whether the sixth column is a user. Where this is not certain, a remark says how the file was read."""
    if form != "auto" or not entries:
        return form == "system"
    words = [entry.rest.split(None, 1) for entry in entries]
    could_be = all(len(w) == 2 and _USER.match(w[0]) for w in words)
    header = re.search(r"^#.*\bdow\s+user(?:-?name)?\b", text, re.MULTILINE) is not None
    sure = header or path.startswith(_SYSTEM_PATHS) or any(w[0] in _SURE_USERS for w in words)
    if could_be and sure:
        translation.remark(
            FILE, "was read in the form of /etc/crontab: the sixth column is a user. If that is wrong: --form user"
        )
        return True
    if could_be and not any(w[0] in _SHELL_WORDS for w in words):
        translation.remark(
            FILE, "was read as a user's crontab. If its sixth column is a user, as in /etc/crontab: --form system"
        )
    for entry, w in zip(entries, words, strict=True):
        if w[0] in _SURE_USERS and len(w) == 2:
            translation.remark(
                entry.place, f"the command begins with '{w[0]}', which looks like a user: if it is one, --form system"
            )
    return False


def _apply(name: str, value: str, place: str, settings: _Settings, translation: Translation) -> None:
    """Take a setting into account. Values of variables are not repeated: they may be secrets."""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    if name == "CRON_TZ":
        zone = value.removeprefix(":")
        settings.set_zone(zone)
        if zone not in zone_names():
            translation.remark(place, f"CRON_TZ: '{value[:64]}' is not an IANA time zone")
    elif name == "RANDOM_DELAY":
        minutes = int(value) if value.isascii() and value.isdigit() else -1
        if 0 <= minutes * 60 <= MAX_SPREAD:
            settings.set_spread(minutes * 60)
        else:
            translation.remark(place, "RANDOM_DELAY: must be 0 to 1440 minutes; no spreadSeconds was set")
    elif name == "TZ":
        translation.remark(
            place, "TZ: cron sets it for the commands only, and schedules by its own zone; it has no effect on the jobs"
        )
    elif name in ("MAILTO", "MAILFROM"):
        translation.remark(place, NO_MAIL if name == "MAILTO" else f"{name}: Horae mails no output")
    else:
        translation.remark(
            place, f"{name}: a request carries no environment; set it where the program behind the URL runs"
        )


def _add(entry: Entry, settings: _Settings, translation: Translation) -> None:
    user, line = "", entry.rest
    if settings.user_column:
        user, line = [*entry.rest.split(None, 1), ""][:2]
    command, *standard_input = _STDIN.split(line)
    command = command.replace("\\%", "%").strip()
    if not command:
        translation.leave_out(entry.place, "has no command")
        return
    try:
        schedule = _schedule(entry.time)
    except Untranslatable as exc:
        translation.leave_out(entry.place, str(exc))
        return
    if settings.unknown_zone is not None:
        translation.leave_out(
            entry.place, f"its CRON_TZ '{settings.unknown_zone[:64]}' is not an IANA time zone: write one there"
        )
        return
    fields: Job = {"schedule": schedule, "timezone": settings.timezone, "catchUp": "none"}
    if settings.spread_seconds:
        fields["spreadSeconds"] = settings.spread_seconds
    if standard_input:
        fields["body"] = "\n".join(standard_input).replace("\\%", "%")
        if "{{" in fields["body"]:
            fields["templates"] = False  # Horae would fill in what stands between double braces
    draft = Draft(command_name(command) or f"line-{entry.number}", command, f"crontab, line {entry.number}", fields)
    if not translation.add(entry.place, draft):
        return
    settings.note_use()
    if user:
        translation.remark(
            entry.place, f"ran as the user '{user}': a request has no user; the program behind the URL decides"
        )
    if standard_input:
        translation.remark(entry.place, "what follows % was the command's standard input; it is the request's body now")
    if entry.time.startswith("-"):
        translation.remark(entry.place, "the - in front, which keeps cron from logging the line, has no meaning here")


def _schedule(time: str) -> str:
    """The schedule of five fields or an alias. Raises `Untranslatable`."""
    if not time.startswith("@"):
        words = time.removeprefix("-").split()
        return cron_schedule(words)
    name = time.lower()
    if name == "@reboot":
        raise Untranslatable(
            "@reboot: Horae knows no machine that starts; run the command from systemd, or from the program behind the URL"
        )
    if name == "@every_minute":
        return "* * * * *"
    if name not in ALIASES:
        raise Untranslatable(f"'{time}' is unknown; use {', '.join(ALIASES)} or five fields")
    return name
