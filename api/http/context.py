"""What the API is given: values and doors, no singletons."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from api.http.request_metrics import RequestMetrics
from cluster.clock import Clock
from cluster.core.documents.job_json import DocumentLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cluster.store.mongo.client import Database
    from config.settings import ApiKey


class Scope(IntEnum):
    """What a key may do; a higher one includes the lower ones."""

    READ = 1
    WRITE = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """The part of the settings that the API needs. Without keys everybody may do everything."""

    keys: tuple[ApiKey, ...] = ()
    rules: DocumentLimits = field(default_factory=DocumentLimits)
    requests_per_second: float = 0
    """How many requests one key may make on one node; it may save up twice as many. 0: no limit."""
    metrics_open: bool = False
    """Whether `/metrics` asks for no key."""
    lookahead_seconds: float = 15.0


@dataclass(frozen=True, slots=True)
class WorkerReadings:
    """The readings of one worker behind this port: its number, and how many seconds old they are."""

    worker: int
    age_seconds: float
    readings: dict[str, Any]


def _nobody() -> Sequence[WorkerReadings]:
    return ()


def _unknown() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Services:
    """The doors: database, time, and whether this node can serve."""

    db: Database
    clock: Clock
    settings: ApiSettings
    is_ready: Callable[[], bool]
    request_metrics: RequestMetrics = field(default_factory=lambda: RequestMetrics(Clock.monotonic))
    worker_readings: Callable[[], Sequence[WorkerReadings]] = _nobody
    unready_reason: Callable[[], str | None] = _unknown
    """Why it cannot serve, in a sentence that anybody may read."""
