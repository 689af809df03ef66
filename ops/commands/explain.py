"""`horae explain`: why a job did or did not run, or where a message is. It reads the database, so no node need run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from api.resources.explain import explanation_json, message_explanation_json
from cluster.core import instants
from cluster.core.errors import NotFound
from cluster.core.ids import MESSAGE_ID
from cluster.store import nodes
from cluster.usecases import explain_messages
from cluster.usecases.explain import explain_job
from config.settings import load_settings
from ops.commands.completion import complete_jobs
from ops.commands.status import read_database
from ops.support.output import print_json

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

DAY_MS = 86_400_000
AGO = re.compile(r"-?(\d{1,7})([smhd])\Z")
CLOCK = re.compile(r"(\d\d):(\d\d)(?::(\d\d))?\Z")
WITHOUT_OFFSET = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d(?:\.\d{1,3})?)?)\Z")
UNITS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": DAY_MS}
NOT_WELL_STATES = (
    "notDue",
    "failed",
    "dead",
    "missed",
    "skipped",
    "cancelled",
    "unknown",
    "expired",
    "paused",
    "deleted",
    "absent",
)
"""States with exit status 1: the job did not run, or not successfully."""


def parse_moment(text: str, now_ms: int) -> int:
    """A time as people write it, in ms. UTC unless an offset is given. Raises `BadParameter`."""
    text = text.strip()
    if (ago := AGO.match(text)) is not None:
        return now_ms - int(ago[1]) * UNITS[ago[2]]
    if (
        (clock := CLOCK.match(text)) is not None
        and int(clock[1]) < 24
        and int(clock[2]) < 60
        and int(clock[3] or 0) < 60
    ):
        at = now_ms - now_ms % DAY_MS + int(clock[1]) * UNITS["h"] + int(clock[2]) * UNITS["m"]
        at += int(clock[3] or 0) * 1000
        return at if at <= now_ms else at - DAY_MS
    if (without_offset := WITHOUT_OFFSET.match(text)) is not None:
        text = f"{without_offset[1]}T{without_offset[2]}{':00' if without_offset[2].count(':') == 1 else ''}Z"
    try:
        return instants.parse_instant(text)
    except ValueError as exc:
        raise click.BadParameter(
            f"'{text}' {exc}; or 10m (10 minutes ago), 03:00 (most recent, UTC), 2026-12-01 03:00 (UTC)",
            param_hint="TIME",
        ) from exc


@click.command("explain")
@click.argument("job_id", metavar="JOB", shell_complete=complete_jobs)
@click.argument("at", metavar="[TIME]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain_command(job_id: str, at: str | None, as_json: bool) -> None:  # noqa: FBT001 - click passes options by name
    """Explain why JOB did or did not run at TIME; without TIME, its last run and its next one. JOB may also be the id of a
    message, without TIME: then where it is, what it waits for, or how it ended.

    TIME is a time such as 2026-12-01T10:00:00Z, 2026-12-01 10:00 or 10:00 (UTC), or 10m (10 minutes ago). Exit status 1
    if the job did not run successfully.
    """
    parse_moment(at or "1s", DAY_MS)  # refuse an invalid time before connecting
    settings = load_settings()
    retention_days = settings.retention_days
    message = MESSAGE_ID.match(job_id.partition(":")[0])  # its execution's id is as good
    if message is not None and at is not None:
        raise click.UsageError("a message is explained as it is now: leave TIME out")

    async def read(db: Database) -> dict[str, Any] | None:
        _, now_ms = await nodes.nodes_and_clock(db)
        try:
            if message is not None:
                lookahead_ms = int(settings.lookahead_seconds * 1000)
                found = await explain_messages.explain(db, message[0], now_ms, retention_days, lookahead_ms)
                return message_explanation_json(found)
            return explanation_json(
                await explain_job(db, job_id, None if at is None else parse_moment(at, now_ms), retention_days)
            )
        except NotFound as exc:
            click.echo(f"horae: {exc}", err=True)
            return None

    answer = read_database(read)
    if answer is None:
        raise SystemExit(1)
    if as_json:
        print_json(answer)
    else:
        _print(answer)
    first = answer["explanations"][-1 if len(answer["explanations"]) > 1 and at is not None else 0]
    raise SystemExit(1 if first["state"] in NOT_WELL_STATES else 0)


def _print(answer: dict[str, Any]) -> None:
    first = (
        f"{answer['jobId']} is {answer['jobState']}." if "jobId" in answer else f"{answer['messageId']} is a message."
    )
    click.echo(first)
    for e in answer["explanations"]:
        click.echo("")
        name = f"{e['executionId']}: " if e["executionId"] else ""
        click.secho(f"{name}{e['summary']}", bold=True)
        for fact in e["facts"]:
            click.echo(f"  {fact['at'] or 'now':<24}  {fact['text']}")
