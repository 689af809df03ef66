"""`horae leases`, `nodes`, `leader`: leases, nodes and the leader, read from the database."""

from __future__ import annotations

import asyncio
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cluster.core import instants
from cluster.core.actor import set_actor
from cluster.store import batches, leases, nodes
from cluster.store.mongo.client import Database
from cluster.store.mongo.encryption import Keyring
from config.settings import load_settings
from ops.support.caller import command_actor
from ops.support.embedded_mongodb import database_uri
from ops.support.formats import Listing, listing_options
from ops.support.output import duration, print_json, print_table, rfc3339

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cluster.store.batches import LeasedBatch
    from cluster.store.leases import Leadership
    from cluster.store.nodes import NodeStatus

T = TypeVar("T")


def read_database(read: Callable[[Database], Awaitable[T]]) -> T:
    """Run `read` on the configured database, or on the embedded one if it is running."""
    settings = load_settings()
    uri = database_uri(Path(settings.data_dir), settings.uri)

    async def once() -> T:
        set_actor(command_actor())
        db = Database.open(uri, settings.db_name, "ops", Keyring(settings.secret_keys))
        try:
            return await read(db)
        finally:
            await db.close()

    return asyncio.run(once())


def _lease(leader: Leadership, now: int) -> dict[str, Any]:
    return {
        "nodeId": leader.node,
        "term": leader.term,
        "since": rfc3339(leader.since_ms),
        "renewed": rfc3339(leader.renewed_ms),
        "renewedAgoMs": None if leader.renewed_ms is None else now - leader.renewed_ms,
    }


def _batch(b: LeasedBatch, now: int) -> dict[str, Any]:
    return {
        "batch": b.id,
        "owner": b.owner,
        "token": b.token,
        "claims": b.claims,
        "ageMs": None if b.claimed_ms is None else now - b.claimed_ms,
        "expiresInMs": b.expires_ms - now,
        "executions": b.executions,
        "attempt": b.attempt + 1,
        "lane": b.lane,
        "late": b.late,
    }


def _node(n: NodeStatus, leader: str | None, now: int) -> dict[str, Any]:
    return {
        "nodeId": n.id,
        "host": n.host,
        "pid": n.pid,
        "version": n.version,
        "startedAt": rfc3339(n.started_ms),
        "seenAt": rfc3339(n.seen_ms),
        "silentMs": now - n.seen_ms,
        "clockOffsetMs": n.clock_offset_ms,
        "inFlight": n.in_flight,
        "waiting": n.waiting,
        "leading": n.leads(leader),
        "draining": n.draining,
    }


@click.group("leases", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def leases_command(context: click.Context, as_json: bool) -> None:  # noqa: FBT001 - click passes options by name
    """Show the leader and all leases of batches. Exit status 1 if there is no leader."""
    if context.invoked_subcommand is not None:
        return

    async def read(db: Database) -> tuple[Leadership, list[LeasedBatch], int]:
        (_, now) = await nodes.nodes_and_clock(db)
        return await leases.leadership(db), await batches.list_leased(db), now

    leader, leased, now = read_database(read)
    if as_json:
        print_json({"leader": _lease(leader, now), "batches": [_batch(b, now) for b in leased]})
    else:
        _print_leader(leader, now)
        print_table(
            f"{len(leased)} batch lease(s)",
            ["batch", "owner", "token", "claims", "age", "expires in", "executions", "attempt", "late"],
            [
                (
                    b.id[:12],
                    b.owner,
                    b.token,
                    b.claims,
                    None if b.claimed_ms is None else duration((now - b.claimed_ms) / 1000),
                    duration((b.expires_ms - now) / 1000),
                    b.executions,
                    b.attempt + 1,
                    "late" if b.late else "",
                )
                for b in leased
            ],
        )
    raise SystemExit(0 if leader.holder else 1)


def _print_leader(leader: Leadership, now: int) -> None:
    if leader.holder is None:
        click.echo(f"There is no leader (last term {leader.term}).")
        return
    since = (
        "?" if leader.since_ms is None else f"{rfc3339(leader.since_ms)} ({duration((now - leader.since_ms) / 1000)})"
    )
    renewed = "?" if leader.renewed_ms is None else duration((now - leader.renewed_ms) / 1000)
    click.echo(f"Leader {leader.node} in term {leader.term} since {since}, renewed {renewed} ago.")


@click.group("leader", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def leader_command(context: click.Context, as_json: bool) -> None:  # noqa: FBT001
    """Show the leader. Exit status 1 if there is none, or if it has not renewed its lease in time."""
    if context.invoked_subcommand is not None:
        return

    async def read(db: Database) -> tuple[Leadership, int]:
        (_, now) = await nodes.nodes_and_clock(db)
        return await leases.leadership(db), now

    leader, now = read_database(read)
    if as_json:
        print_json(_lease(leader, now))
    else:
        _print_leader(leader, now)
    fresh = leader.renewed_ms is not None and now - leader.renewed_ms < load_settings().leader_lease_seconds * 1000
    raise SystemExit(0 if leader.holder and fresh else 1)


@click.group("nodes", invoke_without_command=True)
@listing_options
@click.pass_context
def nodes_command(context: click.Context, listing: Listing) -> int | None:
    """List the nodes with their last heartbeats. Exit status 1 if a node is silent or there is none."""
    if context.invoked_subcommand is not None:
        return None

    async def read(db: Database) -> tuple[list[NodeStatus], Leadership, int]:
        listed, now = await nodes.nodes_and_clock(db)
        return listed, await leases.leadership(db), now

    listed, leader, now = read_database(read)
    listing.show(
        [_node(n, leader.node, now) for n in listed],
        title=f"{len(listed)} node(s)",
        name="nodeId",
        columns={
            "node": itemgetter("nodeId"),
            "host": itemgetter("host"),
            "pid": itemgetter("pid"),
            "version": itemgetter("version"),
            "up": lambda n: duration((now - _ms(n["startedAt"])) / 1000),
            "seen": lambda n: f"{duration(n['silentMs'] / 1000)} ago",
            "offset ms": itemgetter("clockOffsetMs"),
            "in flight": itemgetter("inFlight"),
            "waiting": itemgetter("waiting"),
            "role": _role,
        },
        wide={"started": itemgetter("startedAt")},
    )
    return 1 if not listed or any(n.is_silent(now) for n in listed) else 0


def _role(n: dict[str, Any]) -> str:
    # What a silent node said last is out of date.
    if n["silentMs"] >= nodes.SILENT_MS:
        return "silent"
    return "draining" if n["draining"] else "leader" if n["leading"] else ""


def _ms(time: str) -> int:
    return instants.parse_instant(time)
