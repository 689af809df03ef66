"""Instants as RFC 3339 texts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.core import instants


@given(st.integers(0, instants.LATEST_MS - 1))
def test_instants_read_as_they_were_written(ms: int) -> None:
    """Every ms is the same after it was written and read."""
    assert instants.parse_instant(instants.format_instant(ms)) == ms


@given(st.integers(0, instants.LATEST_MS - 1))
def test_instants_are_written_as_python_writes_them(ms: int) -> None:
    """The text is put together by hand, since a page has hundreds of them."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    assert instants.format_instant(ms) == at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_a_time_without_its_offset_is_refused() -> None:
    """Any other text is refused too. Fractions are cut to ms."""
    ends = ("", "+01", "+0100", "+00:60", "-01:75", "+24:00", "Z ", " Z")
    texts = ("2026-12-01", "2026-13-01T10:00:00Z", "2026-12-01T24:00:00Z", "now", "1969-12-31T23:59:59Z", "")
    for text in (*texts, *(f"2026-12-01T10:00:00{end}" for end in ends)):
        with pytest.raises(ValueError, match=r"must|not a valid time"):
            instants.parse_instant(text)
    assert instants.parse_instant("2026-12-01T11:00:00.1239+01:00") == instants.parse_instant(
        "2026-12-01T10:00:00.123Z"
    )
