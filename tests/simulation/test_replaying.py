"""Replays of what something follows, under every interleaving: what followed a result is owed although a replay took that
result back, and no replay is left half done. A failure names its seed: `Replaying(816).run()` is that run again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cluster.leader import replay
from cluster.store import follow_ups
from tests.simulation import model_replays, twins
from tests.simulation.explore import SHIFT, TIMES, explore, first_to_show
from tests.simulation.replaying import Replaying
from tests.simulation.twins import Silent

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 30 * TIMES


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    twins.install(monkeypatch)
    for name, function in model_replays.TWINS.items():
        monkeypatch.setattr(f"cluster.store.{name}", function)
    monkeypatch.setattr("cluster.usecases.executions._with_api_deadline", model_replays.with_api_deadline)
    monkeypatch.setattr(replay, "log", Silent())
    monkeypatch.setattr(replay, "UNFINISHED_MS", 8000)  # as short as a freeze, so that some requests are alive still


@pytest.mark.takes(8)
@pytest.mark.timeout(300)
def test_no_interleaving_of_replays_loses_what_follows() -> None:
    """Faults, freezes and deaths between any two steps of replaying, claiming, recording and writing what follows."""
    assert len(explore(Replaying, RUNS)) >= RUNS * 0.99, f"SIMULATION_SEED={SHIFT}"


# -- broken rules, each found ----------------------------------------------------------------------------------------


def _not_before(patch: pytest.MonkeyPatch) -> None:
    """A replay deletes and reopens, whatever its nodes have left undone."""

    async def nothing(_db: Any, _ids: Any) -> int:
        return 0

    patch.setattr(follow_ups, "owe_before_replay", nothing)


def _no_repair(patch: pytest.MonkeyPatch) -> None:
    """What a request reopened stays so, if its node died before it owed the execution."""

    async def nothing(*_: Any) -> list[Any]:
        return []

    patch.setattr("cluster.store.replayable.unfinished", nothing)


BROKEN: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "a replay does not write what follows first": (_not_before, "is nowhere"),
    "what was reopened is not repaired": (_no_repair, "left behind: .*reopened"),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_found(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of README.md: with the rule broken, some seed has the finding that the rule prevents."""
    broken, finding = BROKEN[rule]
    broken(monkeypatch)
    print(rule, "->", first_to_show(finding, Replaying, rule=rule))
