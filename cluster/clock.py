"""The one door to time.

`monotonic()` is for deadlines and never leaves the process. `now_ms()` is the cluster's time: the database's clock as
last learnt, carried on by the monotonic clock, so that a step of this machine's wall clock changes nothing.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

SAMPLES_KEPT_SECONDS = 20.0
JUMP_MS = 2000


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading of the database's clock: its middle on our monotonic clock (s), the reading (ms), the trip (s)."""

    at: float
    server_ms: int
    trip: float

    @property
    def offset_ms(self) -> float:
        """Server time minus monotonic time."""
        return self.server_ms - self.at * 1000


class Clock:
    """Monotonic time and cluster time of one node."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque()
        # Until the first reading the wall clock serves; the node is not ready before that reading.
        self._offset_ms = time.time() * 1000 - time.monotonic() * 1000

    @staticmethod
    def monotonic() -> float:
        """Seconds; only differences mean something, only in this process."""
        return time.monotonic()

    @staticmethod
    def wall_ms() -> int:
        """This machine's wall clock, for showing its offset alone."""
        return int(time.time() * 1000)

    def now_ms(self) -> int:
        """Cluster time in ms since 1970."""
        return int(time.monotonic() * 1000 + self._offset_ms)

    def until(self, instant_ms: float) -> float:
        """Seconds from now until a cluster instant; negative if it has passed."""
        return (instant_ms - self._offset_ms) / 1000 - time.monotonic()

    def learn(self, started: float, ended: float, server_ms: int) -> float:
        """Take in a reading made between two monotonic instants. Returns by how many ms the clock jumped, or 0.

        The reading with the shortest trip of the last 20 s counts, since half its trip bounds the error. A reading
        that contradicts the others by more than 2 s is a jump of the database's clock: the others are forgotten.
        """
        sample = Sample((started + ended) / 2, server_ms, ended - started)
        jump = sample.offset_ms - self._offset_ms
        jumped = bool(self._samples) and abs(jump) > JUMP_MS + sample.trip * 1000
        if jumped:
            self._samples.clear()
        self._samples.append(sample)
        while self._samples and ended - self._samples[0].at > SAMPLES_KEPT_SECONDS:
            self._samples.popleft()
        self._offset_ms = min(self._samples, key=lambda s: s.trip).offset_ms
        return jump if jumped else 0.0

    @property
    def wall_offset_ms(self) -> int:
        """This machine's wall clock minus cluster time: what operators should look at."""
        return self.wall_ms() - self.now_ms()
