"""Token buckets: how much each of many may ask for. Kept per process, in bounded memory."""

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


class TokenBuckets:
    """One bucket for each name: `burst` tokens at most, `rate` new ones a second. `clock` gives monotonic seconds."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def seconds_until_token(self, name: str) -> float:
        """Seconds until there is a token; 0 if there is one."""
        bucket = self._filled(name)
        return 0.0 if bucket is None or bucket.tokens >= 1 else (1 - bucket.tokens) / self._rate

    def take(self, name: str) -> float:
        """Take a token. Seconds until there is one if there is none."""
        missing = self.seconds_until_token(name)
        if missing > 0:
            return missing
        bucket = self._filled(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(self._burst, self._clock())
            if len(self._buckets) > MAX_BUCKETS:
                self._buckets.popitem(last=False)
        bucket.tokens -= 1
        return 0.0

    def _filled(self, name: str) -> _Bucket | None:
        bucket = self._buckets.get(name)
        if bucket is not None:
            now = self._clock()
            bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._rate)
            bucket.at = now
            self._buckets.move_to_end(name)
        return bucket
