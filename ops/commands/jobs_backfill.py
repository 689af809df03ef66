"""`horae jobs backfill`: run a job for a time that has passed."""

from __future__ import annotations

import sys
import time
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from ops.commands.completion import complete_jobs
from ops.support.output import print_json

if TYPE_CHECKING:
    from ops.support.client import Client

POLL_SECONDS = 0.5


@click.command("backfill")
@click.argument("job_id", shell_complete=complete_jobs)
@click.option("--from", "from_", help="The first occurrence is at or after this time (RFC 3339).")
@click.option("--until", help="Occurrences before this time; not in the future.")
@click.option("--again", is_flag=True, help="Also send what has run. Needed for times whose results may have expired.")
@click.option("--max-per-second", type=click.FloatRange(0.1, 1000), help="At most so many. [default: 50]")
@click.option("--dry-run", is_flag=True, help="Only say what would be sent.")
@click.option("--yes", is_flag=True, help="Do not ask. Needed without a terminal.")
@click.option("--no-wait", is_flag=True, help="Print the id of the backfill, and do not wait for its end.")
@click.option("--list", "show", is_flag=True, help="List the backfills of the job.")
@click.option("--stop", metavar="BACKFILL", help="Stop this backfill: what it has begun is sent.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def backfill_command(context: click.Context, /, job_id: str, show: bool, stop: str | None, **options: Any) -> None:  # noqa: FBT001
    """Run a job for a time that has passed, the oldest occurrence first, behind current work.

    What has a final result already is left out, unless --again is given. It is counted and asked first.
    """
    client: Client = context.obj()
    path = f"/jobs/{quote(job_id, safe='')}/backfill"
    if show or stop is not None:
        if stop is not None:
            client.call("DELETE", f"{path}/{quote(stop, safe='')}")
        _print_list(client.call("GET", path)["items"], as_json=options["as_json"])
        return
    asked = {"from": options["from_"], "until": options["until"], "again": options["again"]}
    if asked["from"] is None or asked["until"] is None:
        raise click.UsageError("name the time: --from and --until")
    if options["max_per_second"] is not None:
        asked["maxPerSecond"] = options["max_per_second"]
    found = client.call("POST", path, {**asked, "dryRun": True})
    if options["dry_run"] and options["as_json"]:
        print_json(found)
        return
    _print_preview(found)
    if options["dry_run"] or not found["toSend"]:
        return
    if not options["yes"]:
        if not sys.stdin.isatty():
            raise click.UsageError(
                f"this would send {found['toSend']} request(s), and there is no terminal to ask: add --yes"
            )
        click.confirm(f"Send {found['toSend']} request(s)?", abort=True)
    # The same command again, after a time-out, must not begin it twice.
    begun = client.call("POST", path, asked, headers={"Idempotency-Key": uuid.uuid4().hex})
    if options["no_wait"]:
        click.echo(begun["backfillId"])
        return
    sys.exit(_follow(client, f"{path}/{begun['backfillId']}", as_json=options["as_json"]))


def _print_preview(found: dict[str, Any]) -> None:
    span = "" if found["first"] is None else f", from {found['first']} to {found['last']}"
    click.echo(f"{found['count']} occurrence(s){span}; {found['alreadyRun']} have run; {found['toSend']} to send")
    for remark in found["remarks"]:
        click.echo(f"- {remark}")


def _follow(client: Client, path: str, *, as_json: bool) -> int:
    """Wait until all of it is owed. Returns the exit status: 1 if it was stopped."""
    while (b := client.call("GET", path))["state"] == "running":
        if sys.stderr.isatty():
            click.echo(f"\r{b['sent'] + b['alreadyRun']}/{b['count']}", err=True, nl=False)
        time.sleep(POLL_SECONDS)
    if as_json:
        print_json(b)
    else:
        why = f" ({b['reason']})" if b["reason"] else ""
        click.echo(f"backfill {b['state']}{why}: {b['sent']} sent, {b['alreadyRun']} had run, {b['unknown']} not known")
    return 0 if b["state"] == "done" else 1


def _print_list(items: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(items)
        return
    for b in items:
        click.echo(f"{b['backfillId']}  {b['from']} to {b['until']}  {b['state']}  {_progress(b)}")


def _progress(b: dict[str, Any]) -> str:
    """How far it is: what has run before is not sent, and counts too."""
    not_known = f", {b['unknown']} not known" if b["unknown"] else ""
    return f"{b['sent']} sent, {b['alreadyRun']} had run{not_known}, of {b['count']}"
