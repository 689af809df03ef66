"""Running a scenario over many seeds, for its trails or for the first seed that breaks an invariant."""

from __future__ import annotations

import os
import re
import warnings
from typing import TYPE_CHECKING, Any

from tests.simulation.world import Broken

if TYPE_CHECKING:
    from collections.abc import Callable


BROKEN_RUNS = 20_000
FOUND_BY: dict[str, int] = {
    "lease not checked again before the request": 2644,
    "siblings release by the batch alone": 808,
    "unanswered renewal trusted": 1857,
    "later changes count as settled too": 35,
    "an ended execution counts as running": 8,
    "taken from its owner": 104,
    "what was reopened is not repaired": 144,
}
"""Rules that are found late if the seeds are tried in order, and a seed that shows each: CI tries it first.

After a change of the engine or of a scenario it may show nothing. Then all are tried in order, as for the other rules, and
a warning says which seed belongs here.
"""
SHIFT = int(os.environ.get("SIMULATION_SEED", "0"))
FIRST = SHIFT * 1_000_000
"""The first seed of each scenario."""
TIMES = int(os.environ.get("SIMULATION_TIMES", "1"))
"""How many times as many runs of whole workers, changing jobs and clocks as in `make test`."""


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


def first_to_show(
    finding: str, scenario: Callable[[int], Any], runs: int = BROKEN_RUNS, rule: str | None = None
) -> Broken:
    """A seed with this finding: the one that is known for the rule, else the first; others of the rule may come before."""
    others: list[str] = []
    known = [FOUND_BY[rule]] if rule in FOUND_BY and SHIFT == 0 else []
    for seed in (*known, *range(FIRST, FIRST + runs)):
        try:
            scenario(seed).run()
        except Broken as exc:
            if re.search(finding, str(exc)):
                if known and seed != known[0]:
                    warnings.warn(
                        f"{rule}: FOUND_BY has seed {known[0]}, which shows it no more: {seed} does", stacklevel=2
                    )
                return Broken(f"seed {seed} (SIMULATION_SEED={SHIFT}): {exc}")
            others.append(f"seed {seed}: {exc}")
    raise AssertionError(f"{finding} is shown by none of {runs} from {FIRST} on, but {others[:5]}")
