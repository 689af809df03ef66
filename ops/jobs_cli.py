"""`horae jobs`: define, look at and steer jobs through the REST API."""

from __future__ import annotations

import sys
from typing import IO, Any
from urllib.parse import quote

import click

from ops.client import Client
from ops.tables import as_json, table

NDJSON = "application/x-ndjson"
JSON = click.option("--json", "form", is_flag=True, help="Print JSON.")


@click.group("jobs")
@click.option("--url", envvar="HORAE_URL", help="Where the API is (HORAE_URL; else HOST and PORT).")
@click.pass_context
def jobs_group(context: click.Context, url: str | None) -> None:
    """Jobs, through the REST API. A key is taken from HORAE_API_KEY."""
    context.obj = lambda: Client(url)


def _client(context: click.Context) -> Client:
    client: Client = context.obj()
    return client


def _path(job_id: str) -> str:
    return "/jobs/" + quote(job_id, safe="")


@jobs_group.command("import")
@click.argument("file", type=click.File("rb"))
@JSON
@click.pass_context
def import_command(context: click.Context, file: IO[bytes], form: bool) -> None:  # noqa: FBT001
    """Create or replace one job for each line of FILE (NDJSON; - is standard input). Exit 1 if lines were bad."""
    done = _client(context).upload("/jobs/import", file, NDJSON)
    if form:
        as_json(done)
    else:
        counts = ", ".join(f"{done[name]} {name}" for name in ("created", "updated", "unchanged", "failed"))
        click.echo(counts)
        for bad in done["errors"]:
            name = f" ({bad['jobId']})" if bad["jobId"] else ""
            for e in bad["errors"]:
                click.echo(f"line {bad['line']}{name}: {e['path'] or '(the whole line)'}: {e['message']}", err=True)
        if done["errorsNotShown"]:
            click.echo(f"... and {done['errorsNotShown']} more bad lines", err=True)
    sys.exit(1 if done["failed"] else 0)


@jobs_group.command("list")
@click.option("--state", help="active, paused, completed, or several with commas.")
@click.option("--tag", help="Only jobs with this tag.")
@click.option("--search", "text", help="Only jobs with this text in their name.")
@JSON
@click.pass_context
def list_command(context: click.Context, state: str | None, tag: str | None, text: str | None, form: bool) -> None:  # noqa: FBT001
    """Every job, the newest first."""
    found = _client(context).jobs(state=state, tag=tag, q=text)
    if form:
        as_json(list(found))
        return
    rows = [(j["jobId"], j["name"], j["state"], j["schedule"], j["timezone"], j["api"]) for j in found]
    table(f"{len(rows)} job(s)", ["job", "name", "state", "schedule", "time zone", "api"], rows)


@jobs_group.command("show")
@click.argument("job_id")
@click.option("--executions", "count", default=5, show_default=True, type=click.IntRange(1, 500))
@JSON
@click.pass_context
def show_command(context: click.Context, job_id: str, count: int, form: bool) -> None:  # noqa: FBT001
    """One job, what comes next, and what became of its last executions."""
    client = _client(context)
    job: dict[str, Any] = client.call("GET", _path(job_id))
    runs: list[dict[str, Any]] = client.call("GET", _path(job_id) + "/executions", query={"limit": count})
    if form:
        as_json({**job, "executions": runs})
        return
    for name in ("jobId", "name", "state", "schedule", "timezone", "api", "tags", "createdAt", "revision"):
        if job[name] not in (None, []):
            click.echo(f"{name:>12}  {', '.join(job[name]) if isinstance(job[name], list) else job[name]}")
    click.echo(f"{'next':>12}  {', '.join(job['nextRuns']) or 'never'}")
    table(
        f"{len(runs)} execution(s)",
        ["scheduled", "sent", "state", "status", "took", "attempt", "late ms", "error or reason"],
        [
            (
                r["scheduledAt"],
                r["timestamp"],
                r["state"],
                r["status"],
                r["duration"],
                r["attempt"],
                r["driftMs"],
                r["error"] or r.get("reason"),
            )
            for r in runs
        ],
    )
