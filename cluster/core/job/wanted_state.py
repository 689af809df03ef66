"""A definition and a wanted state (`active` or `paused`) in one change of one document.

    absent, deleted --active-> active       active --paused-> paused, with the new definition
                    --paused-> paused       paused --active-> active, with the new definition, from now on
    completed       --paused-> paused if its timing changed, else completed

Without a wanted state the state stays as it is. The terms of a pause are part of a paused state. Each result is what the two requests, one after the other, would make:
a definition never falls due between them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cluster.core.job.changes import define, pause, resume, with_terms
from cluster.core.job.definition import PAUSE_AS_IT_IS, JobChange
from cluster.core.lifecycle import JobState

if TYPE_CHECKING:
    from cluster.core.job.changes import ChangeStamp
    from cluster.core.job.definition import Definition, StoredJob, WantedPause


def define_in_state(
    old: StoredJob | None,
    job_id: str,
    wanted: Definition,
    at: ChangeStamp,
    state: JobState | None,
    terms: WantedPause = PAUSE_AS_IT_IS,
) -> JobChange | None:
    """As `define` and then `pause` or `resume`, with these terms of a pause. None if nothing changes.

    Raises what they raise.
    """
    return with_terms(old, _define_in_state(old, job_id, wanted, at, state), terms, at)


def _define_in_state(
    old: StoredJob | None, job_id: str, wanted: Definition, at: ChangeStamp, state: JobState | None
) -> JobChange | None:
    stands = old is not None and old.state in (JobState.ACTIVE, JobState.PAUSED)
    if old is None or not stands or state is None or state is old.state:
        change = define(old, job_id, wanted, at)
        if not stands and state is JobState.PAUSED and change is not None and change.job.state is JobState.ACTIVE:
            # The job begins its life paused: it has owed nothing since `active_from`, so there is no period to keep.
            return replace(change, job=replace(change.job, state=JobState.PAUSED))
        return change
    if state is JobState.PAUSED:
        paused = pause(old, at)
        return paused if paused is None else _both(old, paused, define(paused.job, job_id, wanted, at))
    defined = define(old, job_id, wanted, at)
    resumed = resume(old if defined is None else defined.job, at)
    return resumed if defined is None else _both(old, defined, resumed)


def _both(old: StoredJob, first: JobChange, second: JobChange | None) -> JobChange:
    """Two changes of one request as one write: one revision, and the later of the two beginnings."""
    if second is None:
        return first
    begin_ms = max(first.job.active_from_ms, second.job.active_from_ms)
    job = replace(second.job, revision=old.revision + 1, active_from_ms=begin_ms)
    return JobChange(job, first.past or second.past, first.change_id or second.change_id)
