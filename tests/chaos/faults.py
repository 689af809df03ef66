"""What can be done to a cluster of processes: to its nodes, its database, its network, its clocks and its target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos.evidence import Fault
from tests.chaos.hooks import FAKETIME
from tests.chaos.observe import now_ms
from tests.chaos.of_members import OfMembers
from tests.chaos.of_network import OfNetwork
from tests.chaos.of_nodes import OfNodes
from tests.chaos.of_target import OfTarget

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.evidence import Effect

BREAKER_MS = 60_000
"""The circuit breaker of a target that failed again and again waits up to a minute before it tries it once more."""
FELT_BY_THE_BREAKER = frozenset({"freeze_receiver", "stop_receiver", "slow_receiver", "reset_receiver", "lose_answers"})
EXPLAINS: dict[str, tuple[Effect, ...]] = {
    "wrong_clock": (),
    "lose_secondary": ("late",),
    "stop_node": ("late",),
    "rolling_restart": ("late",),
    "slow_receiver": ("late", "stale"),
    "freeze_receiver": ("late", "stale"),
    **dict.fromkeys(("freeze_node", "freeze_leader", "freeze_all"), ("late", "again", "stale")),
    **dict.fromkeys(("block_node", "block_leader"), ("late", "again", "stale")),
}
"""What a fault may be the reason of. Those not named: lateness, and that something is sent again. An old token after a
newer one has to have been on its way when its sender, or the target, stood still."""
GROUPS = {"nodes": OfNodes, "members": OfMembers, "network": OfNetwork, "target": OfTarget}


class Faults(OfNodes, OfMembers, OfNetwork, OfTarget):
    """The faults by name."""

    def kinds(self, chosen: frozenset[str] = frozenset()) -> list[Callable[[], None]]:
        """Those that can be done here, or the chosen ones of them."""
        names = [n for g in GROUPS.values() for n in vars(g) if not n.startswith("_")]
        lacking = {
            *([] if FAKETIME.exists() else ["wrong_clock"]),
            *(["full_disk"] if self.cluster.small is None else []),
        }
        found = [n for n in names if (not chosen or n in chosen) and n not in lacking]
        assert not chosen - set(found), f"there are {', '.join(names)}; not here: {', '.join(lacking) or 'none'}"
        return [getattr(self, n) for n in found]

    def done(self, kind: Callable[[], None]) -> Fault:
        """Do it, and write down what was done and when, also if it went wrong half way."""
        name, start = kind.__name__, now_ms()
        try:
            kind()
        finally:
            after = BREAKER_MS if name in FELT_BY_THE_BREAKER else 0
            fault = Fault(name, start, now_ms(), after, EXPLAINS.get(name, ("late", "again")), group(name))
            self.cluster.felt.append(fault)
        return fault


def group(name: str) -> str:
    """What a fault is done to. Two of one group must not be done at once: they would undo each other."""
    return next(g for g, faults in GROUPS.items() if name in vars(faults))
