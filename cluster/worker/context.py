"""The doors of one node's worker: what its parts ask and tell. Made once, passed to each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.clock import Clock
    from cluster.outbound.sender import Sender
    from cluster.store.mongo.client import Database
    from cluster.worker.circuit_breakers import CircuitBreakers
    from cluster.worker.rate_limiter import RateLimiter


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """The database, the time, the targets, and what all nodes share about hosts and limits."""

    db: Database
    clock: Clock
    sender: Sender
    breakers: CircuitBreakers
    rate_limiter: RateLimiter
