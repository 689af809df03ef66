"""Previewing schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.api_client import paths

if TYPE_CHECKING:
    from tests.support.api_client import Api


async def ask(api: Api, **body: Any) -> Any:
    return await api.call("POST", "/schedules/preview", body)


async def test_occurrences_have_the_offset_of_the_zone(api: Api) -> None:
    """After `after`, across a change to daylight saving time, which has a warning."""
    answer = await ask(api, schedule="0 30 2 * * *", timezone="Europe/Berlin", count=3, after="2027-03-27T01:30:00Z")
    assert answer.json["next"] == [
        "2027-03-28T03:00:00.000+02:00",
        "2027-03-29T02:30:00.000+02:00",
        "2027-03-30T02:30:00.000+02:00",
    ]
    assert answer.json["description"] == "at 02:30:00 (Europe/Berlin)"
    assert any("2027-03-28" in w for w in answer.json["warnings"])


@pytest.mark.parametrize(
    ("schedule", "description"),
    [
        ("* * * * * *", "every second (UTC)"),
        ("* * * * *", "every minute (UTC)"),
        ("*/15 * * * *", "every 15 minutes (UTC)"),
        ("0 5 * * * *", "at minute 5, every hour (UTC)"),
        ("0 0 9-17 * * MON-FRI", "at minute 0, at hour 9-17, on Mon-Fri (UTC)"),
        ("0 30 9 L * *", "at 09:30:00, on the last day of the month (UTC)"),
        ("0 0 12 * JAN,JUL FRI#2", "at 12:00:00, on the second Fri of the month, in Jan, Jul (UTC)"),
        ("0 0 12 * * L5", "at 12:00:00, on the last Fri of the month (UTC)"),
        ("@every 1h30m", "every 1 hour 30 minutes, on a fixed grid"),
        ("@at 2030-01-01T00:00:00Z", "once, at 2030-01-01T00:00:00.000Z"),
    ],
)
async def test_schedules_are_described_in_words(api: Api, schedule: str, description: str) -> None:
    """Schedules are said in words."""
    answer = await ask(api, schedule=schedule)
    assert answer.status_code == 200, answer.text
    assert answer.json["description"] == description


async def test_risky_schedules_have_warnings(api: Api) -> None:
    """Runs every second, days that some months do not have, both day fields."""
    for schedule, word in (
        ("* * * * * *", "86400 requests a day"),
        ("0 0 0 31 * *", "not every month"),
        ("0 0 0 1 * MON", "either matches"),
        ("0 0 0 29 2 *", "more than a year"),
    ):
        answer = await ask(api, schedule=schedule, after="2026-11-23T00:00:00Z")
        assert any(word in w for w in answer.json["warnings"]), (schedule, answer.json)
    assert (await ask(api, schedule="0 0 12 * * *")).json["warnings"] == []


async def test_an_invalid_schedule_is_422(api: Api) -> None:
    """Invalid, without occurrences, or in the past; together with all other errors."""
    assert paths(await ask(api, schedule="x", timezone="y", count=0, after="z", foo=1)) == [
        "timezone",
        "schedule",
        "count",
        "after",
        "foo",
    ]
    assert paths(await ask(api, schedule="0 0 0 30 2 *")) == ["schedule"]
    assert paths(await ask(api, schedule="@at 2020-01-01T00:00:00Z")) == ["schedule"]
    assert len((await ask(api, schedule="* * * * * *", count=100)).json["next"]) == 100


async def test_one_instant_is_described_to_the_millisecond(api: Api) -> None:
    answer = await ask(api, schedule="@at 2030-01-05T10:00:00.250Z", count=3)
    assert answer.json["next"] == ["2030-01-05T10:00:00.250+00:00"]
    assert answer.json["description"] == "once, at 2030-01-05T10:00:00.250Z"
    answer = await ask(api, schedule="@at 2030-01-05T10:00:00Z")
    assert answer.json["description"] == "once, at 2030-01-05T10:00:00.000Z"


async def test_an_instant_that_a_calendar_moves_has_no_warning_of_others(api: Api) -> None:
    """There are no others: one of one was found."""
    await api.call("PUT", "/calendars/weekends", {"weekdays": ["SAT", "SUN"]})
    use = {"name": "weekends", "onExcluded": "nextIncluded"}
    answer = await ask(api, schedule="@at 2030-01-05T10:00:00Z", calendar=use)
    assert answer.json["next"] == ["2030-01-07T10:00:00.000+00:00"]
    assert answer.json["warnings"] == []
