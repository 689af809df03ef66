"""Faults of the nodes."""

from __future__ import annotations

import functools
import signal
import time

from tests.chaos.hand import Hand
from tests.chaos.hooks import at_point
from tests.support.waiting import wait_until


class OfNodes(Hand):
    """Nodes die, freeze, stop, block or read a wrong clock."""

    def kill_leader(self) -> None:
        self._signal(self._victim(leading=True), signal.SIGKILL)

    def kill_node(self) -> None:
        self._signal(self._victim(leading=False), signal.SIGKILL)

    def kill_all(self) -> None:
        """Every node at once. The arbiter starts new ones; no leader resigned, so its lease has to end first."""
        for pid in self._alive().values():
            self._signal(pid, signal.SIGKILL)

    def freeze_leader(self) -> None:
        self._freeze([self._victim(leading=True)])

    def freeze_node(self) -> None:
        self._freeze([self._victim(leading=False)])

    def freeze_all(self) -> None:
        self._freeze(list(self._alive().values()))

    def _freeze(self, pids: list[int]) -> None:
        for pid in pids:
            self._signal(pid, signal.SIGSTOP)
        time.sleep(self._dice.uniform(3, 18))
        for pid in pids:
            self._signal(pid, signal.SIGCONT)

    def stop_node(self) -> None:
        self._signal(self._victim(), signal.SIGTERM)

    def rolling_restart(self) -> None:
        for name, pid in sorted(self._alive().items()):
            count = len(self._alive())
            self._signal(pid, signal.SIGTERM)
            wait_until(functools.partial(self._replaced, name, count), 60, name)

    def _replaced(self, name: str, count: int) -> bool:
        alive = self._alive()
        return name not in alive and len(alive) >= count

    def block_leader(self) -> None:
        """The leader's event loop is blocked between two writes, for longer than its lease or not."""
        at_point(self._points, "cluster.store.schedules.advance", "block", self._dice.uniform(3, 15))

    def block_node(self) -> None:
        """The event loop of a node is blocked when it is about to renew its leases, for longer than they last or not."""
        at_point(self._points, "cluster.store.batches.renew", "block", self._dice.uniform(3, 35))

    def wrong_clock(self) -> None:
        """One node's wall clock goes off by a minute, either way, and comes back."""
        file = self.cluster.clocks / str(self._victim())
        file.write_text(self._dice.choice(("+60s", "-60s")))
        time.sleep(self._dice.uniform(5, 20))
        file.write_text("+0s")
