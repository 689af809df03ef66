"""The faults of a cluster of processes: of its nodes, its database, its network, its clocks and its target."""

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
"""The effects that a fault may have. Those not named here: lateness and a second delivery. An old token after a newer
one is a request that was on its way while its sender, or the target, was frozen."""
GROUPS = {"nodes": OfNodes, "members": OfMembers, "network": OfNetwork, "target": OfTarget}


class Faults(OfNodes, OfMembers, OfNetwork, OfTarget):
    """The faults by name."""

    def kinds(self, chosen: frozenset[str] = frozenset()) -> list[Callable[[], None]]:
        """The faults that are possible here, or the chosen ones of them."""
        names = [n for g in GROUPS.values() for n in vars(g) if not n.startswith("_")]
        lacking = {
            *([] if FAKETIME.exists() else ["wrong_clock"]),
            *(["full_disk"] if self.cluster.small is None else []),
        }
        found = [n for n in names if (not chosen or n in chosen) and n not in lacking]
        assert not chosen - set(found), f"there are {', '.join(names)}; not here: {', '.join(lacking) or 'none'}"
        return [getattr(self, n) for n in found]

    def done(self, kind: Callable[[], None]) -> Fault:
        """Inject a fault, and record it with its times, also if it failed half-way."""
        name, start = kind.__name__, now_ms()
        try:
            kind()
        finally:
            after = BREAKER_MS if name in FELT_BY_THE_BREAKER else 0
            fault = Fault(name, start, now_ms(), after, EXPLAINS.get(name, ("late", "again")), group(name))
            self.cluster.injected.append(fault)
        return fault


def group(name: str) -> str:
    """The victims of a fault. Two faults of one group must not overlap: they would undo each other."""
    return next(g for g, faults in GROUPS.items() if name in vars(faults))
