"""How many slots a target host may use on one node: trust is earned by quick answers and lost by slow ones.

| host | may use |
|---|---|
| trusted: enough of its latest answers came within a second, and its oldest request is not older | three quarters |
| any other | a quarter, while all of these together use less than half |
| any other with nothing under way that never was slow | one slot, while all of these together use less than 7/8 |

So whatever hangs, however many hosts do, an eighth of the slots is left for those that answer, and a host that nobody
knows yet may always show what it can do. The same name on another port is another host.
"""

from __future__ import annotations

SLOW_SECONDS = 1.0
REMEMBERED_ANSWERS = 64
MIN_ANSWERS = 16
REMEMBERED_HOSTS = 4096
"""So many idle hosts are remembered; one that was forgotten begins anew."""
RECOUNT_SECONDS = 0.02


class HostUsage:
    """One host on one node: what runs now and how the latest requests went. Times are monotonic seconds."""

    __slots__ = ("_latest", "_slow", "running", "started")

    def __init__(self) -> None:
        self.running = 0
        self.started: dict[str, float] = {}
        self._latest: list[bool] = []
        self._slow = 0

    def begin(self, execution_id: str, now: float) -> None:
        """A request left."""
        self.running += 1
        self.started[execution_id] = now

    def end(self, execution_id: str, now: float) -> None:
        """A request ended, however it did."""
        self.running -= 1
        slow = now - self.started.pop(execution_id, now) > SLOW_SECONDS
        self._latest.append(slow)
        self._slow += slow
        if len(self._latest) > REMEMBERED_ANSWERS:
            self._slow -= self._latest.pop(0)

    def _hangs(self, now: float) -> bool:
        # Insertion order is start order: a hanging target shows in its oldest request before any answer comes.
        return bool(self.started) and now - next(iter(self.started.values())) > SLOW_SECONDS

    def is_trusted(self, now: float) -> bool:
        """Whether it has shown that it answers quickly, and still does."""
        return len(self._latest) >= MIN_ANSWERS and self._slow * 20 <= len(self._latest) and not self._hangs(now)

    def is_slow(self, now: float) -> bool:
        """Whether it has shown that it does not."""
        return self._slow * 20 > len(self._latest) or self._hangs(now)


class HostSlots:
    """All target hosts of one node, and its slots."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._hosts: dict[str, HostUsage] = {}
        self._doubtful = 0
        self._counted_at = float("-inf")

    def begin(self, host: str, execution_id: str, now: float) -> None:
        """A request to this host left."""
        lane = self._hosts.get(host)
        if lane is None:
            if len(self._hosts) >= REMEMBERED_HOSTS:
                self._hosts = {h: known for h, known in self._hosts.items() if known.running}
            lane = self._hosts[host] = HostUsage()
        lane.begin(execution_id, now)
        self._doubtful += not lane.is_trusted(now)

    def end(self, host: str, execution_id: str, now: float) -> None:
        """A request to this host ended."""
        lane = self._hosts[host]
        self._doubtful = max(0, self._doubtful - (not lane.is_trusted(now)))
        lane.end(execution_id, now)

    def has_room(self, host: str, now: float) -> bool:
        """Whether one more request to this host may start now."""
        lane = self._hosts.get(host)
        running = 0 if lane is None else lane.running
        if lane is not None and lane.is_trusted(now):
            return running < max(1, self._slots - self._slots // 4)
        doubtful = self._count(now)
        if running == 0 and (lane is None or not lane.is_slow(now)):
            return doubtful < max(1, self._slots - self._slots // 8)
        return running < max(1, self._slots // 4) and doubtful < max(1, self._slots // 2)

    def full_hosts(self, now: float) -> list[str]:
        """Hosts with requests under way that may start no other one."""
        return [host for host, lane in self._hosts.items() if lane.running and not self.has_room(host, now)]

    def slow_hosts(self, now: float) -> list[str]:
        """Hosts that may start no other request because they are slow."""
        return [host for host in self.full_hosts(now) if self._hosts[host].is_slow(now)]

    def _count(self, now: float) -> int:
        """Requests under way to hosts that are not trusted; a few ms old, since there may be as many hosts as slots."""
        if now - self._counted_at > RECOUNT_SECONDS:
            self._counted_at = now
            self._doubtful = sum(
                lane.running for lane in self._hosts.values() if lane.running and not lane.is_trusted(now)
            )
        return self._doubtful
