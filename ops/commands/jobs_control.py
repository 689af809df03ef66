"""`horae jobs pause`, `resume`, `trigger` and `delete`: jobs by their ids, or all that match a filter."""

from __future__ import annotations

import sys
import time
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from cluster.core.documents.base import to_camel
from ops.commands.completion import complete_jobs
from ops.support.client import Refused
from ops.support.output import print_json, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ops.support.client import Client

POLL_SECONDS = 0.5
COMMANDS = {
    "pause": "Pause jobs: nothing is sent until they are resumed; retries wait until then.",
    "resume": "Resume paused jobs. Occurrences during the pause are not caught up.",
    "trigger": "Run jobs once, now, and print the ids of the executions.",
    "delete": "Delete jobs. Executions that have not ended are cancelled, retries included.",
}
BY_FILTER = " Instead of ids, options name the jobs: they are counted and shown first, and changed in the background by the leader."
FILTER_OPTIONS = (
    click.option("--tag", multiple=True, help="All jobs with this tag; several: with all of them."),
    click.option("--any-tag", multiple=True, help="All jobs with at least one of these tags."),
    click.option("--state", help="Only jobs in these states: active, paused, completed; separate several by commas."),
    click.option("--search", "q", help="All jobs that have all of these words, or words that begin with them."),
    click.option("--host", help="All jobs whose target has this host."),
    click.option("--schedule", help="All jobs with this schedule, in any time zone."),
    click.option("--failing/--not-failing", default=None, help="Jobs whose last execution failed, or only others."),
    click.option("--due-before", "next_run_before", help="Jobs that are due next before this time (RFC 3339)."),
    click.option("--all", "every", is_flag=True, help="Every job."),
    click.option("--dry-run", is_flag=True, help="Only count the jobs and show the first ten."),
    click.option("--yes", is_flag=True, help="Do not ask. Needed without a terminal."),
    click.option("--max-per-second", type=click.FloatRange(1, 5000), help="At most so many. [default: 500]"),
    click.option("--no-wait", is_flag=True, help="Print the id of the action, and do not wait for its end."),
)
PAUSE_OPTIONS = (
    click.option("--until", help="When the jobs are resumed by themselves (RFC 3339). [default: not]"),
    click.option("--reason", help="Why, for people to read."),
)
OVERLAP = click.option(
    "--overlap",
    type=click.Choice(["skip", "wait"]),
    default="skip",
    help="Of jobs with `overlap: skip`, while another run has not ended: skip this one, or let it wait for the end.",
)


def add_control_commands(group: click.Group) -> None:
    """Add the commands that control jobs, and `actions`."""
    for name, text in COMMANDS.items():
        group.add_command(_control_command(name, text))
    group.add_command(actions_command)


def _control_command(name: str, text: str) -> click.Command:
    def command(context: click.Context, job_ids: tuple[str, ...], **options: Any) -> None:
        where = {to_camel(n): options.pop(n) for n in ("tag", "any_tag", "state", "q", "host", "schedule", "failing")}
        where["nextRunBefore"] = options.pop("next_run_before")
        where = {n: list(v) if isinstance(v, tuple) else v for n, v in where.items() if v not in (None, ())}
        if options.pop("every"):
            where["all"] = True
        terms = {n: v for n in ("until", "reason") if (v := options.pop(n, None)) is not None}
        overlap = options.pop("overlap", "skip")
        if (terms or overlap != "skip") and where:
            raise click.UsageError("--until, --reason and --overlap go with ids of jobs")
        if bool(job_ids) == bool(where):
            raise click.UsageError("name jobs by their ids, or all that match: --tag, --search ..., or --all")
        client: Client = context.obj()
        if where:
            sys.exit(_by_filter(client, name, where, **options))
        if options["dry_run"] or options["no_wait"]:
            raise click.UsageError("--dry-run and --no-wait go with --tag and the other filters")
        sys.exit(_one_by_one(client, name + "?overlap=wait" * (overlap == "wait"), job_ids, terms))

    decorated: Callable[..., None] = click.pass_context(command)
    own = {"pause": PAUSE_OPTIONS, "trigger": (OVERLAP,)}.get(name, ())
    for option in reversed((*own, *FILTER_OPTIONS)):
        decorated = option(decorated)
    decorated = click.argument("job_ids", nargs=-1, metavar="[JOB]...", shell_complete=complete_jobs)(decorated)
    return click.command(name, help=text + BY_FILTER)(decorated)


