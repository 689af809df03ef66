"""iCalendar files that want to take long, or say what cannot be."""

from __future__ import annotations

from datetime import date

import pytest

from cluster.core.documents.ical import read_ical
from cluster.core.errors import InvalidInput

TODAY = date(2026, 11, 26)


def ics(*events: str) -> bytes:
    body = "".join(
        f"BEGIN:VEVENT\r\nUID:{n}\r\nDTSTART;VALUE=DATE:{event}\r\nEND:VEVENT\r\n" for n, event in enumerate(events)
    )
    return f"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//x//EN\r\n{body}END:VCALENDAR\r\n".encode()


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=MONTHLY;BYMONTH=4;BYMONTHDAY=31",
        "FREQ=YEARLY;BYWEEKNO=53;BYDAY=MO;BYMONTH=6",
        "FREQ=DAILY;BYYEARDAY=366;BYMONTH=1",
    ],
)
def test_a_rule_that_never_comes_is_not_followed_for_ever(rule: str) -> None:
    """The library would look for it up to the year 9999; the other events count."""
    spec, remarks = read_ical(ics(f"20000101\r\nRRULE:{rule}", "20261224"), TODAY)
    assert spec.to_json()["dates"] == ["2026-12-24"]
    assert remarks == ["event '0': its rule is written out until 2036-11-01 only"]


@pytest.mark.timeout(30)
def test_a_file_of_many_long_rules_is_refused() -> None:
    """It would keep a node from reading other documents for minutes."""
    rules = ["19000101\r\nRRULE:FREQ=DAILY;INTERVAL=2"] * 300
    with pytest.raises(InvalidInput, match="too many rules"):
        read_ical(ics(*rules), TODAY)
    many = [f"2026{m:02d}01\r\nRRULE:FREQ=YEARLY;BYDAY=1MO;BYMONTH={m}" for m in range(1, 13)] * 20
    spec, _ = read_ical(ics(*many), TODAY)
    assert len(spec.to_json()["dates"]) >= 120


def test_a_rule_that_has_ended_is_written_out_without_a_remark() -> None:
    """Up to its end, whether that is a date or a number."""
    for end in ("UNTIL=20281225", "COUNT=3"):
        spec, remarks = read_ical(ics(f"20261225\r\nRRULE:FREQ=YEARLY;{end}"), TODAY)
        assert spec.to_json()["dates"] == ["2026-12-25", "2027-12-25", "2028-12-25"]
        assert remarks == []
