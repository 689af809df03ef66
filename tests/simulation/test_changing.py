"""Jobs that change while leaders start, die, freeze and are absent. See `changing.py`.

A failure names its seed: `Changing(816).run()` with `twins.install` is that run again, step by step.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cluster.core.execution import outcome
from cluster.core.job import changes
from cluster.core.lifecycle import JobState
from cluster.leader.catch_up import CatchUp
from cluster.leader.settle import Settler
from cluster.store import pauses
from tests.simulation import model_jobs, twins
from tests.simulation.changing import Changing
from tests.simulation.explore import TIMES, explore, first_to_show

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS, QUIET = 30 * TIMES, 13 * TIMES
BROKEN_RUNS = 10_000


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    twins.install(monkeypatch)


@pytest.mark.takes(6)
@pytest.mark.timeout(900)
def test_what_a_changed_job_owed_is_owed_or_final_with_a_reason() -> None:
    """Invariants 1 and 6, with changes inside the look-ahead, absences and catching up, after each write."""
    assert len(explore(Changing, RUNS)) >= RUNS * 0.99


def _quiet(seed: int) -> Changing:
    """Without faults a resume wakes what waits for it: nothing has to look again."""
    return Changing(seed, trouble=0.0, paused_ms=1_000_000)


def test_without_faults_everything_that_the_current_schedule_owes_is_sent() -> None:
    """Also an occurrence that was scheduled, or cancelled, under an older schedule."""
    assert len(explore(_quiet, QUIET)) == QUIET


async def _nothing(*_: Any, **__: Any) -> Any:
    return set()


def _later_changes_settled_too(patch: pytest.MonkeyPatch) -> None:
    """Settling clears the id of whatever change a job carries by now."""

    async def settle(db: Any, _: Any) -> None:
        marks = [d["unsettled"] for d in db.documents.values() if "unsettled" in d]
        await model_jobs.settle(db, marks)

    patch.setattr("cluster.store.engine_jobs.mark_settled", settle)


def _missed_not_recorded(patch: pytest.MonkeyPatch) -> None:
    """Occurrences that a job owed before its change, and that were not scheduled yet, are not recorded as missed."""

    async def forgone(*_: Any) -> int:
        return 0

    patch.setattr(Settler, "_record_missed", forgone)


def _rows_go_on(patch: pytest.MonkeyPatch) -> None:
    """Rows move on and do not record what they pass of jobs with an unsettled change: a bug that this found."""
    patch.setattr("cluster.leader.materialise.record_left_out", _nothing)


def _ranges_go_on(patch: pytest.MonkeyPatch) -> None:
    """The same for ranges that are caught up."""
    patch.setattr("cluster.leader.catch_up.record_left_out", _nothing)


def _shorter_range_stays(patch: pytest.MonkeyPatch) -> None:
    """Of two missed ranges that begin together the first is kept: a bug of the engine that this found."""

    async def record(db: Any, ranges: Any, *_: Any) -> None:
        some = list(ranges)
        await db.write(*(lambda r=r: db.missed.setdefault((r.job_id, r.first_ms), r) for r in some))

    patch.setattr("cluster.store.missed_ranges.record", record)


def _any_record_counts(patch: pytest.MonkeyPatch) -> None:
    """That an execution was cancelled under an earlier schedule counts as a record for each later one that owed it: a bug
    of the engine that the fault runs found."""

    async def recorded(db: Any, versions: Any) -> set[str]:
        found: set[str] = await db.read(lambda: {i for i in versions if i in db.history})
        return found

    patch.setattr("cluster.store.history.recorded_ids", recorded)


def _left_out_not_recorded(patch: pytest.MonkeyPatch) -> None:
    """Occurrences that a changed policy leaves out of a range are not recorded: a bug of the engine that this found."""

    async def unrecorded(*_: Any) -> list[Any]:
        return []

    patch.setattr(CatchUp, "_newly_missed", unrecorded)


def _resumed_under_the_same_version(patch: pytest.MonkeyPatch) -> None:
    """A resumed job keeps the version of its schedule, so that an execution cancelled for the pause stays cancelled."""
    real = changes.resume

    def resume(old: Any, at: Any) -> Any:
        change = real(old, at)
        return change and replace(change, job=replace(change.job, schedule_version=old.schedule_version))

    patch.setattr(changes, "resume", resume)


def _changes_cancel(patch: pytest.MonkeyPatch) -> None:
    """A new schedule version cancels whatever has an older one, as it once was."""
    real = outcome.cancellation_reason

    def cancelled(execution: Any, job: Any) -> str | None:
        if job is not None and job.schedule_version != execution.schedule_version:
            return "the schedule was changed"
        return real(execution, job)

    patch.setattr(outcome, "cancellation_reason", cancelled)


def _pauses_cancel(patch: pytest.MonkeyPatch) -> None:
    """A pause cancels what came due before it."""
    real = outcome.cancellation_reason

    def cancelled(execution: Any, job: Any) -> str | None:
        return "the job was paused" if job is not None and job.state is JobState.PAUSED else real(execution, job)

    patch.setattr(outcome, "cancellation_reason", cancelled)


def _judged_by_the_start(patch: pytest.MonkeyPatch) -> None:
    """What is due before the present schedule took effect is cancelled, whatever owed it."""
    real = outcome.cancellation_reason

    def cancelled(execution: Any, job: Any) -> str | None:
        early = job is not None and execution.due_ms < job.active_from_ms
        return "the job was changed or resumed after this was due" if early else real(execution, job)

    patch.setattr(outcome, "cancellation_reason", cancelled)


def _pauses_stop_nothing(patch: pytest.MonkeyPatch) -> None:
    """Retries of a paused job go on."""
    patch.setattr(outcome, "waits_for_resume", lambda *_: False)


def _deleted_comes_back(patch: pytest.MonkeyPatch) -> None:
    """A job that is created again under its id inherits what was owed before its deletion."""
    patch.setattr(outcome, "_is_of_deleted_job", lambda *_: False)


def _resume_wakes_nothing(patch: pytest.MonkeyPatch) -> None:
    """Settling a resume leaves what waits for it as it is."""
    patch.setattr(Settler, "_wake_resumed", _nothing)


def _not_looked_at_again(patch: pytest.MonkeyPatch) -> None:
    """A node that releases what waits does not look whether the job was resumed meanwhile."""
    patch.setattr("cluster.store.engine_jobs.not_paused", _nothing)


def _never_taken_over(patch: pytest.MonkeyPatch) -> None:
    """An execution of an older schedule is not adopted by the new one that owes it too."""
    patch.setattr("cluster.store.enqueue._adopt", _nothing)
    patch.setattr("cluster.store.enqueue._lost", _nothing)


def _resumed_from_now_on(patch: pytest.MonkeyPatch) -> None:
    """A pause that ended while no leader was there is resumed from now on."""
    real = changes.end_pause

    def end_pause(old: Any, at: Any) -> Any:
        change = real(old, at)
        return change and replace(change, job=replace(change.job, active_from_ms=at.now_ms + 1))

    patch.setattr(changes, "end_pause", end_pause)
    patch.setattr("cluster.leader.end_pauses.end_pause", end_pause)


def _resumed_whatever_it_is(patch: pytest.MonkeyPatch) -> None:
    """The end of a pause is written on any revision of the job."""

    async def end(db: Any, ends: Any) -> int:
        def effect(change: Any) -> bool:
            _, update = pauses._update(change)
            db.documents[change.job.id] = {**db.documents[change.job.id], **update["$set"]}
            return True

        return sum(await db.write(*(lambda c=c: effect(c) for c in ends)))

    patch.setattr("cluster.store.pauses.end", end)


def _never_resumed(patch: pytest.MonkeyPatch) -> None:
    """No leader looks for pauses that are over."""
    patch.setattr("cluster.store.pauses.over", _nothing)


# The broken rule, its scenario, its finding, and whether that takes more than some hundred runs.
BROKEN: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[int], Any], str, bool]] = {
    "later changes count as settled too": (_later_changes_settled_too, Changing, "no record", False),
    "missed before a change, and not recorded": (_missed_not_recorded, Changing, "no record", False),
    "rows go on past unsettled changes": (_rows_go_on, Changing, "no record", True),
    "ranges go on past unsettled changes": (_ranges_go_on, Changing, "no record", True),
    "the shorter of two missed ranges stays": (_shorter_range_stays, Changing, "no record", True),
    "a record of an earlier schedule counts": (_any_record_counts, Changing, "no record", False),
    "left out by a changed policy, and not recorded": (
        _left_out_not_recorded,
        Changing,
        "was not sent|no record",
        True,
    ),
    "resumed under the same version": (_resumed_under_the_same_version, _quiet, "was not sent", False),
    "a change cancels what was due before": (_changes_cancel, Changing, "came due before", False),
    "a pause cancels what was due before": (_pauses_cancel, Changing, "came due before", False),
    "judged by the start of the present schedule": (_judged_by_the_start, Changing, "came due before", False),
    "retries of a paused job go on": (_pauses_stop_nothing, Changing, "while its job is paused", False),
    "a deleted job's executions come back with it": (_deleted_comes_back, Changing, "was deleted", False),
    "a resume wakes nothing": (_resume_wakes_nothing, _quiet, "still owed", False),
    "a resume during a release is not seen": (_not_looked_at_again, _quiet, "still owed", True),
    "a pause that ended ends from now on": (_resumed_from_now_on, Changing, "as of the end", False),
    "the end of a pause on any revision": (
        _resumed_whatever_it_is,
        Changing,
        "resumed once|no record|was deleted",
        True,
    ),
    "nobody ends a pause": (_never_resumed, Changing, "still paused", False),
    "never taken over by the new version": (_never_taken_over, _quiet, "was not sent|no record", False),
}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "rule", [pytest.param(name, marks=[pytest.mark.chaos] if rare else []) for name, (*_, rare) in BROKEN.items()]
)
def test_a_broken_rule_is_found(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of README.md: with the rule broken, some seed has the finding that the rule prevents."""
    broken, scenario, finding, _ = BROKEN[rule]
    broken(monkeypatch)
    print(rule, "->", first_to_show(finding, scenario, BROKEN_RUNS, rule))
