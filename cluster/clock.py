"""The only source of time.

`monotonic()` is for deadlines and never leaves the process. `now_ms()` is cluster time: the database's clock as last
observed, carried on by the monotonic clock, so that a step of this machine's wall clock changes nothing.
"""

from __future__ import annotations

import time

SKEW_MS_PER_SECOND = 0.5
"""Two clocks may diverge by so much in a second: ntpd and the kernel slew a clock by at most 500 ppm."""
MOST_EARLY_MS = 5.0
"""Just after a reading, cluster time is ahead of the earliest possible one by no more, however long the reading took."""
JUMP_MS = 2000
NARROW_MS = 100
"""Bounds so close together are taken as a measurement of the clock."""


class Clock:
    """Monotonic time and cluster time of one node."""

    def __init__(self) -> None:
        self._read_at: float | None = None
        # The offset from monotonic time to cluster time (ms) lies between these.
        self._low = self._high = 0.0
        self._measured_ms: float | None = None
        """The offset when the bounds were last narrow, or when a jump was reported: jumps are counted from it."""
        self.held_ms = 0
        """How far the database's clock is from cluster time, which is held against a jump of it. 0: it is not held."""
        self._carried_ms = 0.0
        """The offset from monotonic time to cluster time while it is held. Readings of the wrong clock do not move it."""
        self._doubted_until = float("-inf")
        # Until the first reading the wall clock serves; the node is not ready before that reading.
        self._offset_ms = time.time() * 1000 - time.monotonic() * 1000

    @staticmethod
    def monotonic() -> float:
        """Seconds; only differences within this process mean something."""
        return time.monotonic()

    @staticmethod
    def wall_ms() -> int:
        """This machine's wall clock, only to show its offset."""
        return int(time.time() * 1000)

    def now_ms(self) -> int:
        """Cluster time in ms since 1970."""
        offset_ms = self._carried_ms if self.held_ms else self._offset_ms
        return int(self.monotonic() * 1000 + offset_ms)

    def seconds_until(self, instant_ms: float) -> float:
        """Seconds from now until a cluster instant; negative if it has passed."""
        offset_ms = self._carried_ms if self.held_ms else self._offset_ms
        return (instant_ms - offset_ms) / 1000 - self.monotonic()

    @property
    def in_doubt(self) -> bool:
        """Whether the database's clock may be wrong, or was a moment ago: nothing is judged by it."""
        return bool(self.held_ms) or self.monotonic() < self._doubted_until

    def hold(self, held_ms: int) -> None:
        """From now on the database's clock is wrong by so much, and cluster time goes on without it.

        If it is held already, it goes on as it did. The first reading after a jump may have taken long, and the readings
        that follow tell more closely where the wrong clock is: that changes `held_ms`, and not cluster time.
        """
        if not self.held_ms:
            self._carried_ms = self._offset_ms - held_ms
        self.held_ms = held_ms

    def release_hold(self, settle_seconds: float) -> None:
        """Cluster time is the database's again. It stays in doubt for so long: what it delayed is not to be judged."""
        if self.held_ms:
            self.held_ms = 0
            self._doubted_until = self.monotonic() + settle_seconds

    def observe(self, started: float, ended: float, server_ms: int) -> float:
        """Take in a reading made between two monotonic instants. Returns by how many ms the clock jumped, or 0.

        The reading was made somewhere between the two, so it bounds the offset from both sides. All readings together
        bound it more closely than the shortest round trip; bounds widen as they age. A reading that contradicts the
        bounds is believed: the database's clock was set, or another member is the primary. A difference of more than
        2 s is a jump. If the first reading after a jump took so long that this is not certain, the next one decides.
        """
        low, high = server_ms - ended * 1000, server_ms + 1 - started * 1000
        contradiction_ms = 0.0
        if self._read_at is not None:
            aged = (ended - self._read_at) * SKEW_MS_PER_SECOND
            known_low, known_high = self._low - aged, self._high + aged
            contradiction_ms = max(low - known_high, known_low - high)
            if contradiction_ms <= 0:
                low, high = max(low, known_low), min(high, known_high)
        self._low, self._high, self._read_at = low, high, ended
        # The middle, unless it may be too early: a request sent a little late is on time, one sent early never is.
        self._offset_ms = low + min((high - low) / 2, MOST_EARLY_MS)
        narrow = high - low <= NARROW_MS
        jump = 0.0 if self._measured_ms is None else self._offset_ms - self._measured_ms
        jumped = contradiction_ms > JUMP_MS or (narrow and abs(jump) > JUMP_MS)
        if jumped or narrow:
            self._measured_ms = self._offset_ms
        if jumped:
            return jump
        if self.held_ms and narrow:
            self.held_ms = round(self._offset_ms - self._carried_ms) or self.held_ms
        return 0.0

    @property
    def wall_offset_ms(self) -> int:
        """This machine's wall clock minus cluster time, for operators."""
        return self.wall_ms() - self.now_ms()
