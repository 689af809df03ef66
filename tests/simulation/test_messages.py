"""Messages under every interleaving: what was accepted is somewhere, what was cancelled is not sent, one `dedupId` is one
message. A failure names its seed: `Messages(816).run()` is that run again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cluster.leader.due_messages import MessageMover
from cluster.store import dedups, executions, history, messages
from cluster.store.dedups import Chosen
from cluster.store.queries import leased_executions
from tests.simulation import model_messages, twins
from tests.simulation.explore import FIRST, SHIFT, TIMES, explore, first_to_show
from tests.simulation.messages import Messages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cluster.core.execution.model import Execution

RUNS = 350 * TIMES


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    twins.install(monkeypatch)


@pytest.mark.takes(13)
@pytest.mark.timeout(300)
def test_no_interleaving_loses_a_message_or_sends_a_cancelled_one() -> None:
    """Faults, freezes and deaths between any two steps of accepting, moving, cancelling, claiming and recording."""
    assert len(explore(Messages, RUNS)) >= RUNS * 0.99, f"SIMULATION_SEED={SHIFT}"


def test_without_faults_each_message_is_delivered_once() -> None:
    for seed in range(FIRST, FIRST + 200):
        quiet = Messages(seed, trouble=0.0)
        quiet.run()
        assert len(quiet.sent) == len(set(quiet.sent)), f"seed {seed} (SIMULATION_SEED={SHIFT})"
        assert len(quiet.accepted) == 4


# -- broken rules, each found ----------------------------------------------------------------------------------------


def _deleted_first(_: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """The leader deletes what waits before it inserts the executions."""

    class Hasty(MessageMover):
        async def _move(self, waiting: Sequence[Execution], now_ms: int, nodes: int) -> None:
            await messages.delete(self._db, [e.id for e in waiting])
            await super()._move(waiting, now_ms, nodes)

    return lambda seed: Messages(seed, mover=Hasty)


def _no_dedup(patch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """Each request takes the id that it has chosen itself."""

    async def mine(_db: Any, wanted: Any, _now_ms: int) -> list[Chosen]:
        return [Chosen(d.digest, d.execution_id) for d in wanted]

    patch.setattr(dedups, "reserve", mine)
    return Messages


def _met_is_written(patch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """A request that meets a `dedupId` takes the message for written."""

    async def all_of_them(_db: Any, ids: Any) -> set[str]:
        return set(ids)

    patch.setattr("cluster.store.queries.message_states.known_ids", all_of_them)
    return Messages


def _half_is_enough(patch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """A request that meets an execution does not ask whether a batch lists it."""

    async def nothing(*_: Any) -> int:
        return 0

    patch.setattr("cluster.usecases.messages.repair_batches", nothing)
    return Messages


def _taken_from_its_owner(patch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """A cancellation does not look whether the execution was claimed since it was read."""

    async def anyhow(db: Any, unsent: Execution, batch: str) -> bool:
        now = db.executions.get(unsent.id)
        return False if now is None else await model_messages.take_unsent(db, now, batch)

    patch.setattr(executions, "take_unsent", anyhow)
    return Messages


def _lost_claims_forgotten(patch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """A cancellation takes what no node holds now, although one may have sent it before it died."""

    async def never(_db: Any, execution: Execution) -> bool:
        return execution.owner is not None and not execution.owner

    patch.setattr(leased_executions, "may_be_sent", never)
    return Messages


def _not_recorded(patch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """A cancellation deletes the documents and records nothing: a leader that comes late inserts the message again."""

    async def nothing(db: Any, taken: Execution, _now_ms: int, _days: float) -> None:
        await messages.delete(db, [taken.id])
        await executions.delete_cancelled(db, taken.id)

    patch.setattr("cluster.usecases.messages._record", nothing)
    return Messages


def _history_not_asked(patch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """A claim sends whatever it finds."""

    async def nothing(_db: Any, _versions: Any) -> set[str]:
        return set()

    patch.setattr(history, "final_ids", nothing)
    return Messages


BROKEN: dict[str, tuple[Callable[[pytest.MonkeyPatch], Callable[[int], Any]], str]] = {
    "what waits is deleted first": (_deleted_first, "is nowhere"),
    "no dedup document": (_no_dedup, "has two messages"),
    "a dedupId that was met stands for its message": (_met_is_written, "is nowhere"),
    "an execution that was met stands for its batch": (_half_is_enough, "is in no batch"),
    "taken from its owner": (_taken_from_its_owner, "its cancellation was answered"),
    "lost claims are forgotten": (_lost_claims_forgotten, "its cancellation was answered"),
    "a cancellation is not recorded": (_not_recorded, "is nowhere|neither owed nor final"),
    "history not asked at the claim": (_history_not_asked, "its cancellation was answered|final before it was claimed"),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_found(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of README.md: with the rule broken, some seed has the finding that the rule prevents."""
    broken, finding = BROKEN[rule]
    print(rule, "->", first_to_show(finding, broken(monkeypatch), rule=rule))
