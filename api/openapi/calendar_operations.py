"""Calendars and maintenance windows in `/openapi.json`. A test executes every example."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.openapi.operation_parts import Operation, request_body, responses, schema_ref
from api.openapi.schemas import Time, View
from cluster.core.documents.calendar_use import NAME_PATTERN

_ICALENDAR = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//example//holidays//EN
BEGIN:VEVENT
UID:1@example.com
SUMMARY:Christmas Eve
DTSTART;VALUE=DATE:20261224
END:VEVENT
END:VCALENDAR
"""


class CalendarView(View):
    """A calendar: days on which the jobs that name it do not run."""

    name: str
    timezone: str | None
    dates: list[str]
    yearly: list[str]
    ranges: list[dict[str, str]]
    weekdays: list[str]
    version: str = Field(description="Another one after each change of the days.")
    jobs: int = Field(description="How many jobs name it.")
    following: int = Field(description="How many of them have not followed its last change yet; 0: all have.")
    remarks: list[str] = Field(description="What was left out of an iCalendar file, and what the days leave to no job.")
    updated_at: Time


class CalendarList(View):
    """All calendars, by name."""

    items: list[CalendarView]


class WindowView(View):
    """A maintenance window."""

    name: str
    mode: Literal["hold", "skip", "mute"]
    tags: list[str]
    hosts: list[str]
    queues: list[str]
    timezone: str
    schedule: str | None
    duration_seconds: int | None
    from_: Time | None = Field(alias="from")
    until: Time | None
    spread_seconds: int
    in_force_until: Time | None = Field(description="null: it is not in force now.")
    updated_at: Time


class WindowList(View):
    """All maintenance windows, by name."""

    items: list[WindowView]


def calendar_operations() -> dict[str, Any]:
    """Every operation under `/calendars` and `/windows`, by path and method."""
    return {**_calendars(), **_windows()}


def _windows() -> dict[str, Any]:
    name_in_path = _name("billing-upgrade")
    one = responses({200: ("The window.", "WindowView")})
    put = responses({200: ("Replaced.", "WindowView"), 201: ("Created.", "WindowView")}, {201: ["Location"]})
    weekly = {"mode": "hold", "tags": ["billing"], "schedule": "0 0 2 * * SUN", "durationSeconds": 7200}
    once = {
        "mode": "skip",
        "hosts": ["api.example.com"],
        "from": "2030-01-01T00:00:00Z",
        "until": "2030-01-01T02:00:00Z",
    }
    examples = {"every Sunday": weekly, "once": once}
    return {
        "/windows": {
            "get": {
                "operationId": "listWindows",
                "summary": "List the maintenance windows",
                "responses": responses({200: ("The windows.", "WindowList")}),
            }
        },
        "/windows/{name}": {
            "put": {
                "operationId": "putWindow",
                "summary": "Create or replace a maintenance window; it is in force within two seconds",
                "parameters": [name_in_path],
                "requestBody": request_body(["application/json"], schema_ref("WindowSpec"), examples),
                "responses": put,
            },
            "get": {
                "operationId": "getWindow",
                "summary": "Get a maintenance window, and until when it is in force",
                "parameters": [name_in_path],
                "responses": one,
            },
            "delete": {
                "operationId": "deleteWindow",
                "summary": "Delete a maintenance window; what it holds goes on",
                "parameters": [name_in_path],
                "responses": responses({204: ("The window was deleted.", None)}),
            },
        },
    }


def _name(example: str) -> Operation:
    return {
        "name": "name",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": NAME_PATTERN},
        "example": example,
    }


def _calendars() -> dict[str, Any]:
    name_in_path = _name("holidays")
    one = responses({200: ("The calendar.", "CalendarView")})
    put = responses({200: ("Replaced.", "CalendarView"), 201: ("Created.", "CalendarView")}, {201: ["Location"]})
    days = {
        "timezone": "Europe/Berlin",
        "dates": ["2026-12-24"],
        "yearly": ["12-25"],
        "ranges": [{"from": "2027-08-01", "until": "2027-08-14"}],
        "weekdays": ["SAT", "SUN"],
    }
    body = request_body(["application/json"], schema_ref("CalendarSpec"), {"holidays": days})
    body["content"]["text/calendar"] = {"schema": {"type": "string"}, "examples": {"one day": {"value": _ICALENDAR}}}
    return {
        "/calendars": {
            "get": {
                "operationId": "listCalendars",
                "summary": "List the calendars: days on which jobs do not run",
                "responses": responses({200: ("The calendars.", "CalendarList")}),
            }
        },
        "/calendars/{name}": {
            "put": {
                "operationId": "putCalendar",
                "summary": "Create or replace a calendar; its jobs follow in the background",
                "description": "As JSON, or as an iCalendar file, of which the events of whole days count.",
                "parameters": [name_in_path],
                "requestBody": body,
                "responses": put,
            },
            "get": {
                "operationId": "getCalendar",
                "summary": "Get a calendar, and how many of its jobs have not followed its last change yet",
                "parameters": [name_in_path],
                "responses": one,
            },
            "delete": {
                "operationId": "deleteCalendar",
                "summary": "Delete a calendar that no job names",
                "parameters": [name_in_path],
                "responses": responses({204: ("The calendar was deleted.", None)}),
            },
        },
    }
