"""Leaders that find any second crowded: their batches may be claimed 0.6 to 4 s before their send times."""

from __future__ import annotations

import random

from cluster.core.execution.crowds import Crowds
from cluster.core.timings import LONGEST_PREFETCH_MS, PREFETCH_MS, SHORTEST_PREFETCH_MS


class AnyCrowds(Crowds):
    """A prefetch as chance has it, as between executions of which a simulation never has thousands.

    The chance is its own, so that the interleavings of a seed stay what they are.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)

    def prefetch_ms(self, second: int, place: int, executions: int, *, may_wait: bool) -> int:
        """Any one that there may be, the usual one most often."""
        super().prefetch_ms(second, place, executions, may_wait=may_wait)
        if self._random.random() < 0.5:
            return PREFETCH_MS
        return self._random.randint(SHORTEST_PREFETCH_MS, LONGEST_PREFETCH_MS)
