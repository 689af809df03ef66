"""What `horae import` makes of a text, and when its jobs are due."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.core.instants import format_instant, parse_instant
from cluster.core.schedule.schedule import parse_schedule
from ops.migrate.translation import Translation, UrlTemplate

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = Path(__file__).parents[1] / "data" / "moving"
NOW = "2026-11-28T00:00:00Z"
"""A Saturday."""


def translated(
    translate: Callable[..., None], text: str, template: str = "https://x.example/{name}", **options: Any
) -> Translation:
    found = Translation(UrlTemplate(template), parse_instant(NOW))
    translate(text, found, **options)
    return found


def next_runs(job: dict[str, Any], after: str = NOW, count: int = 3) -> list[str]:
    """The next instants of a job, in UTC without milliseconds, between its startAt and its endAt."""
    start, end = (parse_instant(job[n]) if n in job else None for n in ("startAt", "endAt"))
    schedule = parse_schedule(job["schedule"], job["timezone"], start or parse_instant(after))
    found: list[str] = []
    at: int | None = max(parse_instant(after), (start or 0) - 1)
    while len(found) < count and at is not None:
        at = schedule.next_after(at)
        if at is None or (end is not None and at > end):
            break
        found.append(format_instant(at)[:19] + "Z")
    return found


def remarks(translation: Translation, word: str = "") -> list[str]:
    return [line for r in translation.remarks if word in (line := r.line())]
