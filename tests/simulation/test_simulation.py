"""More than 100,000 different interleavings of the real steps in CI; after each step the invariants of its scenario are checked.

README.md has the table of which invariant is checked where and when. A failure names its seed: `Election(816).run()`
with `twins.install` is that run again, step by step. `SIMULATION_SEED=3` runs other seeds, from 3,000,000 on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cluster.core.errors import OutcomeUnknown
from cluster.core.schedule.schedule import schedule_from_key
from cluster.leader.elector import Elector
from cluster.leader.materialise import Materialiser
from cluster.store import batches, executions, history
from cluster.worker.claim import ClaimedBatch, Claimer
from cluster.worker.record import Recorder
from tests.simulation import model, twins
from tests.simulation.explore import FIRST, SHIFT, TIMES, explore, first_to_show
from tests.simulation.scenarios import TIMINGS, BatchLife, Election, WritingDown
from tests.simulation.world import START_MS, Broken

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cluster.core.election import LeaseObservation
    from cluster.core.execution.model import Execution, Rescheduled

MANY = 10 if TIMES > 1 else 1
RUNS: dict[type[Any], int] = {Election: 6_220 * MANY, WritingDown: 1_600 * MANY, BatchLife: 2_300 * MANY}
DIFFERENT: dict[type[Any], float] = {Election: 0.995, WritingDown: 0.96, BatchLife: 0.995}
"""How much of it must be interleavings of their own: other actors in other order, or other answers of the store."""
LEAST = 100_000
"""With `SIMULATION_TIMES=4`, as `make test-long` and CI run it: ten times as many of these single steps."""


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    twins.install(monkeypatch)


@pytest.mark.takes(25)
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", RUNS)
def test_no_interleaving_breaks_an_invariant(scenario: type[Any]) -> None:
    """Faults, freezes and deaths between any two steps: the invariants hold, and hardly two runs were the same."""
    different = explore(scenario, RUNS[scenario])
    assert len(different) >= RUNS[scenario] * DIFFERENT[scenario], f"SIMULATION_SEED={SHIFT}"


def test_a_stamp_that_comes_late_is_found_if_it_takes_back_what_the_next_one_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Frozen between claim and stamp for longer than the lease: without a look at the token, invariant 3 breaks."""
    BatchLife(8056).run()
    monkeypatch.setattr(model, "executions_stamp_filter", lambda _now, _token: True)
    with pytest.raises(Broken, match="had lost it"):
        BatchLife(8056).run()


def test_a_hundred_thousand_interleavings_are_explored() -> None:
    """The floors of the scenarios add up to it, and none is more than two thirds."""
    floors = {scenario: int(n * DIFFERENT[scenario]) for scenario, n in RUNS.items()}
    assert 10 * sum(floors.values()) >= LEAST * MANY
    assert max(floors.values()) < sum(floors.values()) * 2 / 3


def test_in_a_quiet_cluster_each_attempt_is_delivered_once() -> None:
    """Invariant 4: no fault, no second delivery of any attempt."""
    for seed in range(FIRST, FIRST + 500):
        quiet = BatchLife(seed, trouble=0.0)
        quiet.run()
        assert len(quiet.sent) == len(set(quiet.sent)), f"seed {seed} (SIMULATION_SEED={SHIFT})"


def test_one_seed_is_one_run() -> None:
    """A failure can be repeated."""
    assert BatchLife(7).run().trail == BatchLife(7).run().trail


# -- broken rules, each found ----------------------------------------------------------------------------------------


