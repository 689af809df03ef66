"""The readings of one node as plain numbers. They are gathered on request, so that counting stays one addition.

Nothing here knows how the numbers are shown. Durations are ms, histograms `{"counts": per bucket, "sum": ms}`, instants
never appear. Every key is there from the start, also before anything was counted.
"""

from __future__ import annotations

import asyncio
import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.core.execution.view import FINAL_STATES
from cluster.core.histogram import COARSE_MS, Histogram
from cluster.outbound.errors import ERROR_KINDS
from cluster.store.mongo import operation

if TYPE_CHECKING:
    from cluster.node import Node

Readings = dict[str, Any]
RESULTS = ("http_2xx", "http_3xx", "http_4xx", "http_5xx", *ERROR_KINDS)
LOOP_LAG_EVERY_SECONDS = 0.5
_PAGE = os.sysconf("SC_PAGE_SIZE")


class LoopLag:
    """How late the event loop resumes a task that slept: everything on this node waits at least that long."""

    def __init__(self) -> None:
        self.histogram = Histogram(bounds=COARSE_MS)

    async def run(self) -> None:
        """Measure it twice a second, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LOOP_LAG_EVERY_SECONDS
            await asyncio.sleep(LOOP_LAG_EVERY_SECONDS)
            self.histogram.add(max(0.0, (loop.time() - due) * 1000))


def gather(node: Node, pulse: LoopLag) -> Readings:
    """Everything that this node and its process counted since they began."""
    return {
        "node": node.id,
        "pid": os.getpid(),
        "version": node.version,
        **_worker(node),
        **_leader(node),
        "ready": int(node.ready),
        "draining": int(node.shutting_down),
        "clock_offset_ms": node.clock.wall_offset_ms,
        "clock_in_doubt": int(node.heartbeat.clock_watch.holds_since_ms is not None),
        "heartbeat_age_ms": node.heartbeat.age * 1000 if node.booted else 0,
        "loop_lag": _histogram(pulse.histogram),
        **_store(),
        **_process(),
    }


def _worker(node: Node) -> Readings:
    context, stats = node.worker.context, node.worker.stats
    counters = stats.counters
    ended = {state: counters[state] for state in sorted(FINAL_STATES)}
    ended["missed"] += node.leader.counters["missed"]
    return {
        "executions": ended,
        "attempts": {**dict.fromkeys(RESULTS, 0), **stats.attempt_results},
        "retries": counters["retried"],
        "duplicates": counters["duplicates"],
        "results_lost": counters["results_lost"],
        "batches": {
            "leased": counters["claimed"],
            "renewed": counters["renewed"],
            "reclaimed": counters["reclaimed"],
            "lost": counters["leases_lost"] + context.unsent.lapsed_leases,
        },
        "drift": _histogram(stats.drift),
        "queue": _histogram(stats.queue_time),
        "duration": _histogram(stats.duration),
        "in_flight": context.slots.in_flight,
        "waiting": context.unsent.count,
        "slots": node.settings.slots,
    }


def _leader(node: Node) -> Readings:
    counters, elector = node.leader.counters, node.elector
    return {
        "leading": int(elector.term is not None),
        "term": elector.latest_term,
        "leader_changes": elector.leader_changes,
        "materialised": counters["materialised"],
        "caught_up": counters["caught_up"],
        "settled": counters["settled"],
        "pruned": counters["pruned"],
        "incidents": {"opened": counters["incidents_opened"], "closed": counters["incidents_closed"]},
        "alerts": counters["alerts"],
        "released": counters["released"],
        "demoted": counters["demoted"],
        "orphans": counters["orphans"],
    }


def _store() -> Readings:
    timings = operation.timings()
    return {
        "operations": {name: _histogram(t.times) for name, t in timings.items()},
        "operation_errors": {f"{name} {kind}": n for name, t in timings.items() for kind, n in t.errors.items()},
    }


def _process() -> Readings:
    used = resource.getrusage(resource.RUSAGE_SELF)
    memory = used.ru_maxrss * 1024
    with suppress(OSError):  # not Linux: the peak has to do
        memory = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE
    return {"cpu_ms": (used.ru_utime + used.ru_stime) * 1000, "memory_bytes": memory}


def _histogram(h: Histogram) -> Readings:
    return {"counts": list(h.counts), "sum": h.sum}
