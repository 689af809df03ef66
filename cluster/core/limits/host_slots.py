"""How many of a node's slots a target host may use. A host earns trust by quick answers and loses it by slow ones.

| host | may use |
|---|---|
| trusted: enough of its latest answers came within a second, and its oldest request is not older | three quarters |
| not trusted | a quarter, while all hosts that are not trusted use less than half together |
| not trusted, never slow, no request in flight | one slot, while all hosts that are not trusted use less than 7/8 |

However many hosts hang, an eighth of the slots remains for hosts that answer, and a new host always gets a slot to earn
trust with. The same name on another port is another host.
"""

from __future__ import annotations

SLOW_SECONDS = 1.0
REMEMBERED_ANSWERS = 64
MIN_ANSWERS = 16
REMEMBERED_HOSTS = 4096
"""The most idle hosts that are remembered. A host that was forgotten starts without trust."""
RECOUNT_SECONDS = 0.02


class HostUsage:
    """One host on one node: its requests in flight, and how quick its latest answers were. Times are monotonic
    seconds.
    """

    __slots__ = ("_before", "_ended", "_latest", "_oldest", "_since", "_slow", "running", "started")

    def __init__(self) -> None:
        self.running = 0
        self.started: dict[str, float] = {}
        self._oldest = 0.0
        """No request in flight began earlier; maybe the oldest one began later."""
        self._latest: list[bool] = []
        self._slow = 0
        self._since = 0.0
        """Since when `_ended` counts. `_before`: what it was in the second before."""
        self._ended = self._before = 0

    def begin(self, execution_id: str, now: float) -> None:
        """Count a request that was sent."""
        self.running += 1
        if not self.started:
            self._oldest = now
        self.started[execution_id] = now

    def end(self, execution_id: str, now: float) -> None:
        """Count a request that ended, with or without an answer."""
        self.running -= 1
        slow = now - self.started.pop(execution_id, now) > SLOW_SECONDS
        self._latest.append(slow)
        self._slow += slow
        if len(self._latest) > REMEMBERED_ANSWERS:
            self._slow -= self._latest.pop(0)
        self._turn_second(now)
        self._ended += 1

    def _turn_second(self, now: float) -> None:
        age = now - self._since
        if age >= 1:
            self._before = self._ended if age < 2 else 0
            self._since, self._ended = now, 0

    def per_second(self, now: float) -> int:
        """How many requests ended in a second of late."""
        self._turn_second(now)
        return max(self._before, self._ended)

    def _hangs(self, now: float) -> bool:
        if now - self._oldest <= SLOW_SECONDS or not self.started:
            return False
        # Insertion order is start order: the oldest request shows that a host hangs, before any answer comes.
        self._oldest = next(iter(self.started.values()))
        return now - self._oldest > SLOW_SECONDS

    def is_trusted(self, now: float) -> bool:
        """Whether its latest answers were quick, and no request hangs."""
        return len(self._latest) >= MIN_ANSWERS and self._slow * 20 <= len(self._latest) and not self._hangs(now)

    def is_slow(self, now: float) -> bool:
        """Whether too many of its latest answers were slow, or a request hangs."""
        return self._slow * 20 > len(self._latest) or self._hangs(now)


class HostSlots:
    """The slots of one node, and the target hosts that use them."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._of_trusted = max(1, slots - slots // 4)
        self._hosts: dict[str, HostUsage] = {}
        self._doubtful = 0
        self._counted_at = float("-inf")

    def begin(self, host: str, execution_id: str, now: float) -> None:
        """Count a request to this host that was sent."""
        usage = self._hosts.get(host)
        if usage is None:
            if len(self._hosts) >= REMEMBERED_HOSTS:
                self._hosts = {h: usage for h, usage in self._hosts.items() if usage.running}
            usage = self._hosts[host] = HostUsage()
        usage.begin(execution_id, now)
        self._doubtful += not usage.is_trusted(now)

    def end(self, host: str, execution_id: str, now: float) -> None:
        """Count a request to this host that ended."""
        usage = self._hosts[host]
        self._doubtful = max(0, self._doubtful - (not usage.is_trusted(now)))
        usage.end(execution_id, now)

    def trusts(self, host: str, now: float) -> bool:
        """Whether this host answers quickly."""
        usage = self._hosts.get(host)
        return usage is not None and usage.is_trusted(now)

    def waits_its_turn(self, host: str, now: float) -> bool:
        """Whether this host uses no slot, was not slow, and gets none only because others use those that it could have."""
        usage = self._hosts.get(host)
        return (usage is None or not (usage.running or usage.is_slow(now))) and not self.has_room(host, now)

    def has_room(self, host: str, now: float) -> bool:
        """Whether one more request to this host may be sent now."""
        usage = self._hosts.get(host)
        running = 0 if usage is None else usage.running
        if usage is not None and usage.is_trusted(now):
            return running < self._of_trusted
        doubtful = self._count(now)
        if running == 0 and (usage is None or not usage.is_slow(now)):
            return doubtful < max(1, self._slots - self._slots // 8)
        return running < max(1, self._slots // 4) and doubtful < max(1, self._slots // 2)

    def free(self, host: str, now: float) -> int:
        """How many more requests to this host may be sent now, at most: other hosts may leave less."""
        usage = self._hosts.get(host)
        most = self._of_trusted if self.trusts(host, now) else max(1, self._slots // 4)
        return max(0, most - (0 if usage is None else usage.running))

    def per_second(self, host: str, now: float) -> int:
        """How many requests to this host ended in a second of late."""
        usage = self._hosts.get(host)
        return 0 if usage is None else usage.per_second(now)

    def full_hosts(self, now: float) -> list[str]:
        """Hosts with requests in flight that may not get another slot now."""
        return [host for host, usage in self._hosts.items() if usage.running and not self.has_room(host, now)]

    def slow_hosts(self, now: float) -> list[str]:
        """Hosts that may not get another slot now because they are slow."""
        return [host for host in self.full_hosts(now) if self._hosts[host].is_slow(now)]

    def _count(self, now: float) -> int:
        """Requests in flight to hosts that are not trusted. The count may be a few ms old, because counting costs as
        much as there are hosts.
        """
        if now - self._counted_at > RECOUNT_SECONDS:
            self._counted_at = now
            self._doubtful = sum(
                usage.running for usage in self._hosts.values() if usage.running and not usage.is_trusted(now)
            )
        return self._doubtful
