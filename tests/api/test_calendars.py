"""`/calendars`: days on which jobs do not run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cluster.core.instants import format_instant, parse_instant
from cluster.core.schedule.forecast import JobGroup, forecast
from cluster.leader.follow_calendars import CalendarFollower
from tests.support.api_client import TARGET, paths

if TYPE_CHECKING:
    from tests.support.api_client import Api

HOLIDAYS = {
    "timezone": "Europe/Berlin",
    "dates": ["2030-12-24"],
    "yearly": ["12-25"],
    "ranges": [{"from": "2030-12-27", "until": "2030-12-29"}],
    "weekdays": ["SAT"],
}
JOB = {"schedule": "0 0 9 * * *", "timezone": "Europe/Berlin", "api": TARGET}


async def _preview(api: Api, on_excluded: str, after: str, count: int, **fields: str) -> list[str]:
    body = {
        "schedule": JOB["schedule"],
        "timezone": JOB["timezone"],
        "after": after,
        "count": count,
        "calendar": {"name": "holidays", "onExcluded": on_excluded},
        **fields,
    }
    answer = await api.call("POST", "/schedules/preview", body)
    assert answer.status_code == 200, answer.text
    return [t[:16] for t in answer.json["next"]]


async def test_calendars_are_created_changed_listed_and_deleted(api: Api) -> None:
    """Entries are in order, each once; the version changes with the days and with nothing else."""
    made = await api.call("PUT", "/calendars/holidays", HOLIDAYS)
    assert (made.status_code, made.headers["location"]) == (201, "/calendars/holidays")
    assert {name: made.json[name] for name in HOLIDAYS} == HOLIDAYS
    assert (made.json["jobs"], made.json["following"], made.json["remarks"]) == (0, 0, [])
    twice = {**HOLIDAYS, "dates": ["2030-12-31", "2030-12-24", "2030-12-24"], "weekdays": ["sun", "SAT"]}
    changed = await api.call("PUT", "/calendars/holidays", twice)
    assert (changed.status_code, changed.json["dates"]) == (200, ["2030-12-24", "2030-12-31"])
    assert changed.json["weekdays"] == ["SAT", "SUN"]
    assert changed.json["version"] != made.json["version"]
    same = await api.call("PUT", "/calendars/holidays", HOLIDAYS)
    assert same.json["version"] == made.json["version"]
    assert [c["name"] for c in (await api.call("GET", "/calendars")).json["items"]] == ["holidays"]
    assert (await api.call("GET", "/calendars/holidays")).json == same.json
    assert (await api.call("DELETE", "/calendars/holidays")).status_code == 204
    assert (await api.call("DELETE", "/calendars/holidays")).status_code == 404
    assert (await api.call("GET", "/calendars/holidays")).status_code == 404


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"timezone": "Mars/Base"}, "timezone"),
        ({"dates": ["2026-02-30"]}, "dates"),
        ({"dates": ["20261224"]}, "dates"),
        ({"dates": "2026-12-24"}, "dates"),
        ({"yearly": ["13-01"]}, "yearly"),
        ({"yearly": ["1-1"]}, "yearly"),
        ({"weekdays": ["FUNDAY"]}, "weekdays"),
        ({"ranges": [{"from": "2026-12-24"}]}, "ranges"),
        ({"ranges": [{"from": "2026-12-24", "until": "2026-12-23"}]}, "ranges"),
        ({"days": []}, "days"),
    ],
)
async def test_a_wrong_calendar_is_refused_with_its_field(api: Api, body: dict[str, object], path: str) -> None:
    """And nothing is stored."""
    refused = await api.call("PUT", "/calendars/x", body)
    assert (refused.status_code, paths(refused)) == (422, [path]), refused.text
    assert (await api.call("GET", "/calendars/x")).status_code == 404


async def test_a_job_leaves_out_or_moves_what_falls_on_excluded_days(api: Api) -> None:
    """The local time of day is kept, and two that fall together are one."""
    await api.call("PUT", "/calendars/holidays", HOLIDAYS)
    after = "2030-12-22T12:00:00Z"
    assert await _preview(api, "skip", after, 4) == [
        "2030-12-23T09:00",
        "2030-12-26T09:00",
        "2030-12-30T09:00",
        "2030-12-31T09:00",
    ]
    weekly = {"schedule": "0 30 7 * * TUE,SAT"}  # Christmas Eve, and the Saturday after it
    assert await _preview(api, "nextIncluded", after, 3, **weekly) == [
        "2030-12-26T07:30",
        "2030-12-30T07:30",
        "2030-12-31T07:30",
    ]
    assert await _preview(api, "previousIncluded", after, 3, **weekly) == [
        "2030-12-23T07:30",
        "2030-12-26T07:30",
        "2030-12-31T07:30",
    ]
    assert len(set(await _preview(api, "nextIncluded", after, 40))) == 40


async def test_a_job_names_a_calendar_that_must_exist(api: Api) -> None:
    """In POST, PUT, PATCH and imports; the fault names the field."""
    named = {**JOB, "calendar": {"name": "holidays"}}
    for method, path in (("POST", "/jobs"), ("PUT", "/jobs/a")):
        refused = await api.call(method, path, named)
        assert (refused.status_code, paths(refused)) == (422, ["calendar.name"])
    assert paths(await api.call("POST", "/schedules/preview", {"schedule": "@daily", "calendar": {"name": "x"}})) == [
        "calendar.name"
    ]
    await api.call("PUT", "/calendars/holidays", HOLIDAYS)
    made = await api.call("PUT", "/jobs/a", named)
    assert made.json["calendar"] == {"name": "holidays", "onExcluded": "skip"}
    assert paths(await api.call("PATCH", "/jobs/a", {"calendar": {"name": "none"}})) == ["calendar.name"]
    assert paths(await api.call("PATCH", "/jobs/a", {"calendar": {"onExcluded": "later"}})) == ["calendar.onExcluded"]
    moved = await api.call("PATCH", "/jobs/a", {"calendar": {"onExcluded": "nextIncluded"}})
    assert moved.json["calendar"] == {"name": "holidays", "onExcluded": "nextIncluded"}
    assert moved.json["revision"] == 2
    assert (await api.call("PUT", "/jobs/a", {**named, "calendar": moved.json["calendar"]})).json["revision"] == 2
    removed = await api.call("PATCH", "/jobs/a", {"calendar": None})
    assert removed.json["calendar"] is None
    line = b'{"jobId":"b","schedule":"@daily","api":"http://127.0.0.1:1/x","calendar":{"name":"%b"}}\n'
    result = await api.call(
        "POST", "/jobs/import", line % b"holidays" + line % b"none", Content_Type="application/x-ndjson"
    )
    assert (result.json["created"], result.json["failed"]) == (1, 1), result.text
    assert result.json["errors"][0]["errors"][0]["path"] == "calendar.name"


async def test_a_calendar_in_use_is_not_deleted(api: Api) -> None:
    """The answer names the first ten jobs."""
    await api.call("PUT", "/calendars/holidays", HOLIDAYS)
    for n in range(12):
        await api.call("PUT", f"/jobs/j{n:02}", {**JOB, "calendar": {"name": "holidays"}})
    refused = await api.call("DELETE", "/calendars/holidays")
    assert refused.status_code == 409
    assert "j00" in refused.json["detail"]
    assert "j09" in refused.json["detail"]
    assert "j10" not in refused.json["detail"]
    for n in range(12):
        await api.call("DELETE", f"/jobs/j{n:02}")
    assert (await api.call("DELETE", "/calendars/holidays")).status_code == 204


async def test_jobs_follow_a_change_of_their_calendar(api: Api) -> None:
    """The answer counts those that have to; then each has a new revision and other next runs. A paused one stays so."""
    await api.call("PUT", "/calendars/holidays", {"weekdays": ["SAT"]})
    for name in ("a", "b"):
        await api.call(
            "PUT", f"/jobs/{name}", {**JOB, "schedule": "0 0 9 * * SAT,SUN", "calendar": {"name": "holidays"}}
        )
    await api.call("POST", "/jobs/b/pause")
    before = (await api.call("GET", "/jobs/a")).json
    changed = await api.call("PUT", "/calendars/holidays", {"weekdays": ["SUN"]})
    assert (changed.json["jobs"], changed.json["following"]) == (2, 2)
    follower = CalendarFollower(api.db, api.clock)
    assert (await follower.step()).jobs == 2
    assert not (await follower.step()).more
    assert (await api.call("GET", "/calendars/holidays")).json["following"] == 0
    after = (await api.call("GET", "/jobs/a")).json
    assert after["revision"] == before["revision"] + 1
    assert not set(after["nextRuns"]) & set(before["nextRuns"])
    assert (await api.call("GET", "/jobs/b")).json["state"] == "paused"
    same = await api.call("PUT", "/calendars/holidays", {"weekdays": ["SUN"]})
    assert same.json["following"] == 0


async def test_a_calendar_that_excludes_everything_is_said_to(api: Api) -> None:
    """In the calendar and in the preview; a job with it has no next run, and explain says why."""
    everything = await api.call(
        "PUT", "/calendars/holidays", {"weekdays": ["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"]}
    )
    assert "do not run" in everything.json["remarks"][0]
    body = {"schedule": "@hourly", "calendar": {"name": "holidays", "onExcluded": "nextIncluded"}}
    preview = await api.call("POST", "/schedules/preview", body)
    assert preview.json["next"] == []
    assert "excludes every occurrence" in preview.json["warnings"][0]
    made = await api.call("PUT", "/jobs/a", {**JOB, "calendar": {"name": "holidays"}})
    assert (made.status_code, made.json["nextRuns"]) == (201, [])
    once = await api.call(
        "PUT", "/jobs/b", {"schedule": "@at 2031-01-01T00:00:00Z", "api": TARGET, "calendar": {"name": "holidays"}}
    )
    assert paths(once) == ["calendar"]


async def test_explain_names_the_calendar(api: Api) -> None:
    """Of an occurrence that is left out, and of one that was moved."""
    await api.call("PUT", "/calendars/holidays", HOLIDAYS)
    await api.call("PUT", "/jobs/a", {**JOB, "calendar": {"name": "holidays", "onExcluded": "nextIncluded"}})
    why = (await api.call("GET", "/jobs/a/explain?at=2030-12-24T08:00:00Z")).json
    assert "its calendar 'holidays' excludes 2030-12-24" in why["explanations"][0]["summary"]
    await api.call("PATCH", "/jobs/a", {"schedule": "0 0 9 24 12 *"})
    moved = (await api.call("GET", "/jobs/a/explain?at=2030-12-26T08:00:00Z")).json
    assert "moved here from a day that the calendar 'holidays' excludes" in str(moved)


async def test_jobs_with_a_calendar_are_found_by_their_schedule(api: Api) -> None:
    """As all others."""
    await api.call("PUT", "/calendars/holidays", HOLIDAYS)
    await api.call("PUT", "/jobs/a", {**JOB, "calendar": {"name": "holidays"}})
    await api.call("PUT", "/jobs/b", JOB)
    found = await api.call("GET", "/jobs?schedule=0%200%209%20*%20*%20*&sort=nextRunAt")
    assert sorted(j["jobId"] for j in found.json["items"]) == ["a", "b"]


@pytest.mark.parametrize("more", ["", "&sort=nextRunAt", "&q=a&sort=name", "&nextRunBefore=2040-01-01T00:00:00Z"])
async def test_jobs_are_found_and_acted_on_by_their_calendar(api: Api, more: str) -> None:
    """In every order; an action narrowed to a calendar leaves other jobs alone."""
    await api.call("PUT", "/calendars/holidays", HOLIDAYS)
    await api.call("PUT", "/jobs/a", {**JOB, "calendar": {"name": "holidays"}})
    await api.call("PUT", "/jobs/b", JOB)
    found = await api.call("GET", f"/jobs?calendar=holidays{more}")
    assert [j["jobId"] for j in found.json["items"]] == ["a"]
    assert (await api.call("GET", f"/jobs?calendar=others{more}")).json["items"] == []
    asked = {"action": "pause", "filter": {"calendar": "holidays"}, "dryRun": True}
    counted = (await api.call("POST", "/jobs/actions", asked)).json
    assert (counted["matched"], [j["jobId"] for j in counted["sample"]]) == (1, ["a"])


ICAL = b"""BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//test//EN
X-WR-TIMEZONE:Europe/Berlin
BEGIN:VEVENT
UID:1
SUMMARY:Company days
DTSTART;VALUE=DATE:20301227
DTEND;VALUE=DATE:20301230
END:VEVENT
BEGIN:VEVENT
UID:2
SUMMARY:Christmas
DTSTART;VALUE=DATE:20201225
RRULE:FREQ=YEARLY
END:VEVENT
BEGIN:VEVENT
UID:3
DTSTART;VALUE=DATE:20301224
END:VEVENT
BEGIN:VEVENT
UID:4
DTSTART;VALUE=DATE:20201205
RRULE:FREQ=WEEKLY;BYDAY=SA
END:VEVENT
BEGIN:VEVENT
UID:5
SUMMARY:Lunch
DTSTART:20301224T120000Z
END:VEVENT
BEGIN:VEVENT
UID:6
SUMMARY:Off
STATUS:CANCELLED
DTSTART;VALUE=DATE:20301231
END:VEVENT
END:VCALENDAR
""".replace(b"\n", b"\r\n")


async def test_an_icalendar_file_is_read_with_remarks(api: Api) -> None:
    """Whole days, yearly and weekly rules as such; what has a time of day or is cancelled is named."""
    made = await api.call("PUT", "/calendars/holidays", ICAL, Content_Type="text/calendar; charset=utf-8")
    assert made.status_code == 201, made.text
    assert {name: made.json[name] for name in HOLIDAYS} == HOLIDAYS
    assert ["Lunch" in r or "Off" in r for r in made.json["remarks"]] == [True, True]
    broken = await api.call("PUT", "/calendars/x", b"BEGIN:VEVENT", Content_Type="text/calendar")
    assert broken.status_code == 422
    empty = await api.call("PUT", "/calendars/x", b"BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n", Content_Type="text/calendar")
    assert (empty.status_code, (await api.call("GET", "/calendars/x")).status_code) == (422, 404)
    assert (await api.call("PUT", "/calendars/x", b"a", Content_Type="text/plain")).status_code == 415


async def test_calendars_and_windows_wait_for_the_migration(api: Api) -> None:
    """Until then nodes may run that would send on excluded days, or in spite of a window."""
    await api.db.api["meta"].update_one({"_id": "schema"}, {"$set": {"version": 3}})
    once = {"mode": "hold", "tags": ["x"], "from": "2030-01-01T00:00:00Z", "until": "2030-01-01T01:00:00Z"}
    for path, body in (("/calendars/holidays", HOLIDAYS), ("/windows/works", once)):
        refused = await api.call("PUT", path, body)
        assert (refused.status_code, "horae db migrate" in refused.json["detail"]) == (409, True)
        assert (await api.call("GET", path)).status_code == 404


async def test_the_load_forecast_leaves_excluded_days_out(api: Api) -> None:
    """`horae herd` counts by the keys of schedules, which have the days."""
    tomorrow = api.clock.now_ms() + 86_400_000
    date = format_instant(tomorrow)[:10]
    await api.call("PUT", "/calendars/holidays", {"dates": [date]})
    await api.call("PUT", "/jobs/a", {"schedule": "0 0 12 * * *", "api": TARGET, "calendar": {"name": "holidays"}})
    (group,) = [JobGroup(d["schedule_key"], 0, 1) async for d in api.db.api["jobs"].find()]
    start = parse_instant(f"{date}T00:00:00Z")
    assert sum(forecast([group], start, 86_400, lambda: True).per_second) == 0
    assert sum(forecast([group], start, 2 * 86_400, lambda: True).per_second) == 1
