"""`horae tail`: live events through the REST API, one line each, until Ctrl-C."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import click
import orjson

from ops.commands.completion import complete_jobs
from ops.support.client import Refused, Unreachable
from ops.support.event_stream import EventStream
from ops.support.output import COLOURS, printable

if TYPE_CHECKING:
    from collections.abc import Callable

RECONNECT_SECONDS = 1.0
LONGEST_PAUSE = 15.0
WAITS = (429, 503)
"""Statuses after which the same request may succeed, on this node or another one."""
SEVERAL = "Several: give it several times."


@click.command("tail")
@click.option("--job", "jobs", multiple=True, shell_complete=complete_jobs, help=f"Only events of this job. {SEVERAL}")
@click.option("--tag", "tags", multiple=True, help=f"Only events of jobs with this tag. {SEVERAL}")
@click.option("--state", "states", multiple=True, help=f"Only executions in this state, such as failed. {SEVERAL}")
@click.option("--kind", "kinds", multiple=True, help=f"execution, job, leader, breaker or alert. {SEVERAL}")
@click.option("--after", help="Begin behind the event with this id, instead of now.")
@click.option("--seconds", type=click.FloatRange(0.1), help="End after so many seconds. [default: never]")
@click.option("-o", "--output", type=click.Choice(["text", "ndjson"]), default="text", show_default=True)
@click.option(
    "--url", envvar="HORAE_URL", help="Address of the API. [default: HORAE_URL, the profile in use, or HOST and PORT]"
)
def tail_command(after: str | None, seconds: float | None, output: str, url: str | None, **names: Any) -> None:
    """Show what happens as it happens: executions that end or are retried, changed jobs, leader, breakers, alerts.

    The command connects again when the connection breaks, to wherever a node answers, and misses nothing meanwhile. What
    had to be left out is said on standard error.
    """
    query = {name.removesuffix("s"): values for name, values in names.items() if values}
    stream = EventStream(url, query, after)
    end = None if seconds is None else time.monotonic() + seconds
    show: Callable[[str, dict[str, Any]], str] = _ndjson if output == "ndjson" else _line
    connected = False
    pause = RECONNECT_SECONDS
    while end is None or time.monotonic() < end:
        try:
            for name, data in stream.events(None if end is None else end - time.monotonic()):
                connected, pause = True, RECONNECT_SECONDS
                if name == "dropped":
                    click.echo(f"horae: events are missing: {data['reason']}{_counts(data)}", err=True)
                elif name != "closing":
                    click.echo(show(name, data))
            connected = True
        except Refused as exc:
            if exc.status not in WAITS:
                raise
            click.echo(f"horae: {exc.format_message()}; trying again", err=True)
        except Unreachable as exc:
            if not connected:
                raise
            click.echo(f"horae: {exc.format_message()}; trying again", err=True)
        time.sleep(pause if end is None else max(0.0, min(pause, end - time.monotonic())))
        pause = min(LONGEST_PAUSE, 2 * pause)


def _counts(data: dict[str, Any]) -> str:
    counts = data.get("counts") or {}
    return f" ({', '.join(f'{n} {kind}' for kind, n in sorted(counts.items()))})" if counts else ""


def _ndjson(name: str, data: dict[str, Any]) -> str:
    return orjson.dumps({"event": name, **data}).decode()


def _line(name: str, data: dict[str, Any]) -> str:
    """An event in one line: when, what, about which job, and what is known of it."""
    at = str(data.get("endedAt") or data.get("timestamp") or data.get("at") or data.get("scheduledAt") or "")
    clock = at[11:23] or "-"
    if name == "execution":
        what, subject, rest = data["state"], data["executionId"], _execution(data)
    elif name == "job":
        what, subject, rest = data["change"], data["jobId"], [f"revision {data['revision']}"]
    elif name == "leader":
        what, subject = "leader", data.get("nodeId") or "none"
        rest = [f"term {data['term']}"] if "term" in data else []
    elif name == "breaker":
        what, subject, rest = f"breaker {data['state']}", data["host"], [data.get("reason")]
    else:
        what, subject, rest = f"alert {data['state']}", data["jobId"], [data.get("kind"), data.get("detail")]
    text = "  ".join([f"{printable(what):<12}", printable(subject), *(printable(r) for r in rest if r)])
    return f"{clock}  {_coloured(text, what)}"


def _execution(data: dict[str, Any]) -> list[str | None]:
    attempt = data.get("attempt")
    status, duration = data.get("status"), data.get("duration")
    return [
        None if status is None else f"{status} in {duration}",
        data.get("error"),
        f"attempt {attempt}" if attempt and attempt > 1 else None,
        f"{data['driftMs']} ms late" if data.get("driftMs") is not None else None,
        f"{data['missedCount']} occurrence(s)" if data.get("missedCount", 1) > 1 else None,
        f"again at {data['nextAttemptAt'][11:19]}" if "nextAttemptAt" in data else None,
        data.get("reason"),
    ]


def _coloured(text: str, what: str) -> str:
    colour = COLOURS.get(what)
    if colour is None or os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    return click.style(text, fg=colour)
