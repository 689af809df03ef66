"""A changed clock of the primary: held against while most hosts contradict it, a minute at most. See `doubt.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cluster import clock_watch
from cluster.clock_watch import ClockWatch
from cluster.core.clock_vote import ClockVote, elected
from tests.simulation.doubt import Asleep, Doubt
from tests.simulation.explore import TIMES, explore, first_to_show
from tests.simulation.twins import Silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

RUNS = 100 * TIMES


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_watch, "log", Silent())


@pytest.mark.takes(8)
def test_cluster_time_follows_the_primary_unless_most_hosts_contradict_it() -> None:
    """Never a clock that most hosts contradict within the minute; always after it; at once, one that they confirm."""
    assert len(explore(Doubt, RUNS)) == RUNS


def test_a_machine_that_stood_still_is_outvoted() -> None:
    """The others have seen no jump of the primary's clock: that is a vote too."""
    assert len(explore(Asleep, 60)) == 60


def _believed(patch: pytest.MonkeyPatch) -> None:
    """A jump is followed at once, as before there was this rule."""
    patch.setattr(ClockWatch, "jumped", lambda *_: None)


def _one_vote_a_node(patch: pytest.MonkeyPatch) -> None:
    """A host with many nodes outvotes the others."""

    def by_node(votes: Iterable[ClockVote]) -> int:
        return elected(ClockVote(f"{v.host}{n}", v.jump_ms) for n, v in enumerate(votes))

    patch.setattr(clock_watch, "elected", by_node)


def _held_for_ever(patch: pytest.MonkeyPatch) -> None:
    """The primary's clock is never the law."""
    patch.setattr(clock_watch, "HOLD_SECONDS", 1e9)


def _not_voted(patch: pytest.MonkeyPatch) -> None:
    """Each node goes by its own clock alone."""
    patch.setattr(clock_watch, "elected", lambda votes: elected(list(votes)[-1:]))


BROKEN: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "a jump is believed": (_believed, "that most hosts contradict"),
    "one vote a node": (_one_vote_a_node, "most hosts"),
    "held for ever": (_held_for_ever, "longer than a minute"),
    "not voted": (_not_voted, "most hosts"),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_of_the_clock_is_found(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of README.md."""
    broken, finding = BROKEN[rule]
    broken(monkeypatch)
    found: Any = first_to_show(finding, Doubt, 2 * RUNS)
    print(rule, "->", found)
