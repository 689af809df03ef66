"""The table of all series: where each comes from in the readings, how it is called, what it means.

Names and labels are what dashboards and alerts hold on to. Durations are seconds outside and ms inside. A label has few
values, always: states, kinds, routes, queries, workers by number. Never a job, a URL or a node's id, but in
`horae_node_info`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cluster.core.histogram import BOUNDS_MS, COARSE_MS

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Series:
    """One family. `labels` are read from the readings' keys, several of them separated by blanks; `scale` multiplies."""

    readings_key: str
    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    scale: float = 1.0
    bounds: tuple[int, ...] = BOUNDS_MS


def _count(key: str, name: str, text: str, *labels: str) -> Series:
    return Series(key, f"horae_{name}", "counter", text, labels)


def _gauge(key: str, name: str, text: str, *labels: str, scale: float = 1.0) -> Series:
    return Series(key, f"horae_{name}", "gauge", text, labels, scale)


def _times(key: str, name: str, text: str, *labels: str, bounds: tuple[int, ...] = COARSE_MS) -> Series:
    return Series(key, f"horae_{name}_seconds", "histogram", text, labels, 0.001, bounds)


WORKER: tuple[Series, ...] = (
    _count("executions", "executions", "Executions that became final, by outcome.", "outcome"),
    _count("attempts", "attempts", "POSTs that ended, by class of the answer or kind of error.", "result"),
    _count("retries", "retries", "Attempts that failed and will be repeated."),
    _count("duplicates", "duplicates", "Deliveries of what had been delivered already."),
    _count("results_lost", "results_lost", "Results that came after the lease of their batch had been lost."),
    _count(
        "batches", "batches", "Batches: leased, renewed, reclaimed from another owner's expired lease, lost.", "event"
    ),
    _times("drift", "drift", "From the planned send time to the first attempt.", bounds=BOUNDS_MS),
    _times("queue", "queue", "From being due on a node that holds it to leaving, every attempt.", bounds=BOUNDS_MS),
    _times("duration", "attempt_duration", "From sending to the end of the answer, every attempt.", bounds=BOUNDS_MS),
    _gauge("in_flight", "in_flight", "Requests on their way."),
    _gauge("waiting", "waiting", "Executions that a node holds and has not sent."),
    _gauge("slots", "slots", "The most requests on their way at once (HORAE_MAX_IN_FLIGHT)."),
    _gauge("leading", "leading", "1 while this worker trusts that it leads."),
    _gauge("term", "leader_term", "The latest leader's term this worker knows of."),
    _count("leader_changes", "leader_changes", "Changes of leader that this worker has seen."),
    _count("materialised", "materialised", "Executions written down ahead, while leading."),
    _count("caught_up", "caught_up", "Executions written down late, while leading."),
    _count("settled", "settled_jobs", "Changes of jobs taken in, while leading."),
    _count("pruned", "history_pruned", "Executions whose retention had ended, deleted while leading."),
    _count("incidents", "incidents", "Troubles of jobs that alert rules look for, while leading.", "event"),
    _count(
        "alerts",
        "alerts",
        "Alerts made, one per channel; what came of them is in `horae_executions`.",
    ),
    _count("released", "batches_released", "Batches taken from silent nodes, while leading."),
    _count("demoted", "batches_demoted", "Batches nobody claimed in time, made late work, while leading."),
    _count("orphans", "orphans", "Batches that were missing and had to be made again: should stay 0."),
    _gauge("ready", "ready", "1 while /readyz says yes."),
    _gauge("draining", "draining", "1 while it stops or has been told to drain."),
    _gauge("clock_offset_ms", "clock_offset_seconds", "This machine's wall clock minus the database's.", scale=0.001),
    _gauge("heartbeat_age_ms", "heartbeat_age_seconds", "Since the database confirmed a heartbeat.", scale=0.001),
    _times("loop_lag", "event_loop_lag", "How late the event loop is, four times a second."),
    _times("operations", "mongodb_operation", "Queries, by collection and name, retries inside included.", "operation"),
    _count("operation_errors", "mongodb_errors", "Queries that failed.", "operation", "kind"),
    _count("api_requests", "api_requests", "Requests to the REST API.", "method", "route", "status"),
    _times("api_times", "api_request", "How long requests to the REST API took.", "route"),
    Series("cpu_ms", "horae_cpu_seconds", "counter", "CPU time of the process.", scale=0.001),
    _gauge("memory_bytes", "memory_bytes", "Resident memory of the process."),
)
"""Per worker: each carries the label `worker`, 0 .. HORAE_NODES-1, which a restarted worker takes over."""

CLUSTER: tuple[Series, ...] = (
    _gauge("database_up", "database_up", "1 if the database answered this scrape."),
    _gauge("backlog", "backlog_executions", "Executions: ready and not leased, leased, late work.", "state"),
    _gauge("oldest_due_ms", "oldest_due_age_seconds", "Age of the oldest that is due and not leased.", scale=0.001),
    _gauge("ahead_ms", "materialised_ahead_seconds", "How far ahead everything is written down.", scale=0.001),
    _gauge("breakers_open", "breakers_open", "Hosts whose circuit breaker is not closed."),
    _gauge("breakers", "breaker_state", "1 for each of these hosts, 50 at most.", "host", "state"),
    _gauge("lookahead_ms", "lookahead_seconds", "How far ahead it should be (HORAE_LOOKAHEAD_SECONDS).", scale=0.001),
)
"""Of the whole cluster, read from the database: every node says the same, so take the maximum and never the sum."""

INFO = ("horae_node_info", "The node of a worker: 1.", ("worker", "node", "version", "pid"))
AGE = ("horae_readings_age_seconds", "How long ago a worker last told its numbers: 1 s, unless its loop stands still.")


def sample_names() -> frozenset[str]:
    """Every sample name that a scrape can have."""
    found = {INFO[0], AGE[0]}
    for s in (*WORKER, *CLUSTER):
        endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}[s.kind]
        found |= {s.name + ending for ending in endings}
    return frozenset(found)
