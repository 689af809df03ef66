"""The circuit breaker of a target host: when it opens, for how long, and which requests it admits.

    closed --half of 20 or more attempts in 10 s failed, and half of the jobs that made them--> open
    open --its time ends, one node acquires the probe--> half-open
    half-open --the probe succeeds--> closed
    half-open --the probe fails--> open, for twice as long: up to a minute, or 10 s while few jobs failed
    half-open --the probe has not ended after 6 s, or its node is lost--> half-open, another probe

An attempt is a failure of the host if it got no answer or 5xx. Attempts are weighed by job: one job alone, whatever it
does, opens no breaker, because its own endpoint or its own time-out may be at fault. An execution that a breaker holds
back was not attempted: it waits in the database, and it is late, not lost.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

WINDOW_SECONDS = 10.0
MIN_ATTEMPTS = 20
FAILURE_RATE = 0.5
MAX_OF_JOB = 10
"""So many attempts of one job count at most. It is less than `MIN_ATTEMPTS`, so one job is never enough."""
MIN_FAILING_JOBS = 2
MAX_JOBS = 64
"""The jobs of a host that are counted at a time: a sample that is large enough."""
OPEN_MS = 5_000
MAX_OPEN_MS = 60_000
FEW_JOBS = 4
MAX_OPEN_OF_FEW_MS = 10_000
"""While fewer jobs than `FEW_JOBS` failed, their own endpoints may be at fault: other jobs wait for so long at most."""
PROBE_HOLD_MS = 6_000
"""A probe holds its host for so long at most, however long it may take: then another job may be tried."""
OTHERS_FIRST_MS = 2_500
"""For so long a host that may be probed waits for another job than the one whose probe failed last."""
MAX_FAILED_JOBS = 16


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
    failed_jobs: tuple[str, ...] = ()
    """The jobs that opened it or were probed in vain, the last one at the end. Others are probed before them."""

    def admission(self, now_ms: int) -> Admission:
        """Whether a request may be sent now."""
        return Admission.PROBE if now_ms >= self.until_ms else Admission.HOLD

    def waits_for_others(self, now_ms: int) -> bool:
        """Whether the job that failed last may not be the probe yet."""
        return now_ms < self.until_ms + OTHERS_FIRST_MS


def with_failed_job(failed_jobs: tuple[str, ...], job_id: str) -> tuple[str, ...]:
    """The list with this job at its end."""
    return (*(j for j in failed_jobs if j != job_id), job_id)[-MAX_FAILED_JOBS:]


def open_duration_ms(opens: int, failed_jobs: int) -> int:
    """How long (ms) a breaker stays open when it opens for the n-th time in a row (1..), after so many jobs failed."""
    most = MAX_OPEN_OF_FEW_MS if failed_jobs < FEW_JOBS else MAX_OPEN_MS
    return min(most, OPEN_MS << min(opens - 1, 10))


def is_host_failure(status: int | None, error: str | None) -> bool:
    """Whether an attempt counts as a failure of the host. A refusal by our own address guard (`denied`) does not, nor
    does an answer that came while the node was frozen (`stalled`).
    """
    return error not in (None, "denied", "stalled") or (status is not None and status >= 500)


class AttemptWindow:
    """This node's attempts on one host in the last seconds, by whole second and job. Times are monotonic seconds."""

    __slots__ = ("_by_second", "_jobs", "failed", "total")

    def __init__(self) -> None:
        self._by_second: deque[tuple[int, dict[str, list[int]]]] = deque()
        self._jobs: dict[str, list[int]] = {}
        """By job, its attempts and how many of them failed."""
        self.total = 0
        self.failed = 0

    @property
    def jobs(self) -> int:
        """How many jobs made these attempts."""
        return len(self._jobs)

    def add(self, now: float, job_id: str, *, failed: bool) -> None:
        """Count an attempt that ended."""
        self.expire(now)
        if job_id not in self._jobs and len(self._jobs) >= MAX_JOBS:
            return
        second = int(now)
        if not self._by_second or self._by_second[-1][0] != second:
            self._by_second.append((second, {}))
        for counts in (self._by_second[-1][1], self._jobs):
            of_job = counts.setdefault(job_id, [0, 0])
            of_job[0] += 1
            of_job[1] += failed
        self.total += 1
        self.failed += failed

    def expire(self, now: float) -> None:
        """Drop the attempts that are older than the window."""
        while self._by_second and self._by_second[0][0] <= now - WINDOW_SECONDS:
            for job_id, (total, failed) in self._by_second.popleft()[1].items():
                self.total -= total
                self.failed -= failed
                of_job = self._jobs[job_id]
                of_job[0] -= total
                of_job[1] -= failed
                if not of_job[0]:
                    del self._jobs[job_id]

    def failing_jobs(self) -> list[str]:
        """The jobs of which half of the attempts failed, or more."""
        return [job_id for job_id, (total, failed) in self._jobs.items() if failed >= FAILURE_RATE * total]

    def should_open(self) -> bool:
        """Whether the breaker should open: enough attempts failed, and enough jobs fail."""
        if self.total < MIN_ATTEMPTS:
            return False
        failing = len(self.failing_jobs())
        if failing < MIN_FAILING_JOBS or failing < FAILURE_RATE * len(self._jobs):
            return False
        weights = [(min(total, MAX_OF_JOB), failed / total) for total, failed in self._jobs.values()]
        weight = sum(w for w, _ in weights)
        return weight >= MIN_ATTEMPTS and sum(w * rate for w, rate in weights) >= FAILURE_RATE * weight
