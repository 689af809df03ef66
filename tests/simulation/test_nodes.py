"""Whole workers in virtual time: overlap, limits, back-off, drain, splitting, lateness. See `nodes.py` and `rules.py`.

A failure names its seed: `Machines(816).run()` with `twins.install` is that run again, callback by callback.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cluster.worker.execution_states import ExecutionState
from cluster.worker.pending import Unsent
from cluster.worker.record import AS_RETRY, MoveOptions, Recorder
from cluster.worker.release import Releaser
from tests.simulation import model, model_jobs, twins
from tests.simulation.explore import TIMES, explore, first_to_show
from tests.simulation.nodes import Machines
from tests.simulation.world import Broken
from tests.support import execution_paths
from tests.support.execution_paths import Paths

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cluster.core.execution.model import Rescheduled, RetryPolicy
    from cluster.worker.held_batch import HeldBatch

STORMS, QUIET = 30 * TIMES, 13 * TIMES
BROKEN_RUNS = 10_000
STEPS_SEEN = 20
ONE_IN_TEN = 0.1


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    twins.install(monkeypatch)


def _quiet(seed: int) -> Machines:
    return Machines(seed, trouble=0.0)


@pytest.mark.takes(13)
@pytest.mark.timeout(900)
def test_no_storm_breaks_a_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults, freezes, deaths and a SIGTERM: the rules hold after each callback, and in the end all is as it should.
    Every execution goes through its states as the table of `execution_states` has them."""
    paths = Paths()
    execution_paths.install(monkeypatch, paths)
    seen = set[tuple[ExecutionState, ExecutionState]]()

    class Followed(Machines):
        def _between(self, node: str) -> None:
            super()._between(node)
            if paths.broken:
                raise Broken(paths.broken[0])

    def followed(seed: int) -> Machines:
        seen.update(paths.steps())
        paths.clear()
        return Followed(seed)

    assert len(explore(followed, STORMS)) == STORMS
    assert len(seen) > STEPS_SEEN, "the storms go by many ways"


@pytest.mark.timeout(900)
def test_without_faults_nothing_is_sent_twice_and_a_stopped_node_releases_everything() -> None:
    """Invariant 4, and shutdown."""
    assert len(explore(_quiet, QUIET)) == QUIET


# -- broken rules, each found ----------------------------------------------------------------------------------------


def _lease_not_looked_at_again(patch: pytest.MonkeyPatch) -> None:
    """Between taking a slot and the request the lease is not checked again."""
    real = Unsent.drop_if_lapsed
    patch.setattr(Unsent, "drop_if_lapsed", lambda self, held: not held.sending and real(self, held))


def _late_answer_ends_overlap(patch: pytest.MonkeyPatch) -> None:
    """A final result lets the next occurrence run, also if its node had lost the lease."""
    real = Recorder._end_exclusive

    async def end(self: Recorder, ran: Any, *, certain: bool) -> None:
        await real(self, ran, certain=certain or True)

    patch.setattr(Recorder, "_end_exclusive", end)


def _always_gives_way(patch: pytest.MonkeyPatch) -> None:
    """An execution named as running is skipped past, whether it is still owed or not."""

    async def none_owed(*_: Any) -> dict[str, Any]:
        return {}

    patch.setattr("cluster.worker.overlap.executions", _With(none_owed))


def _never_gives_way(patch: pytest.MonkeyPatch) -> None:
    """An execution named as running counts as running, although its node died after recording its end."""

    async def all_of_them(_: Any, ids: Any) -> dict[str, Any]:
        return dict.fromkeys(ids)

    patch.setattr("cluster.worker.overlap.executions", _With(all_of_them))


class _With:
    """Stands for `cluster.store.executions` as `cluster.worker.overlap` uses it."""

    def __init__(self, owed: Callable[..., Any]) -> None:
        self.owed = owed


def _permits_name_executions(patch: pytest.MonkeyPatch) -> None:
    """A permit has only the id of its execution: a bug of the engine, found when a late release freed another permit."""
    patch.setattr("cluster.worker.limit_queues.token_hex", lambda _: "the same")


def _permits_of_the_dead_kept(patch: pytest.MonkeyPatch) -> None:
    """A dead node's permits are never released."""

    async def live(_: Any, ids: Any) -> set[str]:
        return set(ids)

    patch.setattr("cluster.store.queries.leased_executions.leased_ids", live)


def _kept_attempts_not_counted(patch: pytest.MonkeyPatch) -> None:
    """An attempt whose answer came late, and was kept, does not use up one of `maxAttempts`."""
    patch.setattr("cluster.worker.prepare.exhaustion_reason", lambda *_: None)


def _one_attempt_too_many(patch: pytest.MonkeyPatch) -> None:
    """`maxAttempts` counts what follows the first."""
    from cluster.core.execution import verdict

    def next_try(retry: RetryPolicy, made: int, **k: Any) -> Any:
        return verdict.next_retry(replace(retry, max_attempts=retry.max_attempts + 1), made, **k)

    patch.setattr("cluster.core.execution.outcome.next_retry", next_try)
    patch.setattr("cluster.worker.prepare.exhaustion_reason", lambda *_: None)


