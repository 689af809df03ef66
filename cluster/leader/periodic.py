"""The entries of the leader's list of steps, and what one run of a step did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of one run of a step, as `Leader` counts it."""

    counts: Mapping[str, int] = field(default_factory=dict)
    """Added to the leader's counters."""
    more: bool = False
    """The step has more to do at once."""
    ends_turn: bool = False
    """The steps after this one must not run in this turn."""
    idle: bool = False
    """The step has found nothing to do."""


@dataclass(frozen=True, slots=True)
class Periodic:
    """One step of the leader's turn. `step` does one bounded piece of work for that many live nodes."""

    name: str
    step: Callable[[int], Awaitable[StepResult]]
    every: float = 0.0
    """Seconds between the beginnings of two runs; 0: the step runs in each turn."""
    rests: float = 0.0
    """So many seconds it does not run after it has found nothing to do."""
    wakes: tuple[str, ...] = ()
    """Steps that rest no longer once this one has found something: it may have made work for them."""
    contained: bool = False
    """An unexpected error of this step is logged, and the steps after it run nevertheless."""
    of_jobs: bool = False
    """The step does what is due to jobs that are unsettled, or whose pause is over: it runs in turns that find such a job."""
    yields_to: str | None = None
    """The step does not run in a turn in which the step of this name has more to do."""
