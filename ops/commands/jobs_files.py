"""`horae jobs export` and `apply`: everything that is defined, as a file; and what a file says, made so."""

from __future__ import annotations

import sys
from http import HTTPStatus
from pathlib import Path
from typing import Any

import click
import orjson

from ops.commands.jobs_apply import ApplyPlan, check_jobs, export_line, make_plan, plan_lines, read_values
from ops.commands.objects_apply import (
    apply_objects,
    existing_objects,
    objects_lines,
    plan_objects,
    split,
    wanted_and_stored,
)
from ops.support.client import Client, Refused, job_path
from ops.support.secret_places import missing, require_secrets, with_values

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("export")
@click.option("--tag", help="Only jobs with this tag, and nothing else.")
@click.option("--jobs-only", is_flag=True, help="Only jobs, for `import`.")
@click.pass_context
def export_command(context: click.Context, tag: str | None, jobs_only: bool) -> None:  # noqa: FBT001
    """Print everything that is defined as NDJSON for `apply`: queues, channels, calendars, windows, alert rules, jobs.

    Only the fields that differ from the defaults. A secret is a placeholder, which `apply` keeps or asks for.
    """
    client: Client = context.obj()
    for value in [] if tag is not None or jobs_only else existing_objects(client):
        click.echo(orjson.dumps(value))
    for job in sorted(client.jobs(tag=tag), key=lambda j: str(j["jobId"])):
        click.echo(export_line(job))


@click.command("apply")
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option(
    "--secrets",
    type=FILE,
    help='File with the values of secrets: an object a line, such as {"jobId": "a", "signingSecret": "..."}.',
)
@click.option("--tag", help="Compare and delete only jobs with this tag.")
@click.option("--prune", is_flag=True, help="Delete jobs that are not in the files.")
@click.option("--dry-run", is_flag=True, help="Show the changes and make none. Exit status 1 if there are changes.")
@click.option("--yes", is_flag=True, help="Delete without asking. Needed without a terminal, or for more than half.")
@click.option("--allow-empty", is_flag=True, help="Accept files that contain no job.")
@click.pass_context
def apply_command(
    context: click.Context, /, files: tuple[Path, ...], secrets: Path | None, tag: str | None, **flags: bool
) -> None:
    """Create, change and (with --prune) delete jobs so that they match FILES (JSON or NDJSON). Shows the changes first.

    Other objects of an export are created and changed too, never deleted. A placeholder keeps the secret that is stored;
    if one has none, nothing is changed, and all of them are named.
    """
    values, objects = split(read_values(files))
    wanted = check_jobs(values)
    if secrets is not None:
        known = read_values([secrets])
        wanted, objects = with_values(wanted, known), with_values(objects, known)
    # Files of other objects alone are no set of jobs: with --prune they would delete every job.
    if not wanted and (flags["prune"] or not objects) and not flags["allow_empty"]:
        raise click.UsageError("the files contain no job: check them, or add --allow-empty if that is what you want")
    _require_tag(wanted, tag)
    client: Client = context.obj()
    existing = {j["jobId"]: j for j in client.jobs(tag=tag)}
    changes = make_plan(wanted, existing, prune=flags["prune"])
    present = existing_objects(client) if objects else []
    others = plan_objects(objects, present)
    for text in (*objects_lines(others), *plan_lines(changes)):
        click.echo(text)
    if objects:
        click.echo(
            f"{len(others.create)} other objects to create, {len(others.change)} to change, "
            f"{others.unchanged + len(others.compared)} unchanged"
        )
    counts = f"{len(changes.create)} to create, {len(changes.change)} to change, {len(changes.delete)} to delete"
    click.echo(f"{counts}, {len(changes.unchanged) + len(changes.compared)} unchanged")
    stored = [(job, existing.get(job["jobId"]) or _stored(client, job, tag)) for job in wanted]
    require_secrets([*wanted_and_stored(objects, present), *stored])
    if flags["dry_run"]:
        sys.exit(0 if changes.empty and others.empty else 1)
    if changes.delete and not flags["yes"]:
        _confirm(changes, len(existing))
    apply_objects(client, others)
    compared = {job["jobId"] for job in changes.compared}
    for job in changes.to_put:
        done = client.call("PUT", job_path(job["jobId"]), job)
        if job["jobId"] in compared and done["revision"] != existing[job["jobId"]]["revision"]:
            click.echo(f"~ {job['jobId']}  secrets changed")
    for name in changes.delete:
        client.call("DELETE", job_path(name))


def _require_tag(wanted: list[dict[str, Any]], tag: str | None) -> None:
    untagged = [] if tag is None else [j["jobId"] for j in wanted if tag not in (j.get("tags") or [])]
    if untagged:
        raise click.UsageError(f"--tag {tag}: these jobs of the files do not have the tag: {', '.join(untagged[:10])}")


def _stored(client: Client, job: dict[str, Any], tag: str | None) -> dict[str, Any] | None:
    """The job as it is stored, if it keeps secrets and was passed over because it has not yet the tag of this set."""
    if tag is None or not missing(job, None):
        return None
    try:
        return client.job(job_path(job["jobId"]))
    except Refused as exc:
        if exc.status != HTTPStatus.NOT_FOUND:
            raise
        return None


def is_asked() -> bool:
    """Whether somebody sits at a terminal and can answer."""
    return sys.stdin.isatty()


def _confirm(changes: ApplyPlan, existing: int) -> None:
    """Ask before jobs are deleted. Raises `UsageError` where nobody can be asked, and for more than half of the jobs."""
    count = len(changes.delete)
    if count * 2 > existing:
        raise click.UsageError(f"this would delete {count} of {existing} jobs: check the files, then add --yes")
    if not is_asked():
        raise click.UsageError(f"this would delete {count} job(s), and there is no terminal to ask: add --yes")
    click.confirm(f"Delete {count} job(s)?", abort=True)
