"""Moving in and out: what `horae import` makes of a text, and when its jobs are due; a node to export from and apply to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from cluster.core.instants import format_instant, parse_instant
from cluster.core.schedule.schedule import parse_schedule
from ops.cli import cli
from ops.migrate.translation import Translation, UrlTemplate
from ops.support.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

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


COLLECTIONS = ("windows", "calendars", "queues", "channels")


class Moved:
    """A node whose definitions are moved: `call` is a request to it, `run` a command for it."""

    def __init__(self, url: str) -> None:
        self._client = Client(url)
        self.call = self._client.call

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, list(arguments), env={"HORAE_URL": self._client.url})

    def jobs(self) -> list[dict[str, Any]]:
        return list(self._client.jobs())

    def wipe(self) -> None:
        """As if the database were a new one."""
        for job in self.jobs():
            self.call("DELETE", f"/jobs/{job['jobId']}")
        self.call("DELETE", "/alerts/default")
        for collection in COLLECTIONS:
            for item in self.call("GET", f"/{collection}")["items"]:
                self.call("DELETE", f"/{collection}/{item['name']}")
