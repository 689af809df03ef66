"""Token buckets: a rate limit for each of many names. Each process has its own, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BUCKETS = 10_000


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float
    """When `tokens` was right, in monotonic seconds."""

    def refill(self, now: float, rate: float, burst: float) -> None:
        self.tokens = min(burst, self.tokens + (now - self.at) * rate)
        self.at = now

    def take(self) -> None:
        self.tokens -= 1


class TokenBuckets:
    """One bucket per name: at most `burst` tokens, `rate` new ones per second. `clock` gives monotonic seconds."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def seconds_until_token(self, name: str) -> float:
        """Seconds until the name has a token; 0 if it has one."""
        bucket = self._refilled(name)
        return 0.0 if bucket is None or bucket.tokens >= 1 else (1 - bucket.tokens) / self._rate

    def take(self, name: str) -> float:
        """Take a token and return 0; without a token, return the seconds until there is one."""
        missing = self.seconds_until_token(name)
        if missing > 0:
            return missing
        bucket = self._refilled(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(self._burst, self._clock())
            if len(self._buckets) > MAX_BUCKETS:
                self._buckets.popitem(last=False)
        bucket.take()
        return 0.0

    def _refilled(self, name: str) -> _Bucket | None:
        bucket = self._buckets.get(name)
        if bucket is not None:
            bucket.refill(self._clock(), self._rate, self._burst)
            self._buckets.move_to_end(name)
        return bucket
