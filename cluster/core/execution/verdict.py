"""The verdict on an attempt, by the status of its answer, and the delay before a retry.

| answer | verdict |
|---|---|
| 2xx; if the job has `successCodes`, only those | success |
| 408, 425, 429, 5xx, no answer | retry: a later attempt may succeed |
| 410 | gone: the execution fails, and the job is paused, because all later ones would fail too |
| any other status, or an address that the guard denies | refused: the execution fails at once, a retry cannot help |
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.core.execution.model import RetryPolicy

RETRYABLE_STATUSES = frozenset({408, 425, 429})


class Verdict(StrEnum):
    """The verdict on one attempt."""

    SUCCESS = "success"
    RETRY = "retry"
    GONE = "gone"
    REFUSED = "refused"


def verdict_of(status: int | None, error: str | None, success_codes: frozenset[int] | None = None) -> Verdict:
    """The verdict on one attempt. `success_codes` are the statuses that the job counts as success; None: 2xx.

    The error `denied` (the guard refused the address) is refused at once, because a retry cannot change it.
    """
    if error is not None:
        return Verdict.REFUSED if error == "denied" else Verdict.RETRY
    if status is None:
        return Verdict.RETRY
    if 200 <= status < 300 if success_codes is None else status in success_codes:
        return Verdict.SUCCESS
    if status >= 500 or status in RETRYABLE_STATUSES:
        return Verdict.RETRY
    return Verdict.GONE if status == 410 else Verdict.REFUSED


@lru_cache(maxsize=256)
def expand_codes(written: tuple[int | str, ...]) -> frozenset[int]:
    """The statuses in `successCodes`: numbers, and classes such as `2xx`."""
    statuses: set[int] = set()
    for code in written:
        statuses |= {code} if isinstance(code, int) else set(range(int(code[0]) * 100, int(code[0]) * 100 + 100))
    return frozenset(statuses)


@dataclass(frozen=True, slots=True)
class NextRetry:
    """Retry after this delay."""

    delay_ms: int


def next_retry(
    retry: RetryPolicy, attempts_made: int, *, jitter: float, retry_after_seconds: float | None = None
) -> NextRetry | None:
    """The retry after `attempts_made` attempts (1..). None if the policy allows no more.

    `jitter` in [0, 1) places the delay within the policy's jitter. `retry_after_seconds` is the target's Retry-After: the
    delay is at least so long, up to the policy's longest delay.
    """
    if attempts_made >= retry.max_attempts:
        return None
    # The exponent is bounded because `multiplier ** 5000` overflows a float long before it matters.
    grown = retry.initial_delay_seconds * retry.multiplier ** min(attempts_made - 1, 64)
    delay = min(grown, retry.max_delay_seconds) * (1 + retry.jitter * (2 * jitter - 1))
    if retry_after_seconds is not None:
        delay = max(delay, min(retry_after_seconds, retry.max_delay_seconds))
    return NextRetry(int(delay * 1000))


BACKOFF_GRAIN_MS = 250
"""The send times of retries are rounded up to this grain, so that the retries of one flush share a batch."""


def round_up_to_grain(instant_ms: int) -> int:
    """The first instant on the retry grain that is not before the given one."""
    return -(-instant_ms // BACKOFF_GRAIN_MS) * BACKOFF_GRAIN_MS