def _retry_after_ignored(patch: pytest.MonkeyPatch) -> None:
    """The target's `Retry-After` is not heeded."""
    from cluster.core.execution import verdict

    real = verdict.next_retry
    patch.setattr(
        "cluster.core.execution.outcome.next_retry",
        lambda retry, made, *, jitter, retry_after_seconds: real(
            retry, made, jitter=jitter, retry_after_seconds=retry_after_seconds and None
        ),
    )


def _jitter_doubled(patch: pytest.MonkeyPatch) -> None:
    """Delays are spread twice as far as the policy says."""
    from cluster.core.execution import verdict

    real = verdict.next_retry
    patch.setattr(
        "cluster.core.execution.outcome.next_retry",
        lambda retry, made, *, jitter, **k: real(retry, made, jitter=2 * jitter - 0.5, **k),
    )


def _age_forgotten(patch: pytest.MonkeyPatch) -> None:
    """`maxAgeSeconds` is not checked before a request leaves."""
    patch.setattr("cluster.worker.prepare.max_age_reason", lambda *_: None)
    patch.setattr("cluster.worker.dispatch.max_age_reason", lambda *_: None)


def _shutdown_forgets(patch: pytest.MonkeyPatch) -> None:
    """A node that stops drops unsent executions, and does not release them."""

    async def put_back(self: Releaser, held: HeldBatch, *_: Any) -> int:
        return len(self._context.unsent.withdraw(held))

    patch.setattr(Releaser, "release", put_back)


def _retry_forgets(patch: pytest.MonkeyPatch) -> None:
    """A retry moves without the attempt that failed."""
    real = Recorder.reschedule

    async def moves(self: Recorder, moved: Sequence[Rescheduled], way: MoveOptions = AS_RETRY) -> int:
        return await real(self, [replace(m, attempts=m.execution.attempts) for m in moved], way)

    patch.setattr(Recorder, "reschedule", moves)


def _renewed_for_two_leases(patch: pytest.MonkeyPatch) -> None:
    """A renewal lasts twice as long as a claim."""

    async def renew(db: Any, owner: str, held: Any, lease_seconds: float) -> set[str]:
        return await model.renew_batches(db, owner, held, 2 * lease_seconds)

    patch.setattr("cluster.store.batches.renew", renew)


def _inherits_by_batch_alone(patch: pytest.MonkeyPatch) -> None:
    """A sibling releases what an ended node held without a look at owner and token."""
    real = model.release

    async def release(db: Any, batch: Any, *args: Any, **k: Any) -> bool:
        there = db.batches.get(batch.id)
        return await real(db, batch if there is None else there, *args, **k)

    patch.setattr("cluster.siblings.batches", _Releasing(release))


class _Releasing:
    """Stands for `cluster.store.batches` as `cluster.siblings` uses it."""

    def __init__(self, release: Callable[..., Any]) -> None:
        self.release = release
        self.owned_by = model_jobs.strays


class _SaidOfTheFrozen(Machines):
    """The parent takes a process that stands still for one that has ended."""

    def _between(self, node: str) -> None:
        super()._between(node)
        if node and node in self.loop.frozen and self.world.random.random() < ONE_IN_TEN:
            self.tell_siblings(node)


# The broken rule, its scenario, its finding, and whether that takes more than some hundred runs.
BROKEN: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[int], Any], str, bool]] = {
    "lease not checked again before the request": (
        _lease_not_looked_at_again,
        Machines,
        "lease of .* has ended",
        True,
    ),
    "a late answer ends the overlap": (_late_answer_ends_overlap, Machines, "does not overlap", True),
    "a running execution does not count": (_always_gives_way, _quiet, "does not overlap", False),
    "an ended execution counts as running": (_never_gives_way, Machines, "left its mark for ever", False),
    "permits name executions": (_permits_name_executions, Machines, "more than maxConcurrent", True),
    "permits of the dead are kept": (_permits_of_the_dead_kept, Machines, "left behind", False),
    "kept attempts are not counted": (_kept_attempts_not_counted, Machines, "sent for the", True),
    "one attempt too many": (_one_attempt_too_many, _quiet, "sent for the", False),
    "Retry-After ignored": (_retry_after_ignored, _quiet, "too early", False),
    "jitter doubled": (_jitter_doubled, _quiet, "too early|longer than its back-off", False),
    "age forgotten": (_age_forgotten, Machines, "older than maxAgeSeconds", False),
    "a retry forgets its attempt": (_retry_forgets, Machines, "is sent again by .*held its lease", False),
    "renewed for two leases": (_renewed_for_two_leases, Machines, "is not claimable within a lease", False),
    "siblings release by the batch alone": (
        _inherits_by_batch_alone,
        Machines,
        "trusts? (its|their) lease|lives, held",
        True,
    ),
    "the parent's word about a living node": (
        lambda _: None,
        _SaidOfTheFrozen,
        "trusts? (its|their) lease|lives, held",
        False,
    ),
    "a stopping node releases nothing": (_shutdown_forgets, _quiet, "owed by no batch", False),
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
