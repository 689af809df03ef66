"""A definition with a state: what the two requests, one after the other, would leave, in one write."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.core.errors import Conflict
from cluster.core.job import changes
from cluster.core.job.changes import ChangeStamp
from cluster.core.job.definition import Definition, StoredJob
from cluster.core.job.wanted_state import define_in_state
from cluster.core.lifecycle import JobState

A, P, C, D = JobState.ACTIVE, JobState.PAUSED, JobState.COMPLETED, JobState.DELETED
NOW = 1_900_000_000_500
LATER = NOW + 3_600_250
PLAIN = Definition("@every 90s", "http://127.0.0.1/", 1)
RETIMED = replace(PLAIN, schedule="@every 7s")
RENAMED = replace(PLAIN, name="x")
AT = ChangeStamp(LATER, "v2", "c2")


def made(state: JobState) -> StoredJob:
    change = changes.define(None, "a", PLAIN, ChangeStamp(NOW, "v1", "c1"))
    assert change is not None
    return replace(change.job, state=state, revision=5)


@pytest.mark.parametrize("wanted", [PLAIN, RENAMED, RETIMED])
@pytest.mark.parametrize(("before", "state"), [(A, P), (P, A)])
def test_a_change_of_state_and_definition_is_one_revision(
    before: JobState, state: JobState, wanted: Definition
) -> None:
    """The period of the old schedule ends once, and a resumed job owes nothing for its pause."""
    old = made(before)
    change = define_in_state(old, "a", wanted, AT, state)
    assert change is not None
    job = change.job
    assert (job.state, job.definition, job.revision, change.change_id) == (state, wanted, 6, "c2")
    assert job.schedule_key == changes.schedule_of(wanted, job.anchor_ms).key
    if state is P:
        assert change.past is not None
        assert (change.past.schedule_version, change.past.from_ms, change.past.to_ms) == (
            "v1",
            old.active_from_ms,
            LATER,
        )
    else:
        assert change.past is None, "the period of a paused job ended with the pause"
        assert job.schedule_version == "v2"
        # A new interval counts from the next whole second, which is no occurrence of it.
        assert job.active_from_ms == (LATER + 1 if wanted is not RETIMED else LATER + 250 + 1)


@pytest.mark.parametrize(("before", "state"), [(A, A), (P, P), (A, None), (P, None), (C, A), (C, P), (C, None)])
def test_the_same_state_changes_nothing_by_itself(before: JobState, state: JobState | None) -> None:
    """So that a request may be repeated; a completed job stays so until its schedule changes."""
    old = made(before)
    assert define_in_state(old, "a", PLAIN, AT, state) is None
    renamed = define_in_state(old, "a", RENAMED, AT, state)
    assert renamed is not None
    assert (renamed.job.state, renamed.past, renamed.change_id) == (before, None, None)


@pytest.mark.parametrize("state", [A, P, None])
@pytest.mark.parametrize("before", [None, D, C])
def test_a_job_may_begin_in_either_state(before: JobState | None, state: JobState | None) -> None:
    """New, created again, or revived by another schedule; a paused one can be resumed."""
    old = None if before is None else made(before)
    change = define_in_state(old, "a", RETIMED, AT, state)
    assert change is not None
    assert (change.job.state, change.change_id) == (state or A, "c2")
    if state is P:
        resumed = changes.resume(change.job, ChangeStamp(LATER + 5000, "v3", "c3"))
        assert resumed is not None
        assert (resumed.job.active_from_ms, resumed.past) == (LATER + 5001, None)


def test_what_never_runs_again_is_not_resumed() -> None:
    """As by the request to resume."""
    ended = replace(PLAIN, end_ms=LATER - 1)
    with pytest.raises(Conflict, match="no occurrence left"):
        define_in_state(replace(made(P), definition=ended), "a", ended, AT, A)
