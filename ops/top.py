"""`horae top`: rates, lateness, leader, nodes and failing hosts, live in the terminal. Reads alone."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster.core.histogram import Histogram
from cluster.store import batches, breakers, failing, leases, nodes, reads
from cluster.store.client import Database
from config.settings import load
from ops.embedded import locate
from ops.tables import ago, as_json, rfc3339

if TYPE_CHECKING:
    from rich.console import RenderableType

FAILING_MS = 300_000
HOSTS = 10
SILENT_MS = 5000


@click.command("top")
@click.option(
    "--interval", default=2.0, show_default=True, type=click.FloatRange(0.5, 60), help="Seconds between looks."
)
@click.option("--once", is_flag=True, help="Look once and end.")
@click.option("--json", "form", is_flag=True, help="Look once and print JSON.")
def top_command(interval: float, once: bool, form: bool) -> None:  # noqa: FBT001 - click passes options by name
    """A live view of the cluster; Ctrl-C ends it. With --once or --json, exit 1 if nobody leads or a node is silent."""
    settings = load()
    uri = locate(Path(settings.data_dir), settings.uri)

    async def run() -> int:
        db = Database.open(uri, settings.db_name, "ops")
        try:
            if once or form:
                seen = await look(db)
                if form:
                    as_json(seen)
                else:
                    from rich.console import Console

                    Console().print(drawn(seen))
                sound = seen["leader"]["nodeId"] and all(n["silentMs"] < SILENT_MS for n in seen["nodes"])
                return 0 if sound else 1
            with Live(drawn(await look(db)), screen=sys.stdout.isatty(), auto_refresh=False) as live:
                while True:
                    await asyncio.sleep(interval)
                    live.update(drawn(await look(db)), refresh=True)
        finally:
            await db.close()

    try:
        raise SystemExit(asyncio.run(run()))
    except KeyboardInterrupt:
        raise SystemExit(0) from None


async def look(db: Database) -> dict[str, Any]:
    """Everything at once, as JSON shows it."""
    present, now = await nodes.listing(db)
    leader = await leases.leadership(db)
    waiting = await batches.backlog(db)
    since, counts = await reads.recent_counts(db, now)
    seconds = max(1.0, (now - since) / 1000)
    drift = Histogram()
    for n in present:
        drift.merge(n.counters.get("drift_recent", ()))
    broken = {b.host: b for b in await breakers.listing(db)}
    bad = await failing.hosts(db, now - FAILING_MS)
    known = {h for h, *_ in bad}
    rows = [*bad[:HOSTS], *((h, 0, 0) for h in broken if h not in known)]
    return {
        "at": rfc3339(now),
        "leader": {"nodeId": leader.node, "term": leader.term, "since": rfc3339(leader.since_ms)},
        "ratesPerSecond": {
            name: round(counts.get(name, 0) / seconds, 1)
            for name in ("attempts", "succeeded", "retried", "failed", "dead")
        },
        "driftMs": {"p50": drift.quantile(0.5), "p99": drift.quantile(0.99)},
        "backlog": {
            "ready": waiting.ready,
            "leased": waiting.leased,
            "late": waiting.late,
            "oldestAgeMs": None if waiting.oldest_ms is None else max(0, now - waiting.oldest_ms),
        },
        "nodes": [
            {
                "nodeId": n.id,
                "silentMs": now - n.seen_ms,
                "inFlight": n.in_flight,
                "waiting": n.waiting,
                "clockOffsetMs": n.clock_offset_ms,
                "role": "drained" if n.draining else "leader" if n.leading else "",
            }
            for n in present
        ],
        "failingHosts": [
            {"host": h, "endedBadly": lost, "waitForRetry": waits, "breaker": broken[h].why if h in broken else None}
            for h, lost, waits in rows
        ],
    }


def drawn(seen: dict[str, Any]) -> RenderableType:
    """One screen."""
    leader, rates, drift, waiting = seen["leader"], seen["ratesPerSecond"], seen["driftMs"], seen["backlog"]
    who = f"{leader['nodeId']} leads in term {leader['term']}" if leader["nodeId"] else "NOBODY LEADS"
    age = waiting["oldestAgeMs"]
    lines = [
        f"{seen['at']}   {who}",
        "per second: " + ", ".join(f"{n} {name}" for name, n in rates.items()),
        f"late by: p50 {_ms(drift['p50'])}, p99 {_ms(drift['p99'])}   backlog: {waiting['ready']} due, "
        f"{waiting['leased']} with nodes, {waiting['late']} late work"
        + (f", the oldest waits {ago(age / 1000)}" if age is not None else ""),
    ]
    nodes_table = Table("node", "seen", "in flight", "waiting", "offset ms", "role", box=None, pad_edge=False)
    for n in seen["nodes"]:
        gone = n["silentMs"] >= SILENT_MS
        cells = (
            n["nodeId"],
            f"{ago(n['silentMs'] / 1000)} ago",
            n["inFlight"],
            n["waiting"],
            n["clockOffsetMs"],
            n["role"],
        )
        nodes_table.add_row(*(str(c) for c in cells), style="red" if gone else None)
    parts: list[RenderableType] = [*(Text(line) for line in lines), Text(""), nodes_table, Text("")]
    if seen["failingHosts"]:
        hosts = Table("failing host", "ended badly (5 min)", "wait for retry", "breaker", box=None, pad_edge=False)
        for h in seen["failingHosts"]:
            hosts.add_row(h["host"], str(h["endedBadly"]), str(h["waitForRetry"]), h["breaker"] or "closed")
        parts.append(hosts)
    else:
        parts.append(Text("no host fails"))
    return Group(*parts)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"
