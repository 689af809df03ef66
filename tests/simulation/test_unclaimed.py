"""What stood unclaimed: `catchUp` binds what was written in time, and nothing else. See `away.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cluster.worker.claiming import Claiming
from cluster.worker.release import Releaser
from cluster.worker.unclaimed import UnclaimedJudge
from tests.simulation import model, twins
from tests.simulation.away import Away, HeldBack
from tests.simulation.explore import TIMES, explore, first_to_show

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.store.batches import ClaimFilter

RUNS = 9 * TIMES
BROKEN_RUNS = 300


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    twins.install(monkeypatch)


def _troubled(seed: int) -> Away:
    return Away(seed, 0.03)


@pytest.mark.takes(8)
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", [Away, _troubled, HeldBack])
def test_what_nodes_come_back_to_follows_catch_up_and_nothing_else_is_missed(scenario: Any) -> None:
    """`none` is not sent late, `latest` only if nothing later is due, `all` within its window; what was sent, was there in
    time or was held back by a limit is never missed."""
    assert len(explore(scenario, RUNS)) >= RUNS * 0.9


# -- broken rules, each found ----------------------------------------------------------------------------------------


def _not_judged(patch: pytest.MonkeyPatch) -> None:
    """What stood unclaimed is sent, as before there was this rule."""

    async def judge(_: UnclaimedJudge, claimed: Any) -> Any:
        return claimed

    patch.setattr(UnclaimedJudge, "judge", judge)


def _later_claims_judged(patch: pytest.MonkeyPatch) -> None:
    """A batch whose lease ended is judged as if nothing of it could have been sent."""
    real = model.claim

    async def claim(db: model.Store, owner: str, lease: float, which: ClaimFilter, timeout: float) -> Any:
        before = {b.id: b.claimable_ms for b in db.batches.values()}
        batch = await real(db, owner, lease, which, timeout)
        if batch is None or which.unclaimed_ms is None:
            return batch
        return replace(batch, unclaimed=before[batch.id] < db.now_ms() - which.unclaimed_ms)

    patch.setattr("cluster.store.batches.claim", claim)


def _judged_too_soon(patch: pytest.MonkeyPatch) -> None:
    """A batch stands unclaimed as soon as it is late."""
    real = Claiming._filter

    def sooner(self: Claiming, max_claims: int | None, *, late: bool, soon_only: bool = False) -> ClaimFilter:
        return replace(real(self, max_claims, late=late, soon_only=soon_only), unclaimed_ms=2000)

    patch.setattr(Claiming, "_filter", sooner)
    patch.setattr("cluster.core.timings.UNCLAIMED_GRACE", -8.0)


def _held_back_not_noted(patch: pytest.MonkeyPatch) -> None:
    """A node leaves a batch alone because of its limit, and does not say so."""

    async def silent(_: Releaser) -> None:
        pass

    patch.setattr(Releaser, "_note_held_back", silent)


# The broken rule, its scenario and its finding.
BROKEN: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[int], Any], str]] = {
    "what stood unclaimed is not judged": (_not_judged, Away, "although catchUp is none"),
    "later claims are judged too": (_later_claims_judged, _troubled, "is missed, and it was sent"),
    "judged as soon as it is late": (_judged_too_soon, Away, "is missed, and nodes were there"),
    "what a limit holds back is not noted": (_held_back_not_noted, HeldBack, "is missed, and nodes were there"),
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_found(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of README.md: with the rule broken, some seed has the finding that the rule prevents."""
    broken, scenario, finding = BROKEN[rule]
    broken(monkeypatch)
    print(rule, "->", first_to_show(finding, scenario, BROKEN_RUNS, rule))
