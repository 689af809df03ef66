"""What an attempt's answer means, and what happens next. One table, by status; a missing answer is always retried.

| answer | verdict |
|---|---|
| 2xx, or one of the job's own `successCodes` and nothing else | success |
| 408, 425, 429, 5xx, no answer at all | retry: it may go better later |
| 410 | gone: it fails, and so will every later one, so the job is paused |
| anything else, or an address that the guard denies | refused: the same once more cannot help, it fails at once |
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
    """What one attempt's answer means."""

    SUCCESS = "success"
    RETRY = "retry"
    GONE = "gone"
    REFUSED = "refused"


def verdict_of(status: int | None, error: str | None, success_codes: frozenset[int] | None = None) -> Verdict:
    """The verdict on one attempt. `success` are the statuses that the job counts as one; None: 2xx.

    `denied` (the guard refused the address) fails at once: no retry changes it.
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
    """The statuses that `successCodes` means: numbers, and classes such as `2xx`."""
    found: set[int] = set()
    for code in written:
        found |= {code} if isinstance(code, int) else set(range(int(code[0]) * 100, int(code[0]) * 100 + 100))
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class NextRetry:
    """Try again after this delay."""

    delay_ms: int


def next_retry(
    retry: RetryPolicy, attempts_made: int, *, jitter: float, retry_after_seconds: float | None = None
) -> NextRetry | None:
    """When to try again after `attempts_made` attempts (1..), or None when they are used up.

    `luck` in [0, 1) places the delay within the jitter; `asked_seconds` is the target's Retry-After, honoured up to
    the job's longest delay and never shortened.
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
"""Retries are rounded up to this grain so that those of one flush share a batch."""


def round_up_to_grain(instant_ms: int) -> int:
    """The next instant on the retry grain, not before the given one."""
    return -(-instant_ms // BACKOFF_GRAIN_MS) * BACKOFF_GRAIN_MS
