"""Faults of the network, between nodes, members and the target."""

from __future__ import annotations

import time

from tests.chaos.hand import Hand
from tests.chaos.wire import Rule, Way
from tests.support.waiting import wait_until


class OfNetwork(Hand):
    """The wire has one set of rules, so only one of these can be done at a time."""

    def _rule(self, low: float, high: float, *rules: Rule) -> None:
        self._wire.rule(*rules)
        try:
            time.sleep(self._dice.uniform(low, high))
        finally:
            self._wire.rule()

    def cut_primary(self) -> None:
        """One node does not reach the primary; the others do."""
        port = wait_until(self._mongo.primary, 60, "a primary")
        self._rule(3, 18, Rule("hold", (port,), (self._victim(),)))

    def isolate_leader(self) -> None:
        """The leader reaches no member at all; its requests go out as before."""
        self._rule(3, 18, Rule("hold", tuple(self._mongo.ports), (self._victim(leading=True),)))

    def one_way(self) -> None:
        """The requests of one node are executed, but their answers are lost; or the requests are lost, and answers would not be."""
        ways: tuple[Way, ...] = ("to", "from")
        self._rule(3, 18, Rule("hold", tuple(self._mongo.ports), (self._victim(),), self._dice.choice(ways)))

    def delay_node(self) -> None:
        """Everything between one node and the database takes longer, by up to half a second each way."""
        amount = self._dice.uniform(50, 500)
        self._rule(5, 15, Rule("delay", tuple(self._mongo.ports), (self._victim(),), amount=amount))

    def drip_node(self) -> None:
        """One node gets from the database, and brings there, a few thousand bytes a second."""
        amount = self._dice.uniform(20_000, 2000)
        self._rule(5, 15, Rule("drip", tuple(self._mongo.ports), (self._victim(),), amount=amount))

    def part_primary(self) -> None:
        """The primary and the two others do not see each other; nodes see all three."""
        port = wait_until(self._mongo.primary, 60, "a primary")
        others = [p for p in self._mongo.ports if p != port]
        pids = {p: self._mongo.processes[p].pid for p in self._mongo.ports}
        outward = Rule("hold", (port,), tuple(pids[p] for p in others))
        inward = Rule("hold", tuple(others), (pids[port],))
        self._rule(5, 20, outward, inward)

    def slow_receiver(self) -> None:
        """Each way to the target takes longer, by up to two seconds."""
        self._rule(3, 15, Rule("delay", (self._receiver.port,), amount=self._dice.uniform(200, 2000)))

    def reset_receiver(self) -> None:
        """Connections to the target break, and new ones do too."""
        self._rule(1, 8, Rule("reset", (self._receiver.port,)))

    def lose_answers(self) -> None:
        """The target takes requests and answers them; the answers are lost when the connections break."""
        self._wire.rule(Rule("hold", (self._receiver.port,), way="from"))
        try:
            time.sleep(self._dice.uniform(2, 8))
            self._rule(0.1, 0.3, Rule("reset", (self._receiver.port,)))
        finally:
            self._wire.rule()
