"""The slots of one node: how many requests are in flight, how many of them each target host takes up, and the memory that
their bodies take up.

Hosts share that memory as they share slots: a host that answers quickly may use three quarters of it, another one a quarter,
and these use half of it together. The first large body for a host only has to fit in.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cluster.core.limits.host_slots import HostSlots

if TYPE_CHECKING:
    from cluster.clock import Clock

MAX_BODY_BYTES = 32 * 1024 * 1024
"""Large bodies in memory at a time. One that is larger by itself is sent alone."""
STUCK_SECONDS = 1.0
"""No slot free and none freed for so long: another node will send sooner the executions that wait here."""


class Slots:
    """`count` requests at a time. An execution takes a slot before its request is sent, and frees it when that ended."""

    def __init__(self, clock: Clock, count: int, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._clock = clock
        self._count = count
        self._freed_at = 0.0
        self._hosts = HostSlots(count)
        self._max_body_bytes = max_body_bytes
        self.in_flight = 0
        self.body_bytes = 0
        """Of the large bodies that are in memory."""
        self._bytes_by_host: Counter[str] = Counter()
        self._bytes_freed_at = 0.0

    def available(self) -> bool:
        """Whether a slot is free."""
        return self.in_flight < self._count

    def has_room(self, host: str, now: float, body_bytes: int = 0) -> bool:
        """Whether one more request to this host may start. `now`: monotonic seconds; `body_bytes`: of a large body."""
        return self._hosts.has_room(host, now) and (not body_bytes or self._fits(host, now, body_bytes))

    def waits_its_turn(self, host: str, now: float) -> bool:
        """Whether this host gets the next slot that comes free: it was not slow, and others use all that it could have."""
        return not self.available() or self._hosts.waits_its_turn(host, now)

    def _fits(self, host: str, now: float, body_bytes: int) -> bool:
        if not self.body_bytes:
            return True
        if self.body_bytes + body_bytes > self._max_body_bytes:
            return False
        own = self._bytes_by_host.get(host, 0)
        if not own:
            return True
        if self._hosts.trusts(host, now):
            return own + body_bytes <= self._max_body_bytes * 3 // 4
        doubtful = sum(size for name, size in self._bytes_by_host.items() if not self._hosts.trusts(name, now))
        return own + body_bytes <= self._max_body_bytes // 4 and doubtful + body_bytes <= self._max_body_bytes // 2

    def bodies_stuck(self) -> bool:
        """Whether the large bodies in memory hang, so that it is not known when there is room for others."""
        return bool(self.body_bytes) and self._clock.monotonic() - self._bytes_freed_at > STUCK_SECONDS

    def stuck(self) -> bool:
        """Whether every slot hangs, so that it is not known when one comes free."""
        return self.in_flight >= self._count and self._clock.monotonic() - self._freed_at > STUCK_SECONDS

    def trusts(self, host: str) -> bool:
        """Whether this host answers quickly."""
        return self._hosts.trusts(host, self._clock.monotonic())

    def free_for(self, host: str) -> int:
        """How many more requests to this host may begin now, at most."""
        return self._hosts.free(host, self._clock.monotonic())

    def per_second(self, host: str) -> int:
        """How many requests to this host ended in a second of late."""
        return self._hosts.per_second(host, self._clock.monotonic())

    def full_hosts(self) -> list[str]:
        """Hosts that use all the slots they may have now."""
        return self._hosts.full_hosts(self._clock.monotonic())

    def takes_turns(self, host: str, now: float) -> bool:
        """Whether what waits for this host gets slots one after another: it answers quickly, and no large bodies hang."""
        return self._hosts.trusts(host, now) and not self.bodies_stuck()

    def slow_hosts(self) -> list[str]:
        """Hosts that use all the slots they may have, and are slow."""
        return self._hosts.slow_hosts(self._clock.monotonic())

    def take(self, host: str, execution_id: str, body_bytes: int = 0) -> None:
        """A request to this host begins."""
        self.in_flight += 1
        if body_bytes:
            if not self.body_bytes:
                self._bytes_freed_at = self._clock.monotonic()
            self.body_bytes += body_bytes
            self._bytes_by_host[host] += body_bytes
        self._hosts.begin(host, execution_id, self._clock.monotonic())

    def free(self, host: str, execution_id: str, body_bytes: int = 0) -> None:
        """It has ended."""
        self.in_flight -= 1
        self._freed_at = now = self._clock.monotonic()
        if body_bytes:
            self.body_bytes -= body_bytes
            self._bytes_freed_at = now
            self._bytes_by_host[host] -= body_bytes
            if not self._bytes_by_host[host]:
                del self._bytes_by_host[host]
        self._hosts.end(host, execution_id, now)
