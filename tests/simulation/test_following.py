"""What follows executions under every interleaving: nothing of it is lost, nothing is made of nothing, and nothing that was
final before its claim is sent. A failure names its seed: `Following(816).run()` is that run again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cluster.store import executions, follow_ups, followed, history
from cluster.worker.record import Recorder
from tests.simulation import twins
from tests.simulation.explore import FIRST, SHIFT, TIMES, explore, first_to_show
from tests.simulation.following import Following

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 75 * TIMES


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    twins.install(monkeypatch)


@pytest.mark.takes(8)
@pytest.mark.timeout(300)
def test_no_interleaving_loses_what_follows_an_execution() -> None:
    """Faults, freezes and deaths between any two steps of claiming, recording and writing what follows."""
    assert len(explore(Following, RUNS)) >= RUNS * 0.99, f"SIMULATION_SEED={SHIFT}"


def test_without_faults_what_follows_is_delivered_once() -> None:
    for seed in range(FIRST, FIRST + 40):
        quiet = Following(seed, trouble=0.0)
        quiet.run()
        assert len(quiet.sent) == len(set(quiet.sent)), f"seed {seed} (SIMULATION_SEED={SHIFT})"


# -- broken rules, each found ----------------------------------------------------------------------------------------


def _written_last(patch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """What follows is written after the execution has gone."""
    real, owe = Recorder.record_final, follow_ups.owe_after

    async def nothing(_db: Any, _ended: Any) -> int:
        return 0

    async def late(self: Recorder, ended: Any, exclusive: Any = ()) -> Any:
        flushed = await real(self, ended, exclusive)
        await owe(self._db, [e.execution for e in ended if e.followed])
        return flushed

    patch.setattr(Recorder, "record_final", late)
    patch.setattr(follow_ups, "owe_after", nothing)
    return Following


def _claims_forget(patch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """A claim removes what is final, and writes nothing that follows it."""

    class Silent:
        @staticmethod
        async def owe_after(_db: Any, _ended: Any) -> int:
            return 0

    patch.setattr("cluster.worker.claim.follow_ups", Silent)
    return Following


def _history_not_asked(patch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """What follows is written again although history knows it, and its claim does not ask either."""

    async def none(_db: Any, _ids: Any) -> set[str]:
        return set()

    patch.setattr(followed, "recorded", none)
    patch.setattr(history, "final_ids", none)
    return Following


def _before_the_record(patch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """What follows is written by the result of the node, whatever history says."""
    real = followed.results

    async def by_own_result(db: Any, ids: Any) -> Any:
        found = await real(db, ids)
        return {i: r if r.state != "succeeded" else _failed(r) for i, r in found.items()}

    patch.setattr(followed, "results", by_own_result)
    return Following


def _failed(result: Any) -> Any:
    return replace(result, state="failed")


def _no_repair(patch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """What the insert meets is taken for written, and it is deleted instead of given its batch."""
    real = executions.insert

    async def mine(db: Any, planned: Any) -> list[str]:
        existed = await real(db, planned)
        for name in existed if planned and planned[0].request_id else ():
            await db.write(lambda name=name: db.executions.pop(name, None))
        return existed

    patch.setattr(executions, "insert", mine)
    return Following


BROKEN: dict[str, tuple[Callable[[pytest.MonkeyPatch], Callable[[int], Any]], str]] = {
    "what follows is written last": (_written_last, "is nowhere"),
    "a claim forgets what follows": (_claims_forget, "is nowhere"),
    "history not asked": (_history_not_asked, "final before it was claimed"),
    "a failure is told of a success": (_before_the_record, "is nowhere|follows nothing"),
    "what exists is taken away": (_no_repair, "neither owed nor final|is nowhere"),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_found(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of README.md: with the rule broken, some seed has the finding that the rule prevents."""
    broken, finding = BROKEN[rule]
    print(rule, "->", first_to_show(finding, broken(monkeypatch)))
