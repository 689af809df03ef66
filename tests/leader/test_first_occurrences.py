"""What the settler keeps of schedules from step to step is what they say, in whatever order it is asked."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.core.schedule.schedule import schedule_from_key
from cluster.leader import settle
from tests.support.engine import T0

KEYS = (
    "cron|0 * * * * *|UTC",
    "cron|7 30 2 * * *|Europe/Berlin",
    "cron|0 0 0 29 2 *|UTC",
    "every|90|17",
    f"at|{T0 // 1000 + 40}.250",
    f"at|{T0 // 1000 - 1}",
    "after|",
)
DAY_MS = 86_400_000


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.integers(-2 * DAY_MS, 2 * DAY_MS)), max_size=60))
def test_each_answer_is_that_of_the_schedule(asked: list[tuple[str, int]]) -> None:
    """Earlier, later and repeated instants; schedules that are over and that never begin; and hardly any room."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settle, "SCHEDULES_KEPT", 3)
        first = settle._FirstOccurrences()
        for key, offset in asked:
            following = schedule_from_key(key).next_after(T0 + offset - 1)
            assert first.from_(key, T0 + offset) == (math.inf if following is None else following)
            assert len(first._found) <= 3


def test_a_schedule_is_computed_once_for_all_instants_before_its_occurrence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the jobs of an import each begins a little later than the one before."""
    computed: list[str] = []

    def counted(key: str) -> object:
        computed.append(key)
        return schedule_from_key(key)

    monkeypatch.setattr(settle, "schedule_from_key", counted)
    first = settle._FirstOccurrences()
    noon = T0 // DAY_MS * DAY_MS + DAY_MS + DAY_MS // 2
    for at in range(noon - 5000, noon + 1, 500):
        assert first.from_("cron|0 0 12 * * *|UTC", at) == noon
    assert len(computed) == 1
    assert first.from_("cron|0 0 12 * * *|UTC", noon + 1) == noon + DAY_MS
    assert len(computed) == 2
