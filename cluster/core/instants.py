"""Instants as text and back: RFC 3339 outside, ms since 1970 inside."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from cluster.core.zones import zone

_DAY_MS = 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:[0-5]\d)\Z", re.ASCII)
_LOCAL = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?\Z", re.ASCII)
EXAMPLES = "such as 2026-12-01T10:00:00Z or 2026-12-01T11:00:00+01:00"
LATEST_MS = 253_370_764_800_000  # 9999-01-01


def format_instant(ms: int, timezone: str | None = None) -> str:
    """RFC 3339 with milliseconds: in UTC with `Z`, or in a time zone with its offset."""
    if timezone is not None:
        return (_EPOCH + timedelta(milliseconds=ms)).astimezone(zone(timezone)).isoformat(timespec="milliseconds")
    days, ms = divmod(ms, _DAY_MS)
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{_date(days)}T{hours:02}:{minutes:02}:{seconds:02}.{ms:03}Z"


@lru_cache(maxsize=1024)
def _date(days: int) -> str:
    """The date so many days after 1970-01-01. Most instants of an answer are on a few days."""
    return (_EPOCH + timedelta(days=days)).date().isoformat()


def format_optional_instant(ms: int | None) -> str | None:
    """The same; None stays None."""
    return None if ms is None else format_instant(ms)


def parse_local(text: str) -> tuple[int, int] | None:
    """A local time without an offset, such as `2026-12-01T10:00:00`, as seconds since 1970-01-01 00:00 local, and ms.

    None if the text has another form. Raises `ValueError` with a sentence for the user.
    """
    local = _LOCAL.match(text)
    if local is None:
        return None
    try:
        seconds = (datetime.fromisoformat(local[1].upper()).replace(tzinfo=UTC) - _EPOCH) // timedelta(seconds=1)
    except ValueError as exc:
        raise ValueError(f"is not a valid time: {exc}") from exc
    if not 86_400 <= seconds < LATEST_MS // 1000 - 86_400:
        raise ValueError("must be between 1970 and 9998")
    return seconds, int((local[2] or "0")[:3].ljust(3, "0"))


def parse_instant(text: str) -> int:
    """The instant of an RFC 3339 text, cut to whole ms. Raises `ValueError` with a sentence for the user."""
    if not _RFC3339.match(text):
        raise ValueError(f"must be a time with its offset, {EXAMPLES}")
    try:
        ms = (datetime.fromisoformat(text.upper()) - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError) as exc:
        why = "the offset must be less than a day" if "timedelta" in str(exc) else exc
        raise ValueError(f"is not a valid time: {why}") from exc
    if not 0 <= ms < LATEST_MS:
        raise ValueError("must be between 1970 and 9998")
    return ms
