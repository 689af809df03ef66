"""`horae jobs`: create, list, change and control jobs through the REST API."""

from __future__ import annotations

import sys
import uuid
from itertools import islice
from operator import itemgetter
from typing import IO, Any

import click
import orjson

from cluster.core.documents import strict_json
from cluster.core.documents.base import to_camel
from cluster.core.documents.json_source import JsonText, keep_body
from cluster.core.errors import CallerError
from ops.commands.completion import complete_jobs
from ops.commands.jobs_backfill import backfill_command
from ops.commands.jobs_control import add_control_commands
from ops.support.client import Client, faults_named, job_path
from ops.support.formats import Listing, listing_options
from ops.support.output import print_json, print_table

NDJSON = "application/x-ndjson"
SORTS = ("createdAt", "lastRunAt", "name", "nextRunAt")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("jobs")
@click.option(
    "--url", envvar="HORAE_URL", help="Address of the API. [default: HORAE_URL, the profile in use, or HOST and PORT]"
)
@click.pass_context
def jobs_group(context: click.Context, url: str | None) -> None:
    """Create, list, change and control jobs through the REST API. The API key: HORAE_API_KEY, or `horae config`."""
    context.obj = lambda: Client(url)


def _client(context: click.Context) -> Client:
    client: Client = context.obj()
    return client


@jobs_group.command("import")
@click.argument("file", type=click.File("rb"))
@JSON
@click.pass_context
def import_command(context: click.Context, file: IO[bytes], as_json: bool) -> None:  # noqa: FBT001
    """Create or replace one job per line of FILE (NDJSON; - reads standard input). Exit status 1 if a line is invalid."""
    result = _client(context).upload("/jobs/import", file, NDJSON)
    if as_json:
        print_json(result)
    else:
        counts = ", ".join(f"{result[name]} {name}" for name in ("created", "updated", "unchanged", "failed"))
        click.echo(counts)
        for line in result["errors"]:
            name = f" ({line['jobId']})" if line["jobId"] else ""
            for e in line["errors"]:
                click.echo(f"line {line['line']}{name}: {e['path'] or '(whole line)'}: {e['message']}", err=True)
        if result["errorsNotShown"]:
            click.echo(f"... and {result['errorsNotShown']} more invalid lines", err=True)
    sys.exit(1 if result["failed"] else 0)


@jobs_group.command("create")
@click.option("--id", "job_id", help="Id of the job. [default: generated]")
@click.option("--schedule", help="Cron with seconds first, @every 90s, @at 2026-12-01T10:00:00Z, ...")
@click.option("--to", "target", help="The URL that receives the POST.")
@click.option("--body", help="Body of the request: JSON, or any other text, which is sent as it is.")
@click.option("--set", "fields", multiple=True, help="Another field of the job, such as --set timezone=Europe/Berlin.")
@click.option(
    "--file",
    type=click.File("rb"),
    help="File with the job as JSON (- reads standard input). Options override its fields.",
)
@JSON
@click.pass_context
def create_command(context: click.Context, /, as_json: bool, **options: Any) -> None:  # noqa: FBT001
    """Create a job and print its id."""
    job: dict[str, Any] = {}
    if options["file"] is not None:
        try:
            raw = options["file"].read()
            job = strict_json.loads(raw)
        except CallerError as exc:
            raise click.BadParameter(f"must contain JSON: {exc}", param_hint="--file") from exc
        if not isinstance(job, dict):
            raise click.BadParameter("must contain one JSON object", param_hint="--file")
        job = keep_body(raw, job)
    for option, name in (("job_id", "jobId"), ("schedule", "schedule"), ("target", "api")):
        if options[option] is not None:
            job[name] = options[option]
    if options["body"] is not None:
        job["body"] = _body(options["body"])
    for text in options["fields"]:
        name, separator, value = text.partition("=")
        if not separator:
            raise click.BadParameter(f"'{text}' must be field=value", param_hint="--set")
        job[name] = _body(value) if name == "body" else _value(value)
    # The same command again, after a time-out, must not make a second job.
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    named = {"api": "--to", "schedule": "--schedule", "body": "--body", "jobId": "--id"}
    with faults_named({} if options["file"] is not None else named):
        created = _client(context).call("POST", "/jobs", job, headers=headers)
    if as_json:
        print_json(created)
    else:
        click.echo(created["jobId"])