def _one_by_one(client: Client, name: str, job_ids: Sequence[str], terms: dict[str, str]) -> int:
    failed = 0
    for job_id in job_ids:
        path = "/jobs/" + quote(job_id, safe="")
        try:
            if name == "delete":
                client.call("DELETE", path)
                click.echo(f"{job_id}: deleted")
            else:
                result = client.call("POST", f"{path}/{name}", terms if name == "pause" else None)
                until = f" until {result['pausedUntil']}" if result.get("pausedUntil") else ""
                click.echo(result["executionId"] if "executionId" in result else f"{job_id}: {result['state']}{until}")
                tell_overlap(job_id, result)
        except Refused as exc:
            click.echo(f"{job_id}: {exc.message}", err=True)
            failed = 1
    return failed


def tell_overlap(name: str, result: dict[str, Any]) -> None:
    """Say that a run is skipped, or waits, because another one of its job has not ended."""
    if "running" in result:
        ends = "is sent when it has" if "?overlap=wait" not in result["note"] else "is skipped: --overlap wait waits"
        click.echo(f"{name}: execution {result['running']} has not ended, so that this run {ends}", err=True)


def _by_filter(client: Client, name: str, where: dict[str, Any], **options: Any) -> int:
    """Count and show the jobs, ask, begin, and wait for the end. Returns the exit status: 1 if a job failed."""
    asked = {"action": name, "filter": where}
    if options["max_per_second"] is not None:
        asked["maxPerSecond"] = options["max_per_second"]
    found = client.call("POST", "/jobs/actions", {**asked, "dryRun": True})
    for job in found["sample"]:
        click.echo(f"  {job['jobId']}  {printable(job['name'] or '')}  {job['state']}")
    if found["matched"] > len(found["sample"]):
        click.echo(f"  ... and {found['matched'] - len(found['sample'])} more")
    click.echo(f"{found['matched']} job(s) match")
    if options["dry_run"] or not found["matched"]:
        return 0
    if not options["yes"]:
        if not sys.stdin.isatty():
            raise click.UsageError(
                f"this would {name} {found['matched']} job(s), and there is no terminal to ask: add --yes"
            )
        click.confirm(f"{name.capitalize()} {found['matched']} job(s)?", abort=True)
    # The same command again, after a time-out, must not begin it twice.
    begun = client.call("POST", "/jobs/actions", asked, headers={"Idempotency-Key": uuid.uuid4().hex})
    if options["no_wait"]:
        click.echo(begun["actionId"])
        return 0
    return _follow(client, begun["actionId"])


def _follow(client: Client, action_id: str) -> int:
    """Wait for the end of an action and print what became of its jobs."""
    while (action := client.call("GET", f"/jobs/actions/{action_id}"))["state"] == "running":
        if sys.stderr.isatty():
            click.echo(
                f"\r{action['done'] + action['leftOut'] + action['failed']}/{action['matched']}", err=True, nl=False
            )
        time.sleep(POLL_SECONDS)
    if sys.stderr.isatty():
        click.echo("\r", err=True, nl=False)
    return _print_action(action)


def _print_action(action: dict[str, Any]) -> int:
    click.echo(
        f"{action['action']} {action['state']}: {action['done']} of {action['matched']} job(s), {action['failed']} failed, "
        f"{action['leftOut']} did not match any more"
    )
    for failure in action["failures"]:
        click.echo(f"{failure['jobId']}: {printable(failure['reason'])}", err=True)
    if action["failuresNotShown"]:
        click.echo(f"... and {action['failuresNotShown']} more that failed", err=True)
    return 1 if action["failed"] else 0


@click.command("actions")
@click.argument("action_id", required=False)
@click.option("--stop", is_flag=True, help="Stop the action: what it has changed stays so.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def actions_command(context: click.Context, action_id: str | None, *, stop: bool, as_json: bool) -> None:
    """List the actions on many jobs; or show one of them, or stop it."""
    client: Client = context.obj()
    if action_id is None:
        if stop:
            raise click.UsageError("--stop needs the id of an action")
        page = client.call("GET", "/jobs/actions")
        if as_json:
            print_json(page["items"])
            return
        for a in page["items"]:
            progress = f"{a['done']}/{a['matched']} done, {a['failed']} failed"
            click.echo(f"{a['actionId']}  {a['createdAt']}  {a['action']}  {a['state']}  {progress}")
        return
    path = "/jobs/actions/" + quote(action_id, safe="")
    if stop:
        client.call("DELETE", path)
    action = client.call("GET", path)
    if as_json:
        print_json(action)
    else:
        sys.exit(_print_action(action))
