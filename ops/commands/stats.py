"""`horae stats`: numbers over time, through the REST API."""

from __future__ import annotations

import click

from ops.support.client import Client
from ops.support.output import print_json, print_table


@click.command("stats")
@click.option("--from", "first", help="The beginning (RFC 3339). [default: an hour before the end]")
@click.option("--until", help="The end (RFC 3339). [default: now]")
@click.option("--step", help="Whole minutes, such as 5m, 1h or 1d. [default: chosen]")
@click.option("--by", type=click.Choice(["cluster", "host", "queue", "tag"]), default="cluster", show_default=True)
@click.option("--url", envvar="HORAE_URL", help="Address of the API. [default: HORAE_URL, or HOST and PORT]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def stats_command(
    first: str | None,
    until: str | None,
    step: str | None,
    by: str,
    url: str | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Show what was sent, how late and with what result, step by step."""
    query = {"from": first, "until": until, "step": step, "by": by}
    result = Client(url).call("GET", "/stats", query=query)
    if as_json:
        print_json(result)
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
    )
