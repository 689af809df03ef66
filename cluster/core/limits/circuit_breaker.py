"""The circuit breaker of a target host: when it opens, how long, and what may pass.

    closed --half of 20 or more attempts in 10 s failed--> open
    open --its time is over, one node wins the probe--> half-open
    half-open --the probe was answered--> closed
    half-open --it was not--> open, for twice as long
    half-open --its node was never heard of again--> half-open, another probe

A failure is an attempt that says something is wrong with the host: no answer, or 5xx. What a breaker holds back has
not been attempted: it waits in the database, and is late, not lost.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

WINDOW_SECONDS = 10.0
MIN_ATTEMPTS = 20
FAILURE_RATE = 0.5
OPEN_MS = 5_000
MAX_OPEN_MS = 60_000


class Admission(StrEnum):
    """What a breaker says about one more request."""

    ALLOW = "pass"
    HOLD = "hold"
    PROBE = "probe"
    """It may be the one that tries, if its node wins it."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """A breaker that is not closed, as all nodes see it. Instants are cluster time, ms."""

    host: str
    half_open: bool
    until_ms: int
    """Open: nothing is sent before; half-open: by then the probe has ended or its node is gone."""
    opens: int
    """How often it opened in a row."""
    rev: int
    opened_ms: int
    why: str
    node: str

    def admission(self, now_ms: int) -> Admission:
        """Whether a request may leave now."""
        return Admission.PROBE if now_ms >= self.until_ms else Admission.HOLD


def open_duration_ms(opens: int) -> int:
    """How long it stays open when it opens for the n-th time in a row (1..)."""
    return min(MAX_OPEN_MS, OPEN_MS << min(opens - 1, 10))


def is_host_failure(status: int | None, error: str | None) -> bool:
    """Whether an attempt says that something is wrong with the host. A refusal by our own guard does not, nor does a
    node that stood still while the answer came.
    """
    return error not in (None, "denied", "stalled") or (status is not None and status >= 500)


class AttemptWindow:
    """Attempts of the last seconds on one host, as this node saw them, by whole second. Times are monotonic seconds."""

    __slots__ = ("_by_second", "failed", "total")

    def __init__(self) -> None:
        self._by_second: deque[list[int]] = deque()
        self.total = 0
        self.failed = 0

    def add(self, now: float, *, failed: bool) -> None:
        """One more attempt ended."""
        self.expire(now)
        second = int(now)
        if not self._by_second or self._by_second[-1][0] != second:
            self._by_second.append([second, 0, 0])
        self._by_second[-1][1] += 1
        self._by_second[-1][2] += failed
        self.total += 1
        self.failed += failed

    def expire(self, now: float) -> None:
        """Leave out what is too long ago."""
        while self._by_second and self._by_second[0][0] <= now - WINDOW_SECONDS:
            _, total, failed = self._by_second.popleft()
            self.total -= total
            self.failed -= failed

    def should_open(self) -> bool:
        """Whether the breaker should open."""
        return self.total >= MIN_ATTEMPTS and self.failed >= FAILURE_RATE * self.total
