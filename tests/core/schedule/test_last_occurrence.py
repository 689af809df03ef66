"""The last occurrence before an end."""

from __future__ import annotations

import random

import pytest

from cluster.core.schedule.last_occurrence import last_occurrence
from cluster.core.schedule.schedule import Schedule, parse_schedule

T0 = 1_900_000_000_000
DAY = 86_400_000


@pytest.mark.parametrize(
    "text",
    [
        "* * * * * *",
        "*/7 * * * * *",
        "0 0 9 * * MON-FRI",
        "0 30 2 * * *",
        "*/10 * 0-2 1 1 *",
        "@every 90s",
        "0 0 0 29 2 *",
    ],
)
def test_it_is_the_last_of_all_occurrences(text: str) -> None:
    """In a time zone with clock changes too; wherever the time begins and ends."""
    key = parse_schedule(text, "Europe/Berlin", T0).key
    luck = random.Random(text)
    for days in (0.001, 0.5, 40, 400):
        for _ in range(5):
            start = T0 + luck.randrange(400 * DAY)
            end = start + luck.randrange(int(days * DAY))
            found = last_occurrence(key, start, end)
            schedule = parse_schedule(text, "Europe/Berlin", T0)
            if found is None:
                assert (schedule.next_after(start - 1) or end + 1) > end
            else:
                assert start <= found <= end
                assert schedule.is_occurrence(found)
                assert (schedule.next_after(found) or end + 1) > end


def test_it_is_found_with_few_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a schedule that runs every second of one day a year, with an end in ten years."""
    asked = 0
    real = Schedule.next_after

    def next_after(self: Schedule, after_ms: int) -> int | None:
        nonlocal asked
        asked += 1
        return real(self, after_ms)

    monkeypatch.setattr(Schedule, "next_after", next_after)
    for text, most in (("* * * 1 1 *", 80), ("0 0 3 * * *", 8), ("* * * * * *", 8)):
        asked = 0
        assert last_occurrence(parse_schedule(text).key, T0 + 17, T0 + 3650 * DAY) is not None
        assert asked <= most, (text, asked)
