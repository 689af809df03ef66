"""`horae db`: check the database, and migrate it to the schema of this release."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from cluster.core.errors import Conflict
from cluster.store import nodes
from cluster.store.maintenance import health
from cluster.store.maintenance.migrate import Migrated, migrate
from cluster.store.mongo import schema
from ops.commands.status import read_database
from ops.support.output import duration, print_json, print_table

if TYPE_CHECKING:
    from cluster.store.maintenance.health import Health
    from cluster.store.mongo.client import Database
    from cluster.store.nodes import NodeStatus

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
OLDEST_SERVER = (5, 0)
LAG_MS = 10_000
WINDOW_MS = 24 * 3_600_000
OFFSET_MS = 500
LEAD_OFFSET_MS = 2000
Finding = tuple[str, str, str]
"""(`ok`, `warn`, `bad` or `unknown`; what was checked; the result)."""


@click.group("db")
def db_group() -> None:
    """Check the database, or migrate it to the schema of this release."""


@db_group.command("check")
@JSON
def check_command(as_json: bool) -> None:  # noqa: FBT001 - click passes options by name
    """Check indexes, versions, replica set members, oplog and clocks. Changes nothing. Exit status 1 if a check is bad."""

    async def look(db: Database) -> tuple[Health, list[NodeStatus], float]:
        state = await health.read_health(db, time.monotonic)
        return state, (await nodes.nodes_and_clock(db))[0], time.time() * 1000

    state, present, here = read_database(look)
    findings = [*_schema_findings(state), *_server_findings(state), *_clock_findings(state, present, here)]
    bad = any(level == "bad" for level, *_ in findings)
    if as_json:
        print_json(
            {"ok": not bad, "findings": [dict(zip(("level", "what", "seen"), f, strict=True)) for f in findings]}
        )
    else:
        print_table("MongoDB", ["", "what", "result"], findings)
    sys.exit(1 if bad else 0)


def _schema_findings(h: Health) -> list[Finding]:
    known = schema.SCHEMA_VERSION
    problem = schema.version_problem(h.schema_version)
    if h.schema_version is None:
        first: Finding = (
            "bad",
            "schema",
            "no version: Horae has not used this database yet; `horae serve` initializes it",
        )
    elif problem is not None:
        first = ("bad", "schema", problem)
    elif h.schema_version < known:
        first = ("warn", "schema", f"version {h.schema_version}, this release needs {known}: run `horae db migrate`")
    else:
        first = ("ok", "schema", f"version {h.schema_version}")
    missing = [*h.missing_collections, *h.missing_indexes]
    if missing:
        return [first, ("bad", "indexes", f"missing: {', '.join(missing)}; a node creates them when it starts")]
    return [first, ("ok", "indexes", f"all {sum(len(i) for i in schema.INDEXES.values())} exist")]


def _server_findings(h: Health) -> list[Finding]:
    number = tuple(int(n) for n in h.server.split(".")[:2])
    old = number < OLDEST_SERVER
    least = ".".join(str(n) for n in OLDEST_SERVER)
    findings: list[Finding] = [
        ("bad" if old else "ok", "server", f"{h.server}{f' is too old: {least} or later is needed' if old else ''}")
    ]
    if h.set_name is None:
        return [*findings, ("bad", "replica set", "a standalone server, which can lose acknowledged writes")]
    if h.members is None:
        findings.append(
            ("unknown", "members", "the database user is not allowed to read this (it needs the role clusterMonitor)")
        )
    else:
        for m in h.members:
            lag = "" if m.lag_ms is None else f", {duration(m.lag_ms / 1000)} behind"
            fine = m.healthy and m.state in ("PRIMARY", "SECONDARY", "ARBITER")
            level = "bad" if not fine else "warn" if (m.lag_ms or 0) > LAG_MS else "ok"
            findings.append(
                (level, f"member {m.name}", f"{m.state}{lag}" if m.healthy else f"{m.state}, not reachable")
            )
        voting = len(h.members)
        if voting < 3:
            text = f"{voting} member(s): if one fails, everything stops until it is back"
            findings.append(("warn", "replica set", text))
    if h.oplog_window_ms is None:
        findings.append(("unknown", "oplog", "the database user is not allowed to read it"))
    else:
        window = f"holds {duration(h.oplog_window_ms / 1000)} of writes so far"
        # The oplog of a new replica set is short, which matters only when a member is behind.
        behind = max((m.lag_ms or 0 for m in h.members or ()), default=0)
        short = behind > 0 and h.oplog_window_ms < min(WINDOW_MS, 10 * behind)
        findings.append(("warn" if short else "ok", "oplog", window))
    return findings


def _clock_findings(h: Health, present: list[NodeStatus], here_ms: float) -> list[Finding]:
    def level_of(offset: float, limit: int) -> str:
        return "bad" if abs(offset) > limit else "warn" if abs(offset) > OFFSET_MS else "ok"

    own = here_ms - h.now_ms
    findings: list[Finding] = [
        (
            level_of(own, LEAD_OFFSET_MS),
            "clock of this machine",
            f"{own:+.0f} ms to the database (read in {h.round_trip_ms:.0f} ms)",
        )
    ]
    findings += [
        (level_of(n.clock_offset_ms, LEAD_OFFSET_MS), f"clock of {n.id}", f"{n.clock_offset_ms:+d} ms to the database")
        for n in present
    ]
    return findings


@db_group.command("migrate")
@JSON
def migrate_command(as_json: bool) -> None:  # noqa: FBT001
    """Migrate the database to the schema of this release. The cluster may run, but no node of an older release.

    You can interrupt the migration and run it again: it continues. Exit status 1 while older nodes run.
    """

    async def run(db: Database) -> Migrated | Conflict:
        try:
            return await migrate(db, lambda n: None if as_json or not n else click.echo(f"{n} documents", err=True))
        except Conflict as exc:
            return exc

    done = read_database(run)
    if isinstance(done, Conflict):
        click.echo(f"horae: {done}", err=True)
        sys.exit(1)
    if as_json:
        shown: dict[str, Any] = {"from": done.before, "to": done.after, "changed": done.changed}
        print_json(shown)
    elif done.before == done.after:
        click.echo(f"schema version {done.after}: nothing to migrate")
    else:
        click.echo(f"schema version {done.before} -> {done.after}, {done.changed} document(s) changed")
