"""What a request makes of a job: every state with every request."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from cluster.core.errors import Conflict, InvalidInput
from cluster.core.job import changes
from cluster.core.job.changes import ChangeStamp
from cluster.core.job.definition import Definition, JobChange, StoredJob
from cluster.core.lifecycle import JobState

NOW = 1_900_000_000_500


HOUR = 3_600_000


PLAIN = Definition("0 0 3 * * *", "http://127.0.0.1/", 1)


NAMES = count()


def at(now_ms: int = NOW) -> ChangeStamp:
    return ChangeStamp(now_ms, f"v{next(NAMES)}", f"m{next(NAMES)}")


def made(definition: Definition = PLAIN, state: JobState = JobState.ACTIVE) -> StoredJob:
    change = changes.define(None, "a", definition, at())
    assert change is not None
    return replace(change.job, state=state)


REQUESTS = {
    "same": lambda job, m: changes.define(job, "a", PLAIN, m),
    "rename": lambda job, m: changes.define(job, "a", replace(PLAIN, name="x"), m),
    "retime": lambda job, m: changes.define(job, "a", replace(PLAIN, schedule="0 0 4 * * *"), m),
    "pause": changes.pause,
    "resume": changes.resume,
    "delete": changes.delete,
}


A, P, C, D = JobState.ACTIVE, JobState.PAUSED, JobState.COMPLETED, JobState.DELETED


# state, request -> state after, new version, past period kept, marked for the leader; None: nothing; str: refused
TABLE: dict[tuple[JobState, str], tuple[JobState, bool, bool, bool] | str | None] = {
    (A, "same"): None,
    (A, "rename"): (A, False, False, False),
    (A, "retime"): (A, True, True, True),
    (A, "pause"): (P, False, True, True),
    (A, "resume"): None,
    (A, "delete"): (D, False, True, True),
    (P, "same"): None,
    (P, "rename"): (P, False, False, False),
    (P, "retime"): (P, True, False, True),
    (P, "pause"): None,
    (P, "resume"): (A, True, False, True),
    (P, "delete"): (D, False, False, True),
    (C, "same"): None,
    (C, "rename"): (C, False, False, False),
    (C, "retime"): (A, True, True, True),
    (C, "pause"): "refused",
    (C, "resume"): "refused",
    (C, "delete"): (D, False, True, True),
    (D, "same"): (A, True, False, True),
    (D, "rename"): (A, True, False, True),
    (D, "retime"): (A, True, False, True),
    (D, "pause"): "refused",
    (D, "resume"): "refused",
    (D, "delete"): None,
}


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("request_", REQUESTS)
def test_every_request_in_every_state_does_what_the_table_says(state: JobState, request_: str) -> None:
    """Each pair does what the table says; every change raises the revision by one and starts no earlier than now."""
    old = made(state=state)
    moment = at(NOW + HOUR)
    expected = TABLE[state, request_]
    if isinstance(expected, str):
        with pytest.raises(Conflict):
            REQUESTS[request_](old, moment)
        return
    change: JobChange | None = REQUESTS[request_](old, moment)
    if expected is None:
        assert change is None
        return
    assert change is not None
    new = change.job
    fresh = new.schedule_version != old.schedule_version
    assert (new.state, fresh, change.past is not None, change.change_id is not None) == expected
    assert new.revision == old.revision + 1
    assert new.updated_ms == moment.now_ms
    assert new.active_from_ms == (moment.now_ms + 1 if fresh else old.active_from_ms)
    if change.past is not None:
        assert (change.past.from_ms, change.past.to_ms) == (old.active_from_ms, moment.now_ms)
        assert change.past.schedule_version == old.schedule_version


def test_a_change_that_keeps_the_timing_needs_no_settling() -> None:
    """It has no change id, and the schedule version stays."""
    old = made()
    for change in (
        {"lane": 2, "url": "http://127.0.0.2/"},
        {"spread_seconds": 9},
        {"catch_up": "none"},
        {"catch_up_window_seconds": 9},
        {"body": b"x", "body_kind": "text"},
        {"tags": ("x",)},
        {"overlap": "skip"},
    ):
        made_of = changes.define(old, "a", replace(PLAIN, **change), at(NOW + 1))
        assert made_of is not None
        assert made_of.change_id is None, change
        assert made_of.job.schedule_version == old.schedule_version


def test_the_grid_of_an_interval_moves_with_its_schedule_only() -> None:
    """It starts at startAt or the next second, survives a change of endAt, and moves with the schedule."""
    every = Definition("@every 1h", "http://127.0.0.1/", 1)
    old = made(every)
    second = NOW + 500
    assert old.anchor_ms == second
    later = changes.define(old, "a", replace(every, end_ms=NOW + 9 * HOUR), at(NOW + 5000))
    assert later is not None
    assert (later.job.anchor_ms, later.job.schedule_key) == (second, old.schedule_key)
    moved = changes.define(old, "a", replace(every, schedule="@every 2h"), at(NOW + 5000))
    assert moved is not None
    assert moved.job.anchor_ms == second + 5000
    started = changes.define(old, "a", replace(every, start_ms=NOW + HOUR), at(NOW + 5000))
    assert started is not None
    assert started.job.anchor_ms == NOW + HOUR


SAME = [
    ({}, {"timezone": "Etc/UTC"}),
    ({"timezone": "Europe/Kyiv"}, {"timezone": "Europe/Kiev"}),
    ({}, {"schedule": "0 3 * * *"}),
    ({"schedule": "0 0 0 * * MON-FRI"}, {"schedule": "0 0 0 * * 1,2,3,4,5"}),
    ({"schedule": "@daily"}, {"schedule": " 0  0 0 * * ?", "timezone": "Zulu"}),
    ({"schedule": "@every 1d"}, {"schedule": "@every 24h"}),
    ({"schedule": "@every 1d"}, {"timezone": "Europe/Berlin"}),
    ({"schedule": "@every 90m"}, {"schedule": "@EVERY 1h 30m", "timezone": "Asia/Tokyo"}),
    ({"schedule": "@every 1h", "start_ms": NOW + HOUR}, {"schedule": "@every 60m"}),
    ({"schedule": "@at 2030-06-01T10:00:00Z"}, {"schedule": "@at 2030-06-01T12:00:00+02:00"}),
]
OTHER = [
    ({}, {"timezone": "Europe/London"}),
    ({"timezone": "Europe/Berlin"}, {"timezone": "Europe/Paris"}),
    ({}, {"schedule": "0 0 3 * * MON"}),
    ({"schedule": "0 0-59 3 * * *"}, {"schedule": "0 * 3 * * *"}),  # they differ when clocks change
    ({"schedule": "@every 1d"}, {"schedule": "0 0 0 * * *"}),
    ({"schedule": "@every 1d"}, {"schedule": "@every 25h"}),
    ({}, {"end_ms": NOW + 99 * HOUR}),
]


@pytest.mark.parametrize(("before", "change"), SAME)
@pytest.mark.parametrize("state", [A, P, C])
def test_a_change_that_means_the_same_changes_the_text_only(
    before: dict[str, Any], change: dict[str, Any], state: JobState
) -> None:
    """Version, state, grid and row stay, and nothing is to be settled. An earlier period names the zone of its row."""
    old = made(replace(PLAIN, **before), state)
    wanted = replace(old.definition, **change)
    made_of = changes.define(old, "a", wanted, at(NOW + 5000))
    assert made_of is not None
    assert (made_of.change_id, made_of.past) == (None, None)
    assert made_of.job == replace(old, definition=wanted, revision=2, updated_ms=NOW + 5000)
    if state is A:
        paused = changes.pause(made_of.job, at(NOW + 6000))
        assert paused is not None
        assert paused.past is not None
        d = paused.past.definition
        assert changes.schedule_of(d, paused.past.anchor_ms).key == paused.past.schedule_key == old.schedule_key


@pytest.mark.parametrize(("before", "change"), OTHER)
def test_a_change_that_means_something_else_makes_a_new_version(before: dict[str, Any], change: dict[str, Any]) -> None:
    """However alike the texts are."""
    old = made(replace(PLAIN, **before))
    made_of = changes.define(old, "a", replace(old.definition, **change), at(NOW + 5000))
    assert made_of is not None
    assert made_of.job.schedule_version != old.schedule_version
    assert made_of.past is not None
    assert made_of.past.ended_by == "change"


def test_an_interval_keeps_its_grid_while_something_else_changes_with_its_text() -> None:
    """Another endAt makes a new version; the grid is that of the same interval."""
    old = made(replace(PLAIN, schedule="@every 1d"))
    wanted = replace(old.definition, schedule="@every 24h", timezone="Asia/Tokyo", end_ms=NOW + 99 * HOUR)
    made_of = changes.define(old, "a", wanted, at(NOW + 5000))
    assert made_of is not None
    assert made_of.job.schedule_version != old.schedule_version
    assert (made_of.job.anchor_ms, made_of.job.schedule_key) == (old.anchor_ms, old.schedule_key)


def test_an_interval_first_runs_one_interval_after_its_creation() -> None:
    """One interval after creation, not at once; with a startAt it is the startAt."""
    every = Definition("@every 1h", "http://127.0.0.1/", 1)
    for now in (NOW, NOW + 500):
        change = changes.define(None, "a", every, at(now))
        assert change is not None
        schedule = changes.schedule_of(every, change.job.anchor_ms)
        assert schedule.next_after(change.job.active_from_ms - 1) == NOW + 500 + HOUR
    started = made(replace(every, start_ms=NOW + 7500))
    grid = changes.schedule_of(started.definition, started.anchor_ms)
    assert changes.first_run(grid, started.definition, started.active_from_ms - 1) == NOW + 7500


def test_a_job_that_would_never_run_is_refused() -> None:
    """A job ends at its endAt or at its one instant. A job without a future occurrence is refused; the fault names the field."""
    instant = NOW - NOW % 1000 + HOUR
    once = Definition("@at 2030-03-17T18:46:40Z", "http://127.0.0.1/", 1)
    assert made(once).ends_ms == instant
    assert made(replace(PLAIN, end_ms=NOW + 99 * HOUR)).ends_ms == NOW + 99 * HOUR
    assert made().ends_ms is None
    for wanted, path in (
        (replace(once, end_ms=instant - 1), "schedule"),
        (replace(PLAIN, end_ms=NOW), "endAt"),
        (replace(PLAIN, end_ms=NOW + 1), "schedule"),
        (Definition("@at 2020-01-01T00:00:00Z", "http://127.0.0.1/", 1), "schedule"),
    ):
        with pytest.raises(InvalidInput) as refused:
            made(wanted)
        assert [f.path for f in refused.value.faults] == [path]


def test_the_time_of_the_success_codes_changes_with_them_only() -> None:
    """It is set at creation and when the codes change. It stays unknown for a job of a release that did not store it."""
    job = made()
    assert job.success_codes_since_ms == NOW
    codes = replace(PLAIN, success_codes=(404,))
    retimed = replace(PLAIN, schedule="0 0 4 * * *")
    for wanted, since in (
        (replace(PLAIN, name="x"), NOW),
        (retimed, NOW),
        (codes, NOW + 9),
        (replace(retimed, success_codes=(404,)), NOW + 9),
    ):
        change = changes.define(job, "a", wanted, at(NOW + 9))
        assert change is not None
        assert change.job.success_codes_since_ms == since
        older = changes.define(replace(job, success_codes_since_ms=None), "a", wanted, at(NOW + 9))
        assert older is not None
        assert older.job.success_codes_since_ms == (None if since == NOW else since)
    paused = changes.pause(job, at(NOW + 9))
    assert paused is not None
    assert paused.job.success_codes_since_ms == NOW
