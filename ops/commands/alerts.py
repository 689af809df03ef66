"""`horae alerts`: open incidents, channels and default alert rules, read from the database."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from cluster.store import channels, incidents, meta, nodes
from ops.commands.status import read_database
from ops.support.output import duration, print_json, print_table, rfc3339

if TYPE_CHECKING:
    from cluster.core.alerts import Incident
    from cluster.core.documents.alerts import AlertSpec
    from cluster.store.channels import Channel
    from cluster.store.mongo.client import Database

MOST = 500


async def _read(db: Database) -> tuple[list[Incident], list[Channel], AlertSpec | None, int]:
    _, now = await nodes.nodes_and_clock(db)
    open_incidents = await incidents.page(db, [True], MOST)
    return open_incidents, await channels.list_all(db), await meta.default_rules_spec(db), now


@click.command("alerts")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def alerts_command(*, as_json: bool) -> None:
    """Show open incidents, channels and the default alert rules. Exit status 1 if an incident is open."""
    open_incidents, all_channels, default, now = read_database(_read)
    if as_json:
        print_json(
            {
                "open": [_incident_json(i) for i in open_incidents],
                "channels": [{"name": c.name, "type": c.kind} for c in all_channels],
                "default": None if default is None else default.model_dump(by_alias=True),
            }
        )
    else:
        print_table(
            "Open incidents",
            ["job", "kind", "since", "detail", "execution"],
            [
                (i.job_id, i.kind.value, duration((now - i.opened_ms) / 1000), i.detail, i.execution or "-")
                for i in open_incidents
            ],
        )
        names = ", ".join(f"{c.name} ({c.kind})" for c in all_channels) or "none; create one with PUT /channels/{name}"
        click.echo(f"Channels: {names}")
        rules = "none" if default is None else f"alerts to {', '.join(default.channels) or 'no channel'}"
        click.echo(f"Default rules (for jobs without alert rules): {rules}")
    if open_incidents:
        sys.exit(1)


def _incident_json(i: Incident) -> dict[str, Any]:
    return {
        "jobId": i.job_id,
        "kind": i.kind.value,
        "detail": i.detail,
        "executionId": i.execution,
        "openedAt": rfc3339(i.opened_ms),
        "lastSeenAt": rfc3339(i.last_symptom_ms),
    }
