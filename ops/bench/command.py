"""`horae bench`: the figures of ops/BENCHMARKS.md, on this machine: real nodes, real MongoDB, real sockets, w=majority.

Each case starts its own nodes on a fresh database of one embedded MongoDB.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import click
from pymongo import MongoClient

from ops.bench import api, verify
from ops.bench.testbed import (
    Row,
    Target,
    add_lateness,
    caught_up,
    database_now,
    machine_facts,
    measure,
    open_testbed,
    running_cluster,
    wait_for,
)
from ops.support.output import print_json, print_table


def steady(the_bed: tuple[str, int, Target], rate: int, seconds: int, name: str = "") -> Row:
    """`rate` jobs due every second."""
    with running_cluster(the_bed) as cluster:
        cluster.load(cluster.job(n, "* * * * * *") for n in range(rate))
        wait_for(cluster.settled, 60, "the leader did not see the jobs")
        # Importing and settling are behind us when the look-ahead is full again.
        wait_for(lambda: caught_up(cluster), 60, "the nodes never caught up with the rate")
        sent = cluster.target.requests()
        recorded = cluster.db["history"].estimated_document_count()
        row = measure(cluster, name or f"{rate}/s, all due on the same instant of each second", rate, seconds)
        if sent is not None:
            row.extra["target_requests"] = (cluster.target.requests() or 0) - sent
            row.extra["recorded"] = cluster.db["history"].estimated_document_count() - recorded
        return row


def isolation(the_bed: tuple[str, int, Target], healthy: int, hanging: int, seconds: int) -> Row:
    """What answers is on time although others hang for half a minute, from the first second they do."""
    from ops.bench.isolation import HEALTHY, HangingTarget, lost_executions

    other = HangingTarget()
    try:
        with running_cluster(the_bed) as cluster:
            cluster.load(cluster.job(n, "* * * * * *") for n in range(healthy))
            wait_for(cluster.settled, 60, "the leader did not see the jobs")
            wait_for(lambda: caught_up(cluster), 60, "the nodes never caught up with the rate")
            cluster.load(other.jobs(hanging))
            wait_for(cluster.settled, 60, "the leader did not see the jobs")
            start = database_now(cluster).replace(microsecond=0) + timedelta(seconds=1)
            name = f"{healthy}/s to one target while {hanging}/s go to one that hangs for 30 s: the former"
            row = measure(cluster, name, healthy, seconds, HEALTHY)
            row.rate = row.executions / seconds
            window = {"due_at": {"$gte": start, "$lt": start + timedelta(seconds=seconds)}}
            lost = lost_executions(cluster.db, window, hanging * seconds)
            open_ = cluster.db["breakers"].count_documents({})
            row.missing += lost
            row.extra |= {"hanging_lost": lost, "breakers_open": open_}
            row.note = f"of those that hang {lost} were lost; breakers open at the end: {open_}"
            return row
    finally:
        other.stop()


def herd(the_bed: tuple[str, int, Target], size: int) -> Row:
    """`size` jobs due at one instant."""
    with running_cluster(the_bed) as cluster:
        at = (database_now(cluster) + timedelta(seconds=25)).replace(microsecond=0)
        schedule = f"@at {at.isoformat().replace('+00:00', 'Z')}"
        cluster.load(cluster.job(n, schedule) for n in range(size))
        wait_for(lambda: database_now(cluster) >= at, 60, "time stands still")
        cpu = cluster.cpu()
        wait_for(
            lambda: cluster.db["history"].estimated_document_count() >= size, 120, "the herd was not delivered in 120 s"
        )
        spent = [b - a for a, b in zip(cpu, cluster.cpu(), strict=True)]
        row = Row(f"{size:,} due at one instant", node_mb=cluster.memory())
        add_lateness(cluster, row, {})
        row.missing = size - row.executions
        row.cpu_node, row.cpu_mongod, row.cpu_target = (s / size * 1e6 for s in spent)
        if row.longest:
            row.rate = size / (row.longest / 1000)
            row.note = f"the last one left after {row.longest / 1000:.1f} s"
        return row


def definitions(the_bed: tuple[str, int, Target], size: int, distinct: int) -> Row:
    """`size` jobs on `distinct` schedules, none due: what does merely having them cost?"""
    with running_cluster(the_bed) as cluster:
        month = (database_now(cluster).month + 5) % 12 + 1
        took = cluster.load(
            cluster.job(n, f"{n % distinct % 60} {n % distinct // 60} 3 1 {month} *") for n in range(size)
        )
        row = Row(f"{size:,} jobs on {distinct:,} schedules, none due")
        started = time.monotonic()
        wait_for(cluster.settled, 300, "the jobs were not settled")
        row.extra |= {"import_seconds": round(took, 1), "settle_seconds": round(time.monotonic() - started, 1)}
        time.sleep(3)
        cpu, began = cluster.cpu(), time.monotonic()
        time.sleep(15)
        per_node = (cluster.cpu()[0] - cpu[0]) / (time.monotonic() - began) / len(cluster.nodes()) * 100
        row.node_mb = cluster.memory()
        row.extra["node_cpu_percent"] = round(per_node, 2)
        row.note = f"imported in {took:.1f} s; an idle node uses {per_node:.1f} % of a core"
        return row


def reads(the_bed: tuple[str, int, Target]) -> list[Row]:
    """How long reads of the API take with much stored: on an idle node, and while it sends 1,000 requests a second."""
    with running_cluster(the_bed, nodes=1) as cluster:
        api.fill(cluster.db)
        idle = api.rows(cluster.api.url)
        cluster.load(cluster.job(n, "* * * * * *") for n in range(1000))
        wait_for(cluster.settled, 60, "the leader did not see the jobs")
        wait_for(lambda: caught_up(cluster), 60, "the node never caught up with the rate")
        busy = api.rows(cluster.api.url)
    found = []
    for when, timings in (("idle node", idle), ("the node sends 1,000/s", busy)):
        for t in timings:
            row = Row(f"{t['read']}, {when}", executions=t["requests"], note="how long the answer took, in ms")
            row.p50, row.p95, row.p99, row.longest = t["p50Ms"], t["p95Ms"], t["p99Ms"], t["longestMs"]
            found.append(row)
    return found


def highest(the_bed: tuple[str, int, Target], start: int, seconds: int, step: int) -> Row:
    """The highest rate that holds: nothing missing and p99 under a second."""
    best = Row("highest rate that holds", note=f"not even {start}/s")
    rate = start
    while True:
        try:
            row = steady(the_bed, rate, seconds)
        except click.ClickException:
            return best
        if row.missing or row.p99 is None or row.p99 >= 1000:
            return best
        best = row
        best.case = f"highest rate that holds (steps of {step}): {rate}/s"
        rate += step


def retention(the_bed: tuple[str, int, Target], rate: int) -> list[Row]:
    """Three runs at one rate: nothing expires; as much as is recorded expires, and TTL sees to it once a minute; the
    same, pruned bit by bit by the leader.
    """
    return [
        _expiring(the_bed, rate, "nothing expires", paced="true", filled=False),
        _expiring(the_bed, rate, "as much expires, by TTL alone", paced="false", filled=True),
        _expiring(the_bed, rate, "as much expires, pruned bit by bit", paced="true", filled=True),
    ]


def _expiring(the_bed: tuple[str, int, Target], rate: int, name: str, *, paced: str, filled: bool) -> Row:
    from ops.bench import retention as old

    with running_cluster(the_bed, HORAE_PACED_RETENTION=paced) as cluster:
        cluster.load(cluster.job(n, "* * * * * *") for n in range(rate))
        wait_for(cluster.settled, 60, "the leader did not see the jobs")
        wait_for(lambda: caught_up(cluster), 60, "the nodes never caught up with the rate")
        if filled:
            old.fill(cluster.db, database_now(cluster), rate, old.SECONDS)
            wait_for(lambda: caught_up(cluster), 60, "the nodes never caught up with the rate")
        left, ttl = old.expiring_left(cluster.db), old.deleted_by_ttl(cluster.db)
        row = measure(cluster, f"{rate}/s, {name}", rate, old.SECONDS)
        # What leaves must not be taken for what was not done.
        factor = max(1.0, row.rate * old.SECONDS) / max(1, row.executions)
        row.rate = row.executions / old.SECONDS
        row.cpu_node, row.cpu_mongod, row.cpu_target = (
            None if c is None else c * factor for c in (row.cpu_node, row.cpu_mongod, row.cpu_target)
        )
        gone, by_ttl = left - old.expiring_left(cluster.db), old.deleted_by_ttl(cluster.db) - ttl
        late = old.overdue(cluster.db, database_now(cluster))
        row.extra |= {"gone": gone, "gone_by_ttl": by_ttl, "overdue": late}
        row.note = f"{gone:,} left, {by_ttl:,} of them by TTL; expired and still there: {late:,}"
        return row


def startup(the_bed: tuple[str, int, Target]) -> Row:
    """How long a node takes until it is ready, the database running."""
    from ops.bench.lifecycle import start_times

    uri, _, _ = the_bed
    name = f"bench_start_{os.getpid()}"
    first, median, longest = start_times(uri, name)
    with MongoClient[dict[str, Any]](uri) as client:
        client.drop_database(name)
    row = Row("one node, from the command to ready", executions=6, p50=median * 1000, longest=longest * 1000)
    row.note = f"how long it took, in ms; {first:.2f} s on an empty database"
    return row


def drain(the_bed: tuple[str, int, Target], rate: int, seconds: int) -> Row:
    """SIGTERM to one node after the other under load: nothing lost, nothing twice."""
    from ops.bench.lifecycle import Terminating

    with running_cluster(the_bed) as cluster:
        cluster.load(cluster.job(n, "* * * * * *") for n in range(rate))
        wait_for(cluster.settled, 60, "the leader did not see the jobs")
        wait_for(lambda: caught_up(cluster), 60, "the nodes never caught up with the rate")
        with Terminating(cluster.nodes, seconds / 4) as terminating:
            row = measure(cluster, f"{rate}/s while each node is stopped with SIGTERM in turn", rate, seconds)
        row.rate = row.executions / seconds
        row.cpu_node = None  # of the nodes that ended nothing is known any more
        row.note = f"the nodes took {', '.join(f'{t:.1f}' for t in terminating.took)} s to end"
        return row


CASES = (
    "drift",
    "throughput",
    "isolation",
    "highest",
    "herd",
    "definitions",
    "reads",
    "retention",
    "startup",
    "drain",
    "verify",
)


def _print(facts: dict[str, Any], rows: list[Row]) -> None:
    print(", ".join(f"{k} {v}" for k, v in facts.items()))
    print_table(
        "Horae",
        [
            "case",
            "rate/s",
            "executions",
            "missing",
            "twice",
            "p50",
            "p95",
            "p99",
            "max",
            "min",
            "CPU node",
            "mongod",
            "target",
            "node MB",
            "note",
        ],
        [
            (
                r.case,
                round(r.rate),
                r.executions,
                r.missing,
                r.twice,
                *(None if v is None else round(v) for v in (r.p50, r.p95, r.p99, r.longest, r.earliest)),
                *(None if v is None else round(v) for v in (r.cpu_node, r.cpu_mongod, r.cpu_target, r.node_mb)),
                r.note,
            )
            for r in rows
        ],
    )
    print(
        "Lateness in ms after the send time, CPU in us per execution (all nodes together), memory of the largest node."
    )


def run_case(case: str, the_bed: tuple[str, int, Target], rate: int, seconds: int, step: int) -> list[Row]:
    """The rows of one case."""
    several = {
        "reads": lambda: reads(the_bed),
        "retention": lambda: retention(the_bed, rate),
        "verify": lambda: verify.rows(the_bed),
    }
    if case in several:
        return several[case]()
    single = {
        "drift": lambda: steady(the_bed, 100, seconds),
        "throughput": lambda: steady(the_bed, rate, seconds),
        "isolation": lambda: isolation(the_bed, 1000, 500, max(seconds, 45)),
        "highest": lambda: highest(the_bed, rate + step, seconds, step),
        "herd": lambda: herd(the_bed, 20_000),
        "definitions": lambda: definitions(the_bed, 100_000, 1000),
        "startup": lambda: startup(the_bed),
        "drain": lambda: drain(the_bed, 1000, max(seconds, 20)),
    }
    return [single[case]()]


@click.command("bench")
@click.option("--case", "cases", multiple=True, type=click.Choice(CASES), help="Only these cases (default: all).")
@click.option("--rate", default=3000, show_default=True, help="Jobs due every second in the throughput case.")
@click.option("--seconds", default=20, show_default=True, help="How long a steady case is measured.")
@click.option("--step", default=500, show_default=True, help="Steps of the search for the highest rate.")
@click.option("--json", "form", is_flag=True, help="Print JSON.")
def bench_command(cases: tuple[str, ...], rate: int, seconds: int, step: int, form: bool) -> None:  # noqa: FBT001
    """Measure throughput, lateness, CPU and memory on this machine. Takes about ten minutes."""
    wanted = cases or CASES
    rows: list[Row] = []
    with open_testbed() as the_bed:
        facts = machine_facts(the_bed[2])
        for case in wanted:
            if not form:
                print(f"... {case}", file=sys.stderr, flush=True)
            rows += run_case(case, the_bed, rate, seconds, step)
    if form:
        print_json({"machine": facts, "rows": [asdict(r) for r in rows]})
    else:
        _print(facts, rows)
    raise SystemExit(1 if any(r.missing for r in rows) else 0)
