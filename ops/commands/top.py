"""`horae top`: reads a snapshot of the cluster, which `ops/commands/top_view.py` renders."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from cluster.core.histogram import Histogram
from cluster.store import batches, breakers, leases, nodes
from cluster.store.mongo.client import Database
from cluster.store.queries import failing_hosts, jobs_and_executions
from config.settings import load_settings
from ops.commands.top_view import render, watch
from ops.support.embedded_mongodb import database_uri
from ops.support.output import print_json, rfc3339

if TYPE_CHECKING:
    from cluster.core.limits.circuit_breaker import Breaker
    from cluster.store.nodes import NodeStatus

FAILING_MS = 300_000
HOSTS = 10
PIPE_COLUMNS = 500


@click.command("top")
@click.option(
    "--interval", default=2.0, show_default=True, type=click.FloatRange(0.5, 60), help="Seconds between updates."
)
@click.option("--once", is_flag=True, help="Print the state once and exit.")
@click.option("--json", "as_json", is_flag=True, help="Print the state once, as JSON, and exit.")
def top_command(interval: float, once: bool, as_json: bool) -> None:  # noqa: FBT001 - click passes options by name
    """Show a live view of the cluster, until Ctrl-C. It continues while MongoDB is unavailable, and says so.

    With --once or --json, exit status 1 if there is no leader or a node is silent.
    """
    settings = load_settings()
    uri = database_uri(Path(settings.data_dir), settings.uri)
    lease_ms = int(settings.leader_lease_seconds * 1000)

    async def run() -> int:
        db = Database.open(uri, settings.db_name, "ops")
        try:
            if not (once or as_json):
                await watch(lambda: read_snapshot(db, lease_ms), interval, Console())
                return 0
            snapshot = await read_snapshot(db, lease_ms)
            if as_json:
                print_json(snapshot)
            else:
                console = Console()
                if not console.is_terminal:  # in a pipe or a file, a line may be as wide as it needs to be
                    console = Console(width=PIPE_COLUMNS)
                console.print(render(snapshot))
            return (
                0
                if snapshot["leader"]["sound"] and all(n["silentMs"] < nodes.SILENT_MS for n in snapshot["nodes"])
                else 1
            )
        finally:
            await db.close()

    try:
        sys.exit(asyncio.run(run()))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(0)


async def read_snapshot(db: Database, lease_ms: int) -> dict[str, Any]:
    """The snapshot, as `--json` prints it. A leader that has not renewed for `lease_ms` is not `sound`."""
    present, now = await nodes.nodes_and_clock(db)
    leader = await leases.leadership(db)
    waiting = await batches.backlog(db)
    since, counts = await jobs_and_executions.recent_counts(db, now)
    seconds = max(1.0, (now - since) / 1000)
    drift = Histogram()
    for n in present:
        drift.merge(n.counters.get("drift_recent", ()))
    renewed_ago = None if leader.node is None or leader.renewed_ms is None else max(0, now - leader.renewed_ms)
    failing = (await failing_hosts.failing_hosts(db, now - FAILING_MS))[:HOSTS]
    in_all, opened_first = await breakers.earliest_opened(db, HOSTS)
    not_closed = {b.host: b for b in (*await breakers.of_hosts(db, [h for h, *_ in failing]), *opened_first)}
    hosts = _hosts(failing, list(not_closed.values()))
    return {
        "at": rfc3339(now),
        "leader": {
            "nodeId": leader.node,
            "term": leader.term,
            "since": rfc3339(leader.since_ms),
            "renewedAgoMs": renewed_ago,
            "sound": renewed_ago is not None and renewed_ago < lease_ms,
        },
        "ratesPerSecond": {
            name: round(counts.get(name, 0) / seconds, 1)
            for name in ("attempts", "succeeded", "retried", "failed", "dead")
        },
        "driftMs": {"p50": drift.quantile(0.5), "p99": drift.quantile(0.99)},
        "backlog": {
            "ready": waiting.ready,
            "leased": waiting.leased,
            "late": waiting.late,
            "heldBack": waiting.held_back,
            "oldestAgeMs": None if waiting.oldest_ms is None else max(0, now - waiting.oldest_ms),
        },
        "nodes": [_node(n, now) for n in present],
        "failingHosts": hosts[:HOSTS],
        "failingHostsInAll": max(len(hosts), in_all),
    }


def _hosts(failing: list[tuple[str, int, int]], not_closed: list[Breaker]) -> list[dict[str, Any]]:
    """The hosts with most failures first, then other hosts with an open breaker."""
    reasons = {b.host: b.why for b in not_closed}
    failing_names = {h for h, *_ in failing}
    rows = [*failing, *((h, 0, 0) for h in reasons if h not in failing_names)]
    return [
        {"host": h, "endedBadly": lost, "waitForRetry": waits, "breaker": reasons.get(h)} for h, lost, waits in rows
    ]


def _node(n: NodeStatus, now: int) -> dict[str, Any]:
    silent = now - n.seen_ms
    # The last heartbeat of a silent node is out of date: after a leader is killed, two leaders would be shown.
    role = "silent" if n.is_silent(now) else "drained" if n.draining else "leader" if n.leading else ""
    return {
        "nodeId": n.id,
        "silentMs": silent,
        "inFlight": n.in_flight,
        "waiting": n.waiting,
        "clockOffsetMs": n.clock_offset_ms,
        "role": role,
    }