def _by_clocks(patch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """The lease is judged by the time written in it and the database's clock."""
    now: list[Any] = []

    def judged(observed: LeaseObservation, _now: float, lease_seconds: float, *_: object) -> bool:
        store = now[0]
        age = store.now_ms() - store.lease_at_ms
        return observed.lease is not None and (observed.lease.holder is None or age > lease_seconds * 1000)

    def scenario(seed: int) -> Any:
        made = Election(seed)
        now[:] = [made.world.store]
        return made

    patch.setattr("cluster.leader.elector.may_take_over", judged)
    return scenario


def _trust_from_the_end(patch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """A term is trusted from the answer on, not from the question."""

    def trusted_until(self: Elector, _started: float) -> float:
        return self._clock.monotonic() + TIMINGS.leader_lease - TIMINGS.margin

    patch.setattr(Elector, "_trusted_until", trusted_until)
    return Election


def _validity_from_the_end(_: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """A claim is valid from the answer on."""

    class Late(Claimer):
        async def step(self, which: Any) -> ClaimedBatch | None:
            claimed = await super().step(which)
            if claimed is None:
                return None
            until = self._clock.monotonic() + TIMINGS.batch_lease - TIMINGS.margin
            return ClaimedBatch(claimed.batch, claimed.executions, until)

    return lambda seed: BatchLife(seed, claimer=Late)


def _unknown_renewal_trusted(patch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """An unanswered renewal is trusted because the lease still names the node: a bug of the engine that this found."""
    real = model.lease_renew

    async def renew(db: Any, holder: str, term: int) -> bool:
        try:
            return await real(db, holder, term)
        except OutcomeUnknown:
            seen = await model.lease_read(db)
            return (seen.holder, seen.term) == (holder, term)

    patch.setattr("cluster.store.leases.renew", renew)
    return Election


def _cursor_first(_: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """The row moves on before its executions are inserted."""

    class Hasty(Materialiser):
        async def _write(self, owed: Any, nodes: int) -> None:
            self._put_off = (owed, nodes)

        async def _advance(self, moves: Any) -> None:
            await super()._advance(moves)
            await super()._write(*self._put_off)

    return lambda seed: WritingDown(seed, materialiser=Hasty)


def _row_before_its_range(_: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """A row that is far behind moves on before its backlog is recorded as a range."""

    class Hasty(Materialiser):
        async def _catch_up_later(self, overdue: Any, now_ms: int) -> None:
            await self._advance([(r, schedule_from_key(r.key).next_after(now_ms - 1)) for r in overdue])
            await super()._catch_up_later(overdue, now_ms)

    return lambda seed: WritingDown(seed, materialiser=Hasty)


def _no_unique_id(patch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """Each writer gives an occurrence an id of its own."""
    used: list[int] = []

    def anyhow(job: str, due_ms: int) -> str:
        used.append(due_ms)
        return f"{job}:{due_ms}:{len(used)}"

    patch.setattr("cluster.core.execution.planning.execution_id", anyhow)
    return WritingDown


def _no_token(patch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """Endings and removals are not fenced by batch and token."""

    async def fence(_db: Any, endings: Sequence[Execution], _nonce: str) -> set[str]:
        return {e.id for e in endings}

    async def remove(db: Any, held: Any) -> int:
        now = [db.executions[i] for ids in held.values() for i in ids if i in db.executions]
        return sum([await model.remove(db, {(e.batch, e.token): [e.id]}) for e in now])

    patch.setattr(executions, "fence_endings", fence)
    patch.setattr(executions, "delete_final", remove)
    return BatchLife


def _history_not_asked(patch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """A claim sends whatever it finds."""

    async def nothing(_db: Any, _versions: Any) -> set[str]:
        return set()

    patch.setattr(history, "final_ids", nothing)
    return BatchLife


def _retry_forgets(patch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """A retry moves without the attempt that failed."""
    real = Recorder.reschedule

    async def moves(self: Recorder, moved: Sequence[Rescheduled], *way: Any) -> int:
        return await real(self, [replace(m, attempts=m.execution.attempts) for m in moved], *way)

    patch.setattr(Recorder, "reschedule", moves)
    return BatchLife


def _handed_back_under_way(patch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """A batch is handed back before what came of its requests is recorded."""
    real = BatchLife._record

    async def record(self: BatchLife, recorder: Recorder, claimed: ClaimedBatch, results: Sequence[Any]) -> None:
        if claimed.executions:
            for name in [n for n, (_, _, batch) in self._holds.items() if batch == claimed.batch.id]:
                del self._holds[name]
            await batches.release(recorder._db, claimed.batch, None)
        await real(self, recorder, claimed, results)

    patch.setattr(BatchLife, "_record", record)
    return BatchLife


def _renewed_for_two_leases(patch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """A renewal lasts twice as long as a claim."""

    async def renew(db: Any, owner: str, held: Any, lease_seconds: float) -> set[str]:
        return await model.renew_batches(db, owner, held, 2 * lease_seconds)

    patch.setattr(batches, "renew", renew)
    return BatchLife


def _batch_goes_first(patch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """A batch is removed before what is to be tried again has another."""
    real = BatchLife._record

    async def record(self: BatchLife, recorder: Recorder, claimed: ClaimedBatch, results: Sequence[Any]) -> None:
        await recorder.delete_finished([claimed.batch])
        await real(self, recorder, claimed, results)

    patch.setattr(BatchLife, "_record", record)
    return BatchLife


BROKEN: dict[str, tuple[Callable[[pytest.MonkeyPatch], Callable[[int], Any]], str]] = {
    "lease judged by clocks": (_by_clocks, "lead at once"),
    "term trusted from the end of the attempt": (_trust_from_the_end, "lead at once"),
    "unanswered renewal trusted": (_unknown_renewal_trusted, "lead at once"),
    "claim valid from the end of the attempt": (_validity_from_the_end, "trust their lease of one batch"),
    "cursor moved before the insert": (_cursor_first, "is lost"),
    "row moved before its range": (_row_before_its_range, "is lost"),
    "no unique id": (_no_unique_id, "is owed twice"),
    "no token in the recording filter": (_no_token, "by a node that did not hold it"),
    "history not asked at the claim": (_history_not_asked, "although it was final before it was claimed"),
    "a retry forgets its attempt": (_retry_forgets, "is sent again by .*held its lease"),
    "handed back under way": (_handed_back_under_way, "is sent again by .*held its lease"),
    "renewed for two leases": (_renewed_for_two_leases, "is not claimable within a lease"),
    "the batch goes first": (_batch_goes_first, "was held by a node that died and is owed by no batch"),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_found(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of README.md: with the rule broken, some seed has the finding that the rule prevents."""
    broken, finding = BROKEN[rule]
    print(rule, "->", first_to_show(finding, broken(monkeypatch), rule=rule))


def test_virtual_time_begins_on_a_whole_second() -> None:
    """The scenarios' occurrences are counted from there."""
    assert START_MS % 10_000 == 0
