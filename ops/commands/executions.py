"""`horae executions` (uses the REST API) and `horae backlog` (reads the database)."""

from __future__ import annotations

import sys
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from cluster.store import backfills, batches, nodes
from ops.commands.completion import complete_jobs
from ops.commands.jobs_control import OVERLAP, tell_overlap
from ops.commands.status import read_database
from ops.support.client import Client, Refused
from ops.support.formats import Listing, listing_options
from ops.support.output import duration, print_json, print_table, printable, rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster.store.batches import Backlog
    from cluster.store.mongo.client import Database

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
LATE_MS = 15_000
PAGE = 500


@click.group("executions")
@click.option(
    "--url", envvar="HORAE_URL", help="Address of the API. [default: HORAE_URL, the profile in use, or HOST and PORT]"
)
@click.pass_context
def executions_group(context: click.Context, url: str | None) -> None:
    """List, show and replay executions through the REST API. The API key: HORAE_API_KEY, or `horae config`."""
    context.obj = lambda: Client(url)


def _client(context: click.Context) -> Client:
    client: Client = context.obj()
    return client


@executions_group.command("list")
@click.option("--job", shell_complete=complete_jobs, help="Only executions of this job, latest due first.")
@click.option("--state", help="Only in these states, such as failed,dead.")
@click.option(
    "--since",
    help="Only executions that ended (unfinished ones: are due) at or after this RFC 3339 time; not with --job.",
)
@click.option("--until", "before", help="Only executions before this time.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="How many to list.")
@listing_options
@click.pass_context
def list_command(context: click.Context, /, limit: int, listing: Listing, **options: str | None) -> None:
    """List executions with their results: unfinished ones first, then finished ones, latest first."""
    try:
        executions = _list(_client(context), limit, options)
    except Refused as exc:
        if exc.status == 422:  # an unknown state or an invalid time
            raise click.UsageError(exc.message) from exc
        raise
    names = {"execution": "executionId", "scheduled": "scheduledAt", "state": "state", "status": "status"}
    more = {"attempt": "attempt", "late ms": "driftMs", "node": "node"}
    listing.show(
        executions,
        title=f"{len(executions)} execution(s)",
        name="executionId",
        columns={title: itemgetter(field) for title, field in {**names, **more}.items()}
        | {"error or reason": lambda r: r.get("reason") or r["error"]},
        wide={"sent": itemgetter("timestamp"), "took": itemgetter("duration")},
    )


def _list(client: Client, limit: int, options: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """At most `limit` executions, read page by page. Raises `Refused`."""
    executions: list[dict[str, Any]] = []
    if options["job"] is not None:
        if options["since"] is not None:
            raise click.UsageError("--since cannot be used with --job; use --until and --limit")
        path, before = f"/jobs/{quote(options['job'], safe='')}/executions", options["before"]
        while len(executions) < limit:
            size = min(PAGE, limit - len(executions))
            runs = client.call("GET", path, query={"state": options["state"], "before": before, "limit": size})
            executions += runs
            if len(runs) < size:
                break
            before = runs[-1]["executionId"]
    else:
        query = {"state": options["state"], "since": options["since"], "until": options["before"]}
        cursor = None
        while len(executions) < limit:
            size = min(PAGE, limit - len(executions))
            page = client.call("GET", "/executions", query={**query, "limit": size, "cursor": cursor})
            executions += page["items"]
            cursor = page["nextCursor"]
            if cursor is None:
                break
    return executions


@executions_group.command("show")
@click.argument("execution_id", metavar="EXECUTION")
@listing_options
@click.pass_context
def show_command(context: click.Context, execution_id: str, listing: Listing) -> None:
    """Show one execution with all its attempts. `horae explain` describes it in sentences."""
    run: dict[str, Any] = _client(context).call("GET", "/executions/" + quote(execution_id, safe=""))
    if listing.show_one(run, name="executionId"):
        return
    for name in ("executionId", "jobId", "state", "reason", "scheduledAt", "sendAt", "endedAt", "driftMs", "node"):
        if run.get(name) is not None:
            click.echo(f"{name:>12}  {printable(run[name])}")
    print_table(
        f"{len(run['attempts'])} attempt(s)",
        ["attempt", "sent", "took ms", "status", "error", "node", "token"],
        [
            (a["attempt"], a["sentAt"], a["durationMs"], a["status"], a["detail"] or a["error"], a["node"], a["token"])
            for a in run["attempts"]
        ],
    )


@executions_group.command("retry")
@click.argument("execution_ids", nargs=-1, required=True, metavar="EXECUTION...")
@OVERLAP
@click.pass_context
def retry_command(context: click.Context, execution_ids: tuple[str, ...], overlap: str) -> None:
    """Replay failed, dead or cancelled executions: send them again under their ids. Exit status 1 if one was refused."""
    client = _client(context)
    failed = False
    for name in execution_ids:
        try:
            waits = "?overlap=wait" if overlap == "wait" else ""
            result = client.call("POST", f"/executions/{quote(name, safe='')}/retry{waits}")
            click.echo(f"{name}: will be sent again")
            tell_overlap(name, result or {})
        except Refused as exc:
            click.echo(f"{name}: {exc.message}", err=True)
            failed = True
    sys.exit(1 if failed else 0)


@click.command("backlog")
@JSON
def backlog_command(as_json: bool) -> None:  # noqa: FBT001
    """Show the executions that are due and not claimed by a node. Exit status 1 if the oldest has waited for over 15 s."""

    async def read(db: Database) -> tuple[Backlog, int, int]:
        _, now = await nodes.nodes_and_clock(db)
        return await batches.backlog(db), await backfills.count_open(db), now

    waiting, ranges, now = read_database(read)
    age = None if waiting.oldest_ms is None else max(0, now - waiting.oldest_ms)
    if as_json:
        print_json(
            {
                "ready": waiting.ready,
                "leased": waiting.leased,
                "late": waiting.late,
                "heldBack": waiting.held_back,
                "oldestDueAt": rfc3339(waiting.oldest_ms),
                "oldestAgeMs": age,
                "rangesToCatchUp": ranges,
            }
        )
    else:
        oldest = "none waits" if age is None else f"the oldest has waited {duration(age / 1000)}"
        click.echo(
            f"{waiting.ready} executions are due and not claimed ({oldest}), {waiting.leased} are claimed by nodes."
        )
        if waiting.held_back:
            held_back = f"{waiting.held_back} of those that are due are held back"
            click.echo(f"{held_back}: by an open circuit breaker, a slow host, a limit, a pause or a window.")
        click.echo(f"{waiting.late} executions are late work. {ranges} time range(s) are still to be caught up.")
    sys.exit(1 if age is not None and age > LATE_MS else 0)
