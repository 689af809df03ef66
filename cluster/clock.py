"""The one door to time.

`monotonic()` is for deadlines and never leaves the process. `now_ms()` is the cluster's time: the database's clock as
last learnt, carried on by the monotonic clock, so that a step of this machine's wall clock changes nothing.
"""

from __future__ import annotations

import time

SKEW_MS_PER_SECOND = 0.5
"""By how much two clocks may part in a second: 500 ppm, by which ntpd and the kernel slew a clock at most."""
MOST_EARLY_MS = 5.0
"""When a reading is taken in, cluster time is ahead of it by no more than this, however long the reading took."""
JUMP_MS = 2000
NARROW_MS = 100
"""So close together bounds say where the clock is, and not only where it is not."""


class Clock:
    """Monotonic time and cluster time of one node."""

    def __init__(self) -> None:
        self._read_at: float | None = None
        # Between these is what to add to monotonic time (ms).
        self._low = self._high = 0.0
        self._settled_ms: float | None = None
        """The offset when it was last known well, or a jump was told: from it jumps are counted."""
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

    def seconds_until(self, instant_ms: float) -> float:
        """Seconds from now until a cluster instant; negative if it has passed."""
        return (instant_ms - self._offset_ms) / 1000 - time.monotonic()

    def observe(self, started: float, ended: float, server_ms: int) -> float:
        """Take in a reading made between two monotonic instants. Returns by how many ms the clock jumped, or 0.

        Nobody knows when in between it was made, so a reading bounds the offset from both sides, and all of them
        together do so more closely than the shortest trip; bounds widen as they age. A reading that contradicts them is
        believed: the database's clock was set, or another member is the primary. By more than 2 s it is a jump; if its
        first reading takes so long that this is not sure, the next one tells.
        """
        low, high = server_ms - ended * 1000, server_ms + 1 - started * 1000
        apart = 0.0
        if self._read_at is not None:
            aged = (ended - self._read_at) * SKEW_MS_PER_SECOND
            known_low, known_high = self._low - aged, self._high + aged
            apart = max(low - known_high, known_low - high)
            if apart <= 0:
                low, high = max(low, known_low), min(high, known_high)
        self._low, self._high, self._read_at = low, high, ended
        # The middle, unless that may be early: what is sent a little late is on time, what is sent early never is.
        self._offset_ms = low + min((high - low) / 2, MOST_EARLY_MS)
        narrow = high - low <= NARROW_MS
        jump = 0.0 if self._settled_ms is None else self._offset_ms - self._settled_ms
        jumped = apart > JUMP_MS or (narrow and abs(jump) > JUMP_MS)
        if jumped or narrow:
            self._settled_ms = self._offset_ms
        return jump if jumped else 0.0

    @property
    def wall_offset_ms(self) -> int:
        """This machine's wall clock minus cluster time: what operators should look at."""
        return self.wall_ms() - self.now_ms()
