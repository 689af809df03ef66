"""Jobs that are due every second: at one rate, and the highest rate that holds."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from ops.bench.results import Row
from ops.bench.search import MOST_RUNS, highest_rate
from ops.bench.testbed import caught_up, database_now, measure, running_cluster, wait_for

if TYPE_CHECKING:
    from ops.bench.testbed import Testbed

HELD_P99_MS = 1000
OVERLOADED_SECONDS = 15
"""A rate does not hold if its last executions end later."""
ADDED_BEFORE = timedelta(seconds=25)
"""So long before their first occurrence jobs are added that are added beforehand: longer than the look-ahead."""


def steady(
    testbed: Testbed, rate: int, seconds: int, name: str = "", patience: float = 60, *, added_before: bool = False
) -> Row:
    """`rate` jobs due every second. `patience`: so many seconds after the last one was due all have to be recorded.

    `added_before`: all jobs begin at one instant, by which they have been added. Else each begins as it is imported, and the nodes
    first have to catch up with what came due meanwhile.
    """
    with running_cluster(testbed) as cluster:
        begin = database_now(cluster).replace(microsecond=0) + (ADDED_BEFORE if added_before else timedelta())
        begins = {"startAt": begin.strftime("%Y-%m-%dT%H:%M:%SZ")} if added_before else {}
        cluster.load(cluster.job(n, "* * * * * *") | begins for n in range(rate))
        wait_for(cluster.settled, 60, "the jobs were not settled")
        wait_for(lambda: database_now(cluster) >= begin, 60, "the clock of the database does not advance")
        # The effects of importing and settling have ended when the look-ahead is full again.
        wait_for(lambda: caught_up(cluster), 60, "the nodes did not reach the rate")
        sent = cluster.target.requests()
        recorded = cluster.db["history"].estimated_document_count()
        row = measure(cluster, name or f"{rate}/s, due on one instant of each second", rate, seconds, patience=patience)
        if sent is None:
            return row
        extra = {
            "target_requests": (cluster.target.requests() or 0) - sent,
            "recorded": cluster.db["history"].estimated_document_count() - recorded,
        }
        return replace(row, extra=row.extra | extra)


def highest(testbed: Testbed, start: int, seconds: int, step: int, *, added_before: bool = False) -> Row:
    """The highest rate with nothing missing and a p99 below one second, to one step. Each rate is told as it is tried."""

    def run(rate: int) -> Row | None:
        try:
            row = steady(testbed, rate, seconds, patience=OVERLOADED_SECONDS, added_before=added_before)
            held, why = not row.missing and (row.p99 or HELD_P99_MS) < HELD_P99_MS, f"p99 {row.p99} ms"
        except click.ClickException as exc:
            row, held, why = Row(""), False, exc.message
        print(f"    {rate}/s {'holds' if held else 'does not hold'}: {why}", file=sys.stderr, flush=True)
        return replace(row, case=f"highest rate that holds (steps of {step}): {rate}/s") if held else None

    return highest_rate(run, start, step) or Row("highest rate that holds", note=f"none of {MOST_RUNS} rates held")
