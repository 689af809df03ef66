"""What the API needs: settings, database, clock and the state of the node. There are no global objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from api.http.request_metrics import RequestMetrics
from cluster.clock import Clock
from cluster.core.documents.job_json import DocumentLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cluster.core.targets import IPNetwork
    from cluster.store.mongo.client import Database
    from config.settings import ApiKey


class Scope(IntEnum):
    """What an API key may do. A higher scope includes the lower ones."""

    READ = 1
    WRITE = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """The settings of the API. Without keys, every request is allowed."""

    keys: tuple[ApiKey, ...] = ()
    rules: DocumentLimits = field(default_factory=DocumentLimits)
    requests_per_second: float = 0
    """Requests per second of one key on one node, with bursts of twice as many. 0: no limit."""
    metrics_open: bool = False
    """Whether `/metrics` can be read without a key."""
    lookahead_seconds: float = 15.0
    trusted_proxies: tuple[IPNetwork, ...] = ()
    """The proxies whose `X-Forwarded-For` is believed."""
    metrics_port: int | None = None
    """The port of a listener that has `/metrics` without a key, and nothing else."""


@dataclass(frozen=True, slots=True)
class WorkerReadings:
    """The metrics of one worker behind this port, and their age in seconds. `worker` is its number."""

    worker: int
    age_seconds: float
    readings: dict[str, Any]


def _nobody() -> Sequence[WorkerReadings]:
    return ()


def _unknown() -> None:
    return None


def _wake_nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Services:
    """What resources use: database, clock, settings, metrics, and whether this node can serve requests."""

    db: Database
    clock: Clock
    settings: ApiSettings
    is_ready: Callable[[], bool]
    request_metrics: RequestMetrics = field(default_factory=lambda: RequestMetrics(Clock.monotonic))
    worker_readings: Callable[[], Sequence[WorkerReadings]] = _nobody
    unready_reason: Callable[[], str | None] = _unknown
    """Why the node cannot serve requests; `/readyz` shows the sentence without a key."""
    wake_claims: Callable[[], None] = _wake_nothing
    """Called when there is something to claim that was not there a moment ago."""
