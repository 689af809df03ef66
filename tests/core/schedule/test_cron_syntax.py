"""Normal forms of cron expressions; every text is read or refused with a sentence."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.core.schedule.cron_syntax import FIELDS, normalise
from cluster.core.schedule.schedule import InvalidSchedule, parse_schedule, schedule_from_key


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("0/15 0/20 * ? * *", "*/15 */20 * * * *"),
        ("0 0-59 9 * * *", "0 0-59 9 * * *"),  # fixed minutes, not a star: they differ when clocks go back
        ("0 0-59 * * * *", "0 * * * * *"),  # the hour's star makes it follow real time anyway
        ("0 0 22-2 * * *", "0 0 0-2,22,23 * * *"),
        ("0 0 0 * * FRI-SUN", "0 0 0 * * 0,5,6"),
        ("0 0 0 * * 5-7", "0 0 0 * * 0,5,6"),
        ("0 0 0 * * 0-6", "0 0 0 * * *"),
        ("0 0 0 * * 7/3", "0 0 0 * * 0-6/3"),
        ("0 0 0 1-31 * MON", "0 0 0 * * *"),  # either fits, and the first always does
        ("0 0 0 * * FRIL", "0 0 0 * * L5"),
        ("0 0 0 L,15 * *", "0 0 0 15,L * *"),
        ("0 0 0 */10,L * *", "0 0 0 */10,L * *"),
        ("05 007 09 * * *", "5 7 9 * * *"),
        ("59/7 * * * * *", "59 * * * * *"),
    ],
)
def test_equal_expressions_have_one_normal_form(text: str, normal: str) -> None:
    """Equal schedules have equal texts. Schedules that differ only at clock changes have different texts."""
    assert normalise(text) == normal


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(
        st.text(alphabet="0123456789*/-,#LW? @JANMOEVRYT", max_size=40),
        st.lists(st.text(alphabet="0123456789*/-,#LW?", min_size=1, max_size=6), min_size=5, max_size=7).map(" ".join),
        st.text(max_size=40),
    ),
    st.sampled_from(["UTC", "Europe/Berlin"]),
)
def test_whatever_is_written_is_read_or_refused_in_a_sentence(text: str, timezone: str) -> None:
    """No text raises anything but `InvalidSchedule`, and what is accepted has a next run, a key and six fields."""
    try:
        schedule = parse_schedule(text, timezone)
    except InvalidSchedule as refused:
        assert refused.message  # noqa: PT017 - what raises is not known beforehand
        return
    assert schedule_from_key(schedule.key).key == schedule.key
    if schedule.kind == "cron":
        assert schedule.next_after(0) is not None
        assert len(schedule.key.split("|")[1].split(" ")) == len(FIELDS)