def _value(text: str) -> Any:
    """The text as JSON, or the text itself if it is not JSON."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _body(text: str) -> Any:
    """The body in an option: JSON with the bytes that were given, or the text itself if it is not JSON."""
    try:
        value = strict_json.loads(text.encode())
    except CallerError:
        return text
    return value if value is None or isinstance(value, str) else JsonText(text.strip().encode())


add_control_commands(jobs_group)
jobs_group.add_command(backfill_command)


@jobs_group.command("list")
@click.option("--state", help="Only in these states: active, paused, completed; separate several by commas.")
@click.option("--tag", multiple=True, help="Only jobs with this tag; several: with all of them.")
@click.option("--any-tag", multiple=True, help="Only jobs with at least one of these tags.")
@click.option("--search", "q", help="Only jobs that have all of these words, or words that begin with them.")
@click.option("--host", help="Only jobs whose target has this host.")
@click.option("--schedule", help="Only jobs with this schedule, in any time zone.")
@click.option("--failing/--not-failing", default=None, help="Only jobs whose last execution failed, or only others.")
@click.option("--due-before", "nextRunBefore", help="Only jobs that are due next before this time (RFC 3339).")
@click.option(
    "--sort",
    type=click.Choice([sign + name for name in SORTS for sign in ("", "-")]),
    default="-createdAt",
    show_default=True,
    metavar="ORDER",
    help=f"One of {', '.join(SORTS)}; a - before it reverses the order.",
)
@click.option("--limit", type=click.IntRange(1), help="At most so many. [default: all]")
@listing_options
@click.pass_context
def list_command(context: click.Context, /, listing: Listing, limit: int | None, **options: Any) -> None:
    """List and search jobs."""
    failing = options.pop("failing")
    query = {to_camel(name): value for name, value in options.items() if value not in (None, ())}
    if failing is not None:
        query["failing"] = "true" if failing else "false"
    jobs = list(islice(_client(context).jobs(**query), limit))
    names = {
        "job": "jobId",
        "name": "name",
        "state": "state",
        "schedule": "schedule",
        "time zone": "timezone",
        "next run": "nextRunAt",
        "last": "lastState",
        "api": "api",
    }
    more = {"paused until": "pausedUntil", "created": "createdAt", "changed": "updatedAt", "revision": "revision"}
    listing.show(
        jobs,
        title=f"{len(jobs)} job(s)",
        name="jobId",
        columns={title: itemgetter(field) for title, field in names.items()},
        wide={"tags": lambda j: ", ".join(j["tags"]), **{title: itemgetter(field) for title, field in more.items()}},
    )


@jobs_group.command("show")
@click.argument("job_id", shell_complete=complete_jobs)
@click.option(
    "--executions",
    "count",
    default=5,
    show_default=True,
    type=click.IntRange(1, 500),
    help="How many executions to show.",
)
@listing_options
@click.pass_context
def show_command(context: click.Context, job_id: str, count: int, listing: Listing) -> None:
    """Show one job, its next occurrences and its last executions."""
    client = _client(context)
    job = client.job(job_path(job_id))
    runs: list[dict[str, Any]] = client.call("GET", job_path(job_id) + "/executions", query={"limit": count})
    if listing.show_one({**job, "executions": runs}, name="jobId"):
        return
    for name in (
        "jobId",
        "name",
        "state",
        "pausedUntil",
        "pauseReason",
        "schedule",
        "timezone",
        "api",
        "tags",
        "createdAt",
        "revision",
    ):
        if job[name] not in (None, []):
            click.echo(f"{name:>12}  {', '.join(job[name]) if isinstance(job[name], list) else job[name]}")
    click.echo(f"{'next':>12}  {', '.join(job['nextRuns']) or 'never'}")
    print_table(
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
        fit=listing.output != "wide",
    )
