"""Running a scenario over many seeds, for its trails or for the first seed that breaks an invariant."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from tests.simulation.world import Broken

if TYPE_CHECKING:
    from collections.abc import Callable


BROKEN_RUNS = 20_000
SHIFT = int(os.environ.get("SIMULATION_SEED", "0"))
FIRST = SHIFT * 1_000_000
"""The first seed of each scenario."""


def explore(scenario: Callable[[int], Any], runs: int) -> set[int]:
    """The trails of so many runs; a broken invariant fails with the seed."""
    trails = set()
    for seed in range(FIRST, FIRST + runs):
        try:
            trails.add(scenario(seed).run().trail)
        except Broken as exc:
            name = getattr(scenario, "__name__", "scenario")
            raise Broken(f"seed {seed} of {name} (SIMULATION_SEED={SHIFT}): {exc}") from exc
    return trails


def first_to_show(finding: str, scenario: Callable[[int], Any], runs: int = BROKEN_RUNS) -> Broken:
    """The first seed with this finding; others of the same rule may come before."""
    others: list[str] = []
    for seed in range(FIRST, FIRST + runs):
        try:
            scenario(seed).run()
        except Broken as exc:
            if re.search(finding, str(exc)):
                return Broken(f"seed {seed} (SIMULATION_SEED={SHIFT}): {exc}")
            others.append(f"seed {seed}: {exc}")
    raise AssertionError(f"{finding} is shown by none of {runs} from {FIRST} on, but {others[:5]}")
