"""Actions and requested backfills under leaders that freeze, die and overlap. See `asking.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cluster.leader.act import JobActions
from tests.simulation import model_requests, twins
from tests.simulation.asking import Asking
from tests.simulation.explore import TIMES, explore, first_to_show

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 35 * TIMES
BROKEN_RUNS = 2000


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    twins.install(monkeypatch)
    for name, twin in model_requests.TWINS.items():
        monkeypatch.setattr(f"cluster.store.{name}", twin)
    for step in ("act", "backfill"):
        monkeypatch.setattr(f"cluster.leader.{step}.log", twins.Silent())


@pytest.mark.takes(6)
def test_each_job_and_each_occurrence_gets_its_part_once() -> None:
    """Whoever dies or freezes at which write; and what a user did since is not undone."""
    assert len(explore(Asking, RUNS)) >= RUNS * 0.99


def _jobs_not_marked(patch: pytest.MonkeyPatch) -> None:
    """A job does not say which action has changed it."""
    real = model_requests.read_targets

    async def read(db: Any, action: Any, job_ids: Any) -> Any:
        return await real(db, replace(action, id="nobody"), job_ids)

    patch.setattr("cluster.store.queries.action_targets.read", read)


def _instant_not_stored(patch: pytest.MonkeyPatch) -> None:
    """A run has the instant at which it is owed, not that of its page."""
    real = JobActions._planned

    def planned(self: Any, action: Any, found: Any) -> Any:
        return real(self, replace(action, page_ms=self._context.clock.now_ms()), found)

    patch.setattr(JobActions, "_planned", planned)


def _history_not_asked(patch: pytest.MonkeyPatch) -> None:
    """What has run is owed, and a claim does not ask for it either."""

    async def nothing(*_: Any) -> set[str]:
        return set()

    patch.setattr("cluster.store.requested_backfills.not_missed", nothing)
    patch.setattr("cluster.store.history.final_ids", nothing)


def _ranges_deleted_first(patch: pytest.MonkeyPatch) -> None:
    """Missed ranges go before their occurrences are owed."""
    real = model_requests.delete_missed_ranges

    async def delete(db: Any, backfill: Any, from_ms: int, _: int) -> None:
        await real(db, backfill, from_ms, backfill.until_ms)

    patch.setattr("cluster.store.requested_backfills.delete_missed_ranges", delete)


@pytest.mark.parametrize(
    ("broken", "finding"),
    [
        (_jobs_not_marked, "changed twice|paused again"),
        (_instant_not_stored, "runs twice"),
        (_history_not_asked, "sent again"),
        (_ranges_deleted_first, "nothing says so"),
    ],
)
def test_a_broken_rule_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[[pytest.MonkeyPatch], None], finding: str
) -> None:
    """Each protection by itself."""
    broken(monkeypatch)
    print(first_to_show(finding, Asking, BROKEN_RUNS))
