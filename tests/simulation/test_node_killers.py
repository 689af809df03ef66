"""Requests that kill nodes, in virtual time: their batch is split, and only they are given up. See `node_killers.py`."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cluster.worker.claim import ClaimedBatch
from cluster.worker.claiming import Claiming
from cluster.worker.record import AS_RETRY, MoveOptions, Recorder
from cluster.worker.suspect_slot import SuspectSlot
from tests.simulation import twins
from tests.simulation.explore import TIMES, explore, first_to_show
from tests.simulation.node_killers import NodeKillers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cluster.core.execution.model import Rescheduled

STORMS, QUIET = 20 * TIMES, 10 * TIMES
BROKEN_RUNS = 10_000


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    twins.install(monkeypatch)


def _quiet(seed: int) -> NodeKillers:
    return NodeKillers(seed, trouble=0.0)


@pytest.mark.takes(5)
@pytest.mark.timeout(900)
def test_under_faults_only_the_execution_that_kills_nodes_is_given_up() -> None:
    """Writes are lost, late and half done while a batch is split and its singles are claimed: nothing owed is lost, and
    none of the others is given up for the nodes that it killed."""
    assert len(explore(NodeKillers, STORMS)) == STORMS


@pytest.mark.timeout(900)
def test_without_faults_at_most_ten_nodes_die_and_all_other_executions_are_delivered() -> None:
    """Also if one of the nodes is stopped, and releases its unsent executions."""
    assert len(explore(_quiet, QUIET)) == QUIET


# -- broken rules, each found ----------------------------------------------------------------------------------------


def _never_split(patch: pytest.MonkeyPatch) -> None:
    """Its executions stay together."""
    patch.setattr(ClaimedBatch, "must_split", property(lambda _: False))


def _removed_before_the_split(patch: pytest.MonkeyPatch) -> None:
    """The old batch goes before its executions have others."""
    real = Claiming.take_on

    async def take_on(self: Claiming, claimed: ClaimedBatch) -> None:
        if claimed.must_split:
            await self._recorder.delete_finished([claimed.batch])
        await real(self, claimed)

    patch.setattr(Claiming, "take_on", take_on)


def _moved_with(patch: pytest.MonkeyPatch, change: Callable[[MoveOptions], MoveOptions]) -> None:
    real = Recorder.reschedule

    async def moves(self: Recorder, moved: Sequence[Rescheduled], way: MoveOptions = AS_RETRY) -> int:
        return await real(self, moved, change(way))

    patch.setattr(Recorder, "reschedule", moves)


def _split_forgets_claims(patch: pytest.MonkeyPatch) -> None:
    """Singles do not know how often they were claimed together."""
    _moved_with(patch, lambda way: replace(way, claims=0) if way.one_per_batch else way)


def _release_forgets_claims(patch: pytest.MonkeyPatch) -> None:
    """A partly released batch counts as never claimed: a bug of the engine that this found."""
    _moved_with(patch, lambda way: way if way.one_per_batch else replace(way, claims=0))


def _side_by_side(patch: pytest.MonkeyPatch) -> None:
    """Several batches that nodes were lost with are on one node: a bug of the engine that this found."""

    @contextmanager
    def asking(_: SuspectSlot) -> Iterator[bool]:
        yield True

    patch.setattr(SuspectSlot, "claiming", asking)


def _never_given_up(patch: pytest.MonkeyPatch) -> None:
    """Nothing is ever given up."""
    patch.setattr(ClaimedBatch, "must_give_up", property(lambda _: False))


BROKEN: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[int], Any], str]] = {
    "never split": (_never_split, _quiet, "killed .* nodes"),
    "removed before the split": (_removed_before_the_split, NodeKillers, "owed by no batch"),
    "a split forgets the claims": (_split_forgets_claims, _quiet, "killed .* nodes"),
    "a release forgets the claims": (_release_forgets_claims, _quiet, "killed .* nodes"),
    "side by side": (_side_by_side, _quiet, "harmed no node"),
    "never given up": (_never_given_up, _quiet, "left behind"),
}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_found(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of README.md: with the rule broken, some seed has the finding that the rule prevents."""
    broken, scenario, finding = BROKEN[rule]
    broken(monkeypatch)
    print(rule, "->", first_to_show(finding, scenario, BROKEN_RUNS, rule))
