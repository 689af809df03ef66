"""The table of all metrics: their keys in the worker readings, their names, labels and help texts.

Dashboards and alert rules depend on names and labels. Durations are in ms in the readings and in seconds in the metrics.
A label may only have few values: states, kinds, routes, queries, numbers of workers; never jobs, URLs or node ids, except
in `horae_node_info`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cluster.core.histogram import BOUNDS_MS, COARSE_MS

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Series:
    """One metric family. Readings with labels are dicts by label values, separated by blanks. Values are multiplied by `scale`."""

    readings_key: str
    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    scale: float = 1.0
    bounds: tuple[int, ...] = BOUNDS_MS


def _count(key: str, name: str, text: str, *labels: str) -> Series:
    return Series(key, f"horae_{name}", "counter", text, labels=labels)


def _gauge(key: str, name: str, text: str, *labels: str, scale: float = 1.0) -> Series:
    return Series(key, f"horae_{name}", "gauge", text, labels=labels, scale=scale)


def _times(key: str, name: str, text: str, *labels: str, bounds: tuple[int, ...] = COARSE_MS) -> Series:
    return Series(key, f"horae_{name}_seconds", "histogram", text, labels=labels, scale=0.001, bounds=bounds)


WORKER: tuple[Series, ...] = (
    _count("executions", "executions", "Executions that became final, by outcome.", "outcome"),
    _count("attempts", "attempts", "Attempts that ended, by class of the response status or kind of error.", "result"),
    _count("retries", "retries", "Failed attempts that will be retried."),
    _count("duplicates", "duplicates", "Deliveries of executions that had already been delivered."),
    _count("results_lost", "results_lost", "Results that arrived after the lease of their batch was lost."),
    _count(
        "batches", "batches", "Batches: leased, renewed, reclaimed from another owner's expired lease, lost.", "event"
    ),
    _times("drift", "drift", "Time from the planned send time to the first attempt.", bounds=BOUNDS_MS),
    _times("queue", "queue", "Time that an attempt waits on its node after it is due, all attempts.", bounds=BOUNDS_MS),
    _times(
        "duration", "attempt_duration", "Time from sending to the end of the response, all attempts.", bounds=BOUNDS_MS
    ),
    _gauge("in_flight", "in_flight", "Requests in flight."),
    _gauge("waiting", "waiting", "Executions that the node has claimed and not yet sent."),
    _gauge("slots", "slots", "Limit of requests in flight (HORAE_MAX_IN_FLIGHT)."),
    _gauge("leading", "leading", "1 while this worker is the leader."),
    _gauge("term", "leader_term", "The latest term that this worker knows of."),
    _count("leader_changes", "leader_changes", "Changes of the leader that this worker has seen."),
    _count("materialised", "materialised", "Executions written ahead of time, while leading."),
    _count("caught_up", "caught_up", "Executions written late by catch-up, while leading."),
    _count("settled", "settled_jobs", "Changes of jobs that were settled, while leading."),
    _count("pruned", "history_pruned", "Expired executions that were deleted, while leading."),
    _count("incidents", "incidents", "Incidents that were opened or closed, while leading.", "event"),
    _count(
        "alerts",
        "alerts",
        "Alerts created, one per channel; `horae_executions` counts their outcomes.",
    ),
    _count("released", "batches_released", "Batches released from silent nodes, while leading."),
    _count(
        "demoted", "batches_demoted", "Batches that no node claimed in time and that became late work, while leading."
    ),
    _count("orphans", "orphans", "Missing batches that were recreated; should stay 0."),
    _gauge("ready", "ready", "1 while /readyz answers 200."),
    _gauge("draining", "draining", "1 while the node shuts down."),
    _gauge("clock_offset_ms", "clock_offset_seconds", "This machine's wall clock minus the database's.", scale=0.001),
    _gauge("clock_in_doubt", "clock_in_doubt", "1 while most hosts contradict the clock of MongoDB's primary."),
    _gauge("heartbeat_age_ms", "heartbeat_age_seconds", "Time since the last confirmed heartbeat.", scale=0.001),
    _times("loop_lag", "event_loop_lag", "Delay of the event loop, measured four times a second."),
    _times(
        "operations",
        "mongodb_operation",
        "Database operations, by collection and name, including their retries.",
        "operation",
    ),
    _count("operation_errors", "mongodb_errors", "Database operations that failed.", "operation", "kind"),
    _count("api_requests", "api_requests", "Requests to the REST API.", "method", "route", "status"),
    _times("api_times", "api_request", "Duration of requests to the REST API.", "route"),
    Series("cpu_ms", "horae_cpu_seconds", "counter", "CPU time of the process.", scale=0.001),
    _gauge("memory_bytes", "memory_bytes", "Resident memory of the process."),
)
"""Metrics per worker. The label `worker` is 0 .. HORAE_NODES-1; a restarted worker gets the number of its predecessor."""

CLUSTER: tuple[Series, ...] = (
    _gauge("database_up", "database_up", "1 if the database was available during this scrape."),
    _gauge("backlog", "backlog_executions", "Waiting executions: ready and not leased, leased, late work.", "state"),
    _gauge(
        "oldest_due_ms",
        "oldest_due_age_seconds",
        "Age of the oldest execution that is due and not leased.",
        scale=0.001,
    ),
    _gauge("ahead_ms", "materialised_ahead_seconds", "How far ahead of time all executions are written.", scale=0.001),
    _gauge("breakers_open", "breakers_open", "Hosts whose circuit breaker is not closed."),
    _gauge("breakers", "breaker_state", "1 for each of these hosts, 50 at most.", "host", "state"),
    _gauge(
        "lookahead_ms",
        "lookahead_seconds",
        "How far ahead of time they should be written (HORAE_LOOKAHEAD_SECONDS).",
        scale=0.001,
    ),
)
"""Metrics of the whole cluster, read from the database. Every node reports the same: use the maximum, never the sum."""

INFO = ("horae_node_info", "The node of a worker: 1.", ("worker", "node", "version", "pid"))
AGE = ("horae_readings_age_seconds", "Age of the readings of a worker: about 1 s, unless its event loop is blocked.")


def sample_names() -> frozenset[str]:
    """All sample names that a scrape can contain."""
    collected = {INFO[0], AGE[0]}
    for s in (*WORKER, *CLUSTER):
        endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}[s.kind]
        collected |= {s.name + ending for ending in endings}
    return frozenset(collected)
