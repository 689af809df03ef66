"""`horae alerts`: what is wrong with which job, and who is told; read from the database."""

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
    found = await incidents.page(db, [True], MOST)
    return found, await channels.list_all(db), await meta.default_rules_spec(db), now


@click.command("alerts")
@click.option("--json", "form", is_flag=True, help="Print JSON.")
def alerts_command(*, form: bool) -> None:
    """Open incidents, channels, and the rules of jobs without rules of their own. Exit status 1 if anything is wrong."""
    found, known, default, now = read_database(_read)
    if form:
        print_json(
            {
                "open": [_shown(i) for i in found],
                "channels": [{"name": c.name, "type": c.kind} for c in known],
                "default": None if default is None else default.model_dump(by_alias=True),
            }
        )
    else:
        print_table(
            "Open incidents",
            ["job", "kind", "since", "detail", "execution"],
            [
                (i.job_id, i.kind.value, duration((now - i.opened_ms) / 1000), i.detail, i.execution or "-")
                for i in found
            ],
        )
        names = ", ".join(f"{c.name} ({c.kind})" for c in known) or "none; make one with PUT /channels/{name}"
        click.echo(f"Channels: {names}")
        rules = "none" if default is None else f"told on {', '.join(default.channels) or 'no channel'}"
        click.echo(f"Jobs without rules of their own: {rules}")
    if found:
        sys.exit(1)


def _shown(i: Incident) -> dict[str, Any]:
    return {
        "jobId": i.job_id,
        "kind": i.kind.value,
        "detail": i.detail,
        "executionId": i.execution,
        "openedAt": rfc3339(i.opened_ms),
        "lastSeenAt": rfc3339(i.last_symptom_ms),
    }
