"""iCalendar files as programs write them, and as they arrive: what is read, and what is refused."""

from __future__ import annotations

from datetime import date

import pytest

from cluster.core.documents.calendar import WEEKDAYS
from cluster.core.documents.ical import read_ical
from cluster.core.errors import InvalidInput

TODAY = date(2026, 11, 27)
DAY = "DTSTART;VALUE=DATE:20260102"


def file_of(*events: str) -> bytes:
    """A file with these events, whose lines are separated by `|`."""
    texts = [f"BEGIN:VEVENT\r\n{event.replace('|', chr(13) + chr(10))}\r\nEND:VEVENT\r\n" for event in events]
    return ("BEGIN:VCALENDAR\r\nVERSION:2.0\r\n" + "".join(texts) + "END:VCALENDAR\r\n").encode()


def fault_of(raw: bytes) -> str:
    """The fault of a file that is refused."""
    with pytest.raises(InvalidInput) as refused:
        read_ical(raw, TODAY)
    (fault,) = refused.value.faults
    return fault.message


@pytest.mark.parametrize("end", ["DTSTART;VALUE=DATE:20261225", "END:VEVENT", "SUMM", "BEGIN:VEVENT"])
def test_a_file_that_was_cut_off_is_refused(end: str) -> None:
    """Whatever was read before: its last events would be missing without a word."""
    whole = file_of("SUMMARY:One|DTSTART;VALUE=DATE:20261224", "SUMMARY:Two|DTSTART;VALUE=DATE:20261225").decode()
    cut = whole[: whole.rindex(end) + len(end)].encode()
    assert "was it cut off?" in fault_of(cut)


def test_a_file_with_too_many_days_names_the_event() -> None:
    """A rule of most days, that no weekdays say, is too long for a calendar."""
    raw = file_of("SUMMARY:Often|DTSTART;VALUE=DATE:20270101|RRULE:FREQ=DAILY", "SUMMARY:Other|" + DAY)
    assert "event 'Often'" in fault_of(raw)


@pytest.mark.parametrize(
    ("rule", "weekdays"),
    [
        ("FREQ=DAILY", list(WEEKDAYS)),
        ("FREQ=DAILY;BYDAY=SA,SU", ["SAT", "SUN"]),
        ("FREQ=WEEKLY;BYDAY=SU", ["SUN"]),
        ("FREQ=WEEKLY;WKST=MO", ["FRI"]),
    ],
)
def test_a_rule_of_weekdays_is_weekdays(rule: str, weekdays: list[str]) -> None:
    """They have no end, and need no days that are written out."""
    spec, remarks = read_ical(file_of(f"{DAY}|RRULE:{rule}"), TODAY)
    assert (spec.to_json()["weekdays"], spec.dates, remarks) == (weekdays, [], [])


def test_folded_lines_and_small_letters_and_a_byte_order_mark_are_read() -> None:
    """Of the letters RFC 5545 says that their case means nothing, and of folds that they may be anywhere."""
    raw = file_of("summary:A title|  that is folded|dtstart;value=DA| TE:20261224|dtend;value=date:20261227")
    spec, _ = read_ical(b"\xef\xbb\xbf" + raw.replace(b"VEVENT", b"vevent"), TODAY)
    assert spec.to_json()["ranges"] == [{"from": "2026-12-24", "until": "2026-12-26"}]
