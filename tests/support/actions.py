"""Running the actions of a leader by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.leader.leader import Leader


async def act_until_done(leader: Leader) -> int:
    """Run pages until no action is left, without waiting for the rate. Returns the number of jobs that were changed."""
    changed = 0
    clock = leader.job_actions._context.clock
    while (done := await leader.job_actions.step()).more:
        changed += done.jobs
        clock.now += 1000  # type: ignore[attr-defined] # a clock that is set by hand
    return changed
