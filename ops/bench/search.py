"""The search for the highest rate that holds, in few runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

FACTOR = 1.3
"""So much higher each further rate is, until one does not hold."""
MOST_RUNS = 7


def highest_rate(run: Callable[[int], T | None], start: int, step: int, most: int = MOST_RUNS) -> T | None:
    """The result of the highest rate that holds: upwards by a factor, then by halves, to one step or until `most` rates were
    tried.

    `run` measures a rate and returns None if it does not hold. None: no rate that was tried holds.
    """
    best: T | None = None
    holds, fails, rate = 0, None, start
    for _ in range(most):
        result = run(rate)
        if result is None:
            fails = rate
        else:
            best, holds = result, rate
        if fails is not None and fails - holds <= step:
            break
        if fails is None:
            rate = max(holds + step, round(holds * FACTOR / step) * step)
        else:
            rate = holds + max(1, (fails - holds) // step // 2) * step
    return best
