"""`horae jobs`: define, look at and steer jobs through the REST API."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import click
import orjson

from ops.commands.jobs_apply import definition, make_plan, plan_lines, read_jobs
from ops.support.client import Client, Refused
from ops.support.output import print_json, print_table

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
        print_json(done)
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


@jobs_group.command("create")
@click.option("--id", "job_id", help="Its id; generated if left out.")
@click.option("--schedule", help="Cron with seconds first, @every 90s, @at 2026-12-01T10:00:00Z, ...")
@click.option("--to", "target", help="The URL that receives the POST.")
@click.option("--body", help="JSON, or any other text, which is sent as it is.")
@click.option("--set", "fields", multiple=True, help="Any other field, such as --set timezone=Europe/Berlin.")
@click.option("--file", type=click.File("rb"), help="One job as JSON (- is standard input); options add to it.")
@JSON
@click.pass_context
def create_command(context: click.Context, /, form: bool, **given: Any) -> None:  # noqa: FBT001
    """Create a job and print its id."""
    job: dict[str, Any] = {}
    if given["file"] is not None:
        try:
            job = orjson.loads(given["file"].read())
        except orjson.JSONDecodeError as exc:
            raise click.BadParameter(f"is not JSON: {exc}", param_hint="--file") from exc
        if not isinstance(job, dict):
            raise click.BadParameter("is not one JSON object", param_hint="--file")
    for option, name in (("job_id", "jobId"), ("schedule", "schedule"), ("target", "api")):
        if given[option] is not None:
            job[name] = given[option]
    if given["body"] is not None:
        job["body"] = _value(given["body"])
    for text in given["fields"]:
        name, separator, value = text.partition("=")
        if not separator:
            raise click.BadParameter(f"'{text}' is not field=value", param_hint="--set")
        job[name] = _value(value)
    # The same command again, after a time-out, must not make a second job.
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    made = _client(context).call("POST", "/jobs", job, headers=headers)
    if form:
        print_json(made)
    else:
        click.echo(made["jobId"])


def _value(text: str) -> Any:
    """JSON if it is, else the text."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _steering(name: str, text: str) -> None:
    @jobs_group.command(name, help=text)
    @click.argument("job_ids", nargs=-1, required=True, metavar="JOB...")
    @click.pass_context
    def command(context: click.Context, job_ids: tuple[str, ...]) -> None:
        client = _client(context)
        failed = False
        for job_id in job_ids:
            try:
                if name == "delete":
                    client.call("DELETE", _path(job_id))
                    click.echo(f"{job_id}: deleted")
                else:
                    done = client.call("POST", f"{_path(job_id)}/{name}")
                    click.echo(done["executionId"] if name == "trigger" else f"{job_id}: {done['state']}")
            except Refused as exc:
                click.echo(f"{job_id}: {exc.message}", err=True)
                failed = True
        sys.exit(1 if failed else 0)


_steering("pause", "Owe nothing from now on.")
_steering("resume", "Owe again from now on.")
_steering("trigger", "Run once, now; prints the execution's id.")
_steering("delete", "Delete; what is not yet sent is cancelled.")


@jobs_group.command("export")
@click.option("--tag", help="Only jobs with this tag.")
@click.pass_context
def export_command(context: click.Context, tag: str | None) -> None:
    """Every job as NDJSON, as `import` and `apply` read it: what differs from the defaults, without secrets."""
    found = sorted(_client(context).jobs(tag=tag), key=lambda j: str(j["jobId"]))
    for job in found:
        click.echo(orjson.dumps(definition(job)).decode())


@jobs_group.command("apply")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--tag", help="Manage only jobs with this tag: others are neither compared nor pruned.")
@click.option("--prune", is_flag=True, help="Delete the jobs that the files do not name.")
@click.option("--dry-run", is_flag=True, help="Only show what would change; exit 1 if something would.")
@click.option("--yes", is_flag=True, help="Do not ask before deleting.")
@click.pass_context
def apply_command(context: click.Context, /, files: tuple[Path, ...], tag: str | None, **flags: bool) -> None:
    """Make the jobs as FILES say (JSON or NDJSON): shows what will change, then changes that and nothing else."""
    wanted = read_jobs(files)
    if tag is not None:
        untagged = [j["jobId"] for j in wanted if tag not in (j.get("tags") or [])]
        if untagged:
            raise click.UsageError(f"--tag {tag}: these jobs do not have that tag: {', '.join(untagged[:10])}")
    client = _client(context)
    made = make_plan(wanted, {j["jobId"]: j for j in client.jobs(tag=tag)}, prune=flags["prune"])
    for text in plan_lines(made):
        click.echo(text)
    counts = f"{len(made.create)} to create, {len(made.change)} to change, {len(made.delete)} to delete"
    click.echo(f"{counts}, {len(made.unchanged)} as they should be")
    if flags["dry_run"]:
        sys.exit(0 if made.empty else 1)
    if made.delete and not flags["yes"] and sys.stdin.isatty():
        click.confirm(f"Delete {len(made.delete)} job(s)?", abort=True)
    for job in (*made.create, *(job for job, _ in made.change)):
        client.call("PUT", _path(job["jobId"]), job)
    for name in made.delete:
        client.call("DELETE", _path(name))


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
        print_json(list(found))
        return
    rows = [(j["jobId"], j["name"], j["state"], j["schedule"], j["timezone"], j["api"]) for j in found]
    print_table(f"{len(rows)} job(s)", ["job", "name", "state", "schedule", "time zone", "api"], rows)


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
        print_json({**job, "executions": runs})
        return
    for name in ("jobId", "name", "state", "schedule", "timezone", "api", "tags", "createdAt", "revision"):
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
    )
