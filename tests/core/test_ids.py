"""Ids and hashes that no release may change."""

from __future__ import annotations

import pytest

from cluster.core.ids import Occurrence, execution_id, lane_of, parse_execution_id, spread_ms, trigger_due_ms


def test_execution_ids_round_trip_and_sort_by_time() -> None:
    """13 digits keep lexical and temporal order the same."""
    ids = [execution_id("a-b_C", t) for t in (0, 999, 1795651200000, 9999999999999)]
    assert ids == sorted(ids)
    parsed = [parse_execution_id(i) for i in ids]
    assert parsed == [Occurrence("a-b_C", t) for t in (0, 999, 1795651200000, 9999999999999)]


def test_an_occurrence_that_a_backfill_sends_once_more_has_a_third_part() -> None:
    """It sorts behind the occurrence, and before the ranges of missed ones and the next ms."""
    backfill = "f" * 32
    again = execution_id("a", 1795651200000, backfill)
    assert again == f"a:1795651200000:{backfill}"
    assert parse_execution_id(again) == Occurrence("a", 1795651200000, backfill)
    assert execution_id("a", 1795651200000) < again < "a:1795651200000:missed" < execution_id("a", 1795651200001)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a:1",
        "a:12345678901234",
        "a b:1795651200000",
        ":1795651200000",
        "a:١٧٩٥٦٥١٢٠٠٠٠٠",
        "a:1795651200000:missed",
        "a:1795651200000:" + "F" * 32,
        "a:1795651200000:",
        f"a:1795651200000:{'f' * 32}:x",
    ],
)
def test_other_texts_are_no_execution_ids(text: str) -> None:
    """A wrong id is recognised without asking the database."""
    assert parse_execution_id(text) is None


def test_lanes_and_spreads_never_change() -> None:
    """Lanes and spreads must not change between releases: they decide ids of stored documents."""
    assert lane_of("Example.com:443") == lane_of("example.com:443") == 32
    assert spread_ms("nightly", 60) == 6000
    assert spread_ms("nightly", 0) == 0


def test_a_run_by_hand_never_takes_a_whole_second() -> None:
    """Schedules use whole seconds."""
    assert trigger_due_ms(1795651200000) == 1795651200001
    assert trigger_due_ms(1795651200123) == 1795651200123
