"""`horae bench`: the figures of ops/BENCHMARKS.md, with real nodes, real sockets and a real MongoDB (w=majority).

Each case starts its own nodes on a fresh database of one embedded MongoDB.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any

import click
from pymongo import MongoClient

from ops.bench import actions, api, find, messages, page, schedules, surroundings, verify
from ops.bench.bodies import large_bodies
from ops.bench.rates import highest, steady
from ops.bench.results import Row, cpu_per_execution, print_results
from ops.bench.testbed import (
    Testbed,
    caught_up,
    database_now,
    lateness,
    machine_facts,
    measure,
    open_testbed,
    running_cluster,
    wait_for,
)
from ops.support.output import print_json


def isolation(testbed: Testbed, healthy: int, hanging: int, seconds: int) -> Row:
    """Jobs with a healthy target stay on time although other targets hang for 30 s, from the first second."""
    from ops.bench.isolation import HEALTHY, HangingTarget, lost_executions

    other = HangingTarget()
    try:
        with running_cluster(testbed) as cluster:
            cluster.load(cluster.job(n, "* * * * * *") for n in range(healthy))
            wait_for(cluster.settled, 60, "the jobs were not settled")
            wait_for(lambda: caught_up(cluster), 60, "the nodes did not reach the rate")
            cluster.load(other.jobs(hanging))
            wait_for(cluster.settled, 60, "the jobs were not settled")
            start = database_now(cluster).replace(microsecond=0) + timedelta(seconds=1)
            name = f"{healthy}/s to one target while {hanging}/s go to one that hangs for 30 s: the former"
            row = measure(cluster, name, healthy, seconds, HEALTHY)
            window = {"due_at": {"$gte": start, "$lt": start + timedelta(seconds=seconds)}}
            lost = lost_executions(cluster.db, window, hanging * seconds)
            open_ = cluster.db["breakers"].count_documents({})
            return replace(
                row,
                rate=row.executions / seconds,
                missing=row.missing + lost,
                extra=row.extra | {"hanging_lost": lost, "breakers_open": open_},
                note=f"of the hanging executions {lost} were lost; open breakers at the end: {open_}",
            )
    finally:
        other.stop()


def herd(testbed: Testbed, size: int) -> Row:
    """`size` jobs due at one instant."""
    with running_cluster(testbed) as cluster:
        at = (database_now(cluster) + timedelta(seconds=25)).replace(microsecond=0)
        schedule = f"@at {at.isoformat().replace('+00:00', 'Z')}"
        cluster.load(cluster.job(n, schedule) for n in range(size))
        wait_for(lambda: database_now(cluster) >= at, 60, "the clock of the database does not advance")
        cpu = cluster.cpu()
        wait_for(
            lambda: cluster.db["history"].estimated_document_count() >= size,
            120,
            "the jobs were not delivered within 120 s",
        )
        spent = [b - a for a, b in zip(cpu, cluster.cpu(), strict=True)]
        row = Row(
            f"{size:,} due at one instant",
            node_mb=cluster.memory(),
            **cpu_per_execution(spent, size),
            **lateness(cluster, {}),
        )
        row = replace(row, missing=size - row.executions)
        if not row.longest:
            return row
        seconds = row.longest / 1000
        return replace(row, rate=size / seconds, note=f"the last one was sent after {seconds:.1f} s")


def reads(testbed: Testbed) -> list[Row]:
    """Response times of reads with much data: on an idle node, and while it sends 1,000 requests per second."""
    with running_cluster(testbed, nodes=1) as cluster:
        api.fill(cluster.db)
        idle = api.rows(cluster.api.url)
        cluster.load(cluster.job(n, "* * * * * *") for n in range(1000))
        wait_for(cluster.settled, 60, "the jobs were not settled")
        wait_for(lambda: caught_up(cluster), 60, "the node never caught up with the rate")
        busy = api.rows(cluster.api.url)
    rows = []
    for when, timings in (("idle node", idle), ("the node sends 1,000/s", busy)):
        for t in timings:
            row = Row(
                f"{t['read']}, {when}",
                executions=t["requests"],
                p50=t["p50Ms"],
                p95=t["p95Ms"],
                p99=t["p99Ms"],
                longest=t["longestMs"],
                note="response times, in ms",
            )
            rows.append(row)
    return rows


def retention(testbed: Testbed, rate: int) -> list[Row]:
    """Three runs at one rate: nothing expires; as much expires as is recorded, deleted by the TTL index once a minute; the
    same, deleted in small steps by the leader.
    """
    return [
        _expiring(testbed, rate, "nothing expires", paced="true", filled=False),
        _expiring(testbed, rate, "as much expires, deleted by TTL", paced="false", filled=True),
        _expiring(testbed, rate, "as much expires, deleted in steps", paced="true", filled=True),
    ]


def _expiring(testbed: Testbed, rate: int, name: str, *, paced: str, filled: bool) -> Row:
    from ops.bench import retention as old

    with running_cluster(testbed, HORAE_PACED_RETENTION=paced) as cluster:
        cluster.load(cluster.job(n, "* * * * * *") for n in range(rate))
        wait_for(cluster.settled, 60, "the jobs were not settled")
        wait_for(lambda: caught_up(cluster), 60, "the nodes did not reach the rate")
        if filled:
            old.fill(cluster.db, database_now(cluster), rate, old.SECONDS)
            wait_for(lambda: caught_up(cluster), 60, "the nodes did not reach the rate")
        left_before, ttl_before = old.expiring_left(cluster.db), old.deleted_by_ttl(cluster.db)
        row = measure(cluster, f"{rate}/s, {name}", rate, old.SECONDS)
        # The size of history does not count the executions here, because others are deleted at the same time.
        factor = max(1.0, row.rate * old.SECONDS) / max(1, row.executions)
        cpu_node, cpu_mongod, cpu_target = (
            None if c is None else c * factor for c in (row.cpu_node, row.cpu_mongod, row.cpu_target)
        )
        gone, by_ttl = left_before - old.expiring_left(cluster.db), old.deleted_by_ttl(cluster.db) - ttl_before
        late = old.overdue(cluster.db, database_now(cluster))
        return replace(
            row,
            rate=row.executions / old.SECONDS,
            cpu_node=cpu_node,
            cpu_mongod=cpu_mongod,
            cpu_target=cpu_target,
            extra=row.extra | {"gone": gone, "gone_by_ttl": by_ttl, "overdue": late},
            note=f"{gone:,} deleted, {by_ttl:,} of them by TTL; expired and not yet deleted: {late:,}",
        )


def startup(testbed: Testbed) -> Row:
    """How long a node takes from its start until it is ready, with a running database."""
    from ops.bench.lifecycle import start_times

    name = f"bench_start_{os.getpid()}"
    first, median, longest = start_times(testbed.uri, name)
    with MongoClient[dict[str, Any]](testbed.uri) as client:
        client.drop_database(name)
    return Row(
        "one node, from the command to ready",
        executions=6,
        p50=median * 1000,
        longest=longest * 1000,
        note=f"start times, in ms; {first:.2f} s on an empty database",
    )


def drain(testbed: Testbed, rate: int, seconds: int) -> Row:
    """SIGTERM to one node after another under load: nothing may be lost or sent twice."""
    from ops.bench.lifecycle import Terminating

    with running_cluster(testbed) as cluster:
        cluster.load(cluster.job(n, "* * * * * *") for n in range(rate))
        wait_for(cluster.settled, 60, "the jobs were not settled")
        wait_for(lambda: caught_up(cluster), 60, "the nodes did not reach the rate")
        with Terminating(cluster.nodes, seconds / 4) as terminating:
            row = measure(cluster, f"{rate}/s while each node is stopped with SIGTERM in turn", rate, seconds)
        took = ", ".join(f"{t:.1f}" for t in terminating.took)
        # The CPU time of the stopped nodes is unknown.
        return replace(row, rate=row.executions / seconds, cpu_node=None, note=f"the nodes took {took} s to end")


CASES = (
    "drift",
    "throughput",
    "isolation",
    "highest",
    "herd",
    "bodies",
    "definitions",
    "reads",
    "retention",
    "startup",
    "drain",
    "verify",
    "messages",
    "messages-due",
)


MORE_CASES = (
    "actions",
    "find",
    "nodes",
    "many-nodes",
    "network",
    "targets",
    "kill",
    "schedules",
    "one-offs",
    "stored",
    "soak",
    "page",
    "page-open",
    "messages-waiting",
)
"""They take up to five minutes each, `soak` takes `--minutes`, and are run by name."""
SHORT_SECONDS = 10
"""At most so long a measurement takes in a case of several."""
SMALL_RATE = 1000
"""Of the cases about what surrounds a node."""


@dataclass(frozen=True, slots=True)
class Options:
    """As on the command line. `jobs`: None for as many as a case has by itself."""

    rate: int
    seconds: int
    step: int
    minutes: float
    jobs: int | None


def run_case(case: str, testbed: Testbed, options: Options) -> list[Row]:
    """The rows of one case."""
    rate, seconds, step, jobs = options.rate, options.seconds, options.step, options.jobs
    short = min(seconds, SHORT_SECONDS)
    several = {
        "nodes": lambda: surroundings.nodes(testbed, SMALL_RATE, short, surroundings.FEW_NODES),
        "many-nodes": lambda: surroundings.nodes(testbed, SMALL_RATE, short, surroundings.MANY_NODES),
        "network": lambda: surroundings.network(testbed, SMALL_RATE, short),
        "targets": lambda: surroundings.targets(testbed, short),
        "schedules": lambda: schedules.every_minute(testbed, jobs or 100_000),
        "one-offs": lambda: schedules.once(testbed, jobs or 100_000),
        "stored": lambda: schedules.stored(testbed, jobs or 1_000_000, all_of_them=jobs is not None),
        "reads": lambda: reads(testbed),
        "retention": lambda: retention(testbed, rate),
        "verify": lambda: verify.rows(testbed),
        "page": lambda: page.rows(testbed),
        "page-open": lambda: page.open_rows(testbed),
        "messages": lambda: messages.rows(testbed, rate, seconds),
        "messages-waiting": lambda: messages.waiting_costs(testbed, jobs or 1_000_000, 100_000),
        "find": lambda: find.rows(testbed, 100_000),
        "actions": lambda: actions.pause_and_resume(testbed, jobs or 100_000, 500),
    }
    if case in several:
        return several[case]()
    single = {
        "drift": lambda: steady(testbed, 100, seconds),
        "throughput": lambda: steady(testbed, rate, seconds),
        "isolation": lambda: isolation(testbed, 1000, 500, max(seconds, 45)),
        "highest": lambda: highest(testbed, rate + step, seconds, step),
        "herd": lambda: herd(testbed, 20_000),
        "bodies": lambda: large_bodies(testbed, 400, 1_000_000),
        "definitions": lambda: schedules.definitions(testbed, 100_000, 1000),
        "startup": lambda: startup(testbed),
        "drain": lambda: drain(testbed, 1000, max(seconds, 20)),
        "kill": lambda: surroundings.kill(testbed, max(seconds, 10)),
        "soak": lambda: surroundings.soak(testbed, SMALL_RATE, options.minutes),
        "messages-due": lambda: messages.due_at_once(testbed, 100_000, 100_000),
    }
    return [single[case]()]


@click.command("bench")
@click.option(
    "--case",
    "cases",
    multiple=True,
    type=click.Choice(CASES + MORE_CASES),
    help=f"Run only this case; can be repeated. [default: all but {', '.join(MORE_CASES)}]",
)
@click.option("--rate", default=3000, show_default=True, help="Jobs due every second in the throughput case.")
@click.option("--seconds", default=20, show_default=True, help="Duration of a measurement in seconds.")
@click.option("--step", default=500, show_default=True, help="Step of the search for the highest rate.")
@click.option("--minutes", default=60.0, show_default=True, help="Duration of the soak case in minutes.")
@click.option(
    "--jobs", type=int, help="Jobs of the cases `actions`, `schedules`, `one-offs` and `stored`, or messages."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bench_command(cases: tuple[str, ...], as_json: bool, **options: Any) -> None:  # noqa: FBT001
    """Measure throughput, lateness, CPU and memory on this machine. The cases of the default take about half an hour."""
    chosen = cases or CASES
    rows: list[Row] = []
    with open_testbed() as testbed:
        facts = machine_facts(testbed.target)
        for case in chosen:
            if not as_json:
                print(f"... {case}", file=sys.stderr, flush=True)
            rows += run_case(case, testbed, Options(**options))
    if as_json:
        print_json({"machine": facts, "rows": [asdict(r) for r in rows]})
    else:
        print_results(facts, rows)
    raise SystemExit(1 if any(r.missing for r in rows) else 0)
