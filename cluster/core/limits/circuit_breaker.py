"""The circuit breaker of a target host: when it opens, for how long, and which requests it admits.

    closed --half of 20 or more attempts in 10 s failed--> open
    open --its time ends, one node acquires the probe--> half-open
    half-open --the probe succeeds--> closed
    half-open --the probe fails--> open, for twice as long
    half-open --the node of the probe does not report--> half-open, another probe

An attempt is a failure of the host if it got no answer or 5xx. An execution that a breaker holds back was not
attempted: it waits in the database, and it is late, not lost.
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
    """The decision of a breaker about one more request."""

    ALLOW = "pass"
    HOLD = "hold"
    PROBE = "probe"
    """The request may be the probe, if its node acquires it."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """A breaker that is not closed, as all nodes share it. Instants are cluster time in ms."""

    host: str
    half_open: bool
    until_ms: int
    """Open: no request is sent before. Half-open: the probe has ended by then, or its node is lost."""
    opens: int
    """How many times it opened in a row."""
    rev: int
    opened_ms: int
    why: str
    node: str

    def admission(self, now_ms: int) -> Admission:
        """Whether a request may be sent now."""
        return Admission.PROBE if now_ms >= self.until_ms else Admission.HOLD


def open_duration_ms(opens: int) -> int:
    """How long (ms) a breaker stays open when it opens for the n-th time in a row (1..)."""
    return min(MAX_OPEN_MS, OPEN_MS << min(opens - 1, 10))


def is_host_failure(status: int | None, error: str | None) -> bool:
    """Whether an attempt counts as a failure of the host. A refusal by our own address guard (`denied`) does not, nor
    does an answer that came while the node was frozen (`stalled`).
    """
    return error not in (None, "denied", "stalled") or (status is not None and status >= 500)


class AttemptWindow:
    """This node's attempts on one host in the last seconds, by whole second. Times are monotonic seconds."""

    __slots__ = ("_by_second", "failed", "total")

    def __init__(self) -> None:
        self._by_second: deque[list[int]] = deque()
        self.total = 0
        self.failed = 0

    def add(self, now: float, *, failed: bool) -> None:
        """Count an attempt that ended."""
        self.expire(now)
        second = int(now)
        if not self._by_second or self._by_second[-1][0] != second:
            self._by_second.append([second, 0, 0])
        self._by_second[-1][1] += 1
        self._by_second[-1][2] += failed
        self.total += 1
        self.failed += failed

    def expire(self, now: float) -> None:
        """Drop the attempts that are older than the window."""
        while self._by_second and self._by_second[0][0] <= now - WINDOW_SECONDS:
            _, total, failed = self._by_second.popleft()
            self.total -= total
            self.failed -= failed

    def should_open(self) -> bool:
        """Whether the breaker should open."""
        return self.total >= MIN_ATTEMPTS and self.failed >= FAILURE_RATE * self.total
