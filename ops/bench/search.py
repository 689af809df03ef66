"""The search for the highest rate that holds, in few runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

STRIDE = 2
"""So many steps upwards at once, until a rate does not hold."""


def highest_rate(run: Callable[[int], T | None], start: int, step: int) -> T | None:
    """The result of the highest rate that holds, to one step: upwards in strides, then by halves.

    `run` measures a rate and returns None if it does not hold. None: not even one step holds.
    """
    best: T | None = None
    holds, fails, rate = 0, None, start
    while fails is None or fails - holds > step:
        result = run(rate)
        if result is None:
            fails = rate
        else:
            best, holds = result, rate
        rate = holds + STRIDE * step if fails is None else holds + max(1, (fails - holds) // step // 2) * step
    return best
