"""`horae stats`: numbers over time, through the REST API."""

from __future__ import annotations

from typing import Any

import click

from ops.commands.completion import complete_jobs
from ops.support.client import Client
from ops.support.output import print_json, print_table


@click.command("stats")
@click.option("--from", "first", help="The beginning (RFC 3339). [default: an hour before the end]")
@click.option("--until", help="The end (RFC 3339). [default: now]")
@click.option("--step", help="Whole minutes, such as 5m, 1h or 1d. [default: chosen]")
@click.option("--by", type=click.Choice(["cluster", "host", "queue", "tag"]), default="cluster", show_default=True)
@click.option("--job", shell_complete=complete_jobs, help="Show one job, from its history.")
@click.option("--parts", is_flag=True, help="Show where lateness came from (means of its parts).")
@click.option(
    "--url", envvar="HORAE_URL", help="Address of the API. [default: HORAE_URL, the profile in use, or HOST and PORT]"
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def stats_command(url: str | None, as_json: bool, parts: bool, by: str, **options: str | None) -> None:  # noqa: FBT001
    """Show what was sent, how late and with what result, step by step."""
    by = "job" if options["job"] else by
    query = {
        "from": options["first"],
        "until": options["until"],
        "step": options["step"],
        "by": by,
        "job": options["job"],
    }
    result = Client(url).call("GET", "/stats", query=query)
    if as_json:
        print_json(result)
        return
    if parts:
        _print_parts(result)
        return
    columns = ["at", "sent", "ok", "failed", "retried", "missed", "late p50", "late p99", "took p50", "took p99"]
    fields = ("sent", "succeeded", "failed", "retried", "missed")
    times = ("latenessP50Ms", "latenessP99Ms", "durationP50Ms", "durationP99Ms")
    named = [] if by == "cluster" else [by]
    rows = [
        (p["at"], *(p["name"] for _ in named), *(p[f] for f in fields), *(p[t] for t in times))
        for p in result["series"]
        if p["sent"] or p["missed"]
    ]
    print_table(
        f"{len(rows)} step(s) of {result['step']} s with requests; times in ms",
        [*columns[:1], *named, *columns[1:]],
        rows,
        fit=True,
        whole="--json",
    )


def _print_parts(result: dict[str, Any]) -> None:
    """The mean of each part of the lateness, of steps with first attempts."""
    columns = [
        "at",
        "name",
        "late p50",
        "late p99",
        "written late",
        "claimed late",
        "for a slot",
        "held back",
        "sending",
    ]
    fields = ("writtenMs", "claimedMs", "waitedMs", "heldBackMs", "sentMs")
    rows = [
        (p["at"], p.get("name"), p["latenessP50Ms"], p["latenessP99Ms"], *(p["latenessParts"][f] for f in fields))
        for p in result["series"]
        if p["latenessParts"]
    ]
    print_table(
        f"{len(rows)} step(s) of {result['step']} s with requests; means in ms, quantiles beside",
        columns,
        rows,
        fit=True,
        whole="--json",
    )
