"""`POST /schedules/preview`: the next occurrences of a schedule and its description, without creating a job."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field, ValidationError

from api.http.requests import read_json
from api.http.responses import send_json
from api.resources.jobs import Resource
from cluster.core import instants
from cluster.core.documents.base import Model
from cluster.core.documents.calendar_use import CalendarUse
from cluster.core.documents.job import Instant, check_schedule, check_zone
from cluster.core.documents.job_json import faults_of
from cluster.core.errors import Fault, InvalidInput
from cluster.core.job.definition import JobCalendar as WantedCalendar
from cluster.core.job.wanted import unknown_calendar
from cluster.core.schedule.describe import describe, warnings
from cluster.core.schedule.schedule import MAX_SCHEDULE_LENGTH, parse_schedule
from cluster.store import calendars

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from cluster.core.schedule.schedule import Schedule


class PreviewSpec(Model):
    """The schedule to preview."""

    timezone: Annotated[str, AfterValidator(check_zone)] = Field(default="UTC", max_length=64)
    schedule: Annotated[str, AfterValidator(check_schedule)] = Field(max_length=MAX_SCHEDULE_LENGTH)
    count: int = Field(default=5, ge=1, le=100)
    after: Instant | None = None
    calendar: CalendarUse | None = None


OCCURRENCES_PER_TURN = 5
"""After this many the event loop runs other tasks: a rare date, such as a fifth Sunday in February, is searched for long."""


async def _occurrences(schedule: Schedule, start_ms: int, count: int) -> list[int]:
    """The first `count` occurrences at or after a time."""
    found: list[int] = []
    while len(found) < count:
        more = schedule.between(start_ms, instants.LATEST_MS, min(OCCURRENCES_PER_TURN, count - len(found)))
        if not more:
            break
        found += more
        start_ms = more[-1] + 1
        await asyncio.sleep(0)
    return found


class Preview(Resource):
    """`/schedules/preview`."""

    async def on_post(self, req: Request, resp: Response) -> None:
        """The next occurrences, with the UTC offset of the time zone."""
        try:
            spec = PreviewSpec.model_validate(await read_json(req))
        except ValidationError as exc:
            raise InvalidInput(faults_of(exc)) from exc
        after = self.clock.now_ms() if spec.after is None else spec.after
        regular = parse_schedule(spec.schedule, spec.timezone, after)
        schedule = (
            regular if spec.calendar is None else await self._with_calendar(regular, spec.timezone, spec.calendar)
        )
        occurrences = await _occurrences(schedule, after + 1, spec.count)
        if not occurrences and regular.next_after(after) is None:
            raise InvalidInput(
                [Fault("schedule", "has no occurrence after `after`; choose an earlier time or another schedule")]
            )
        send_json(
            resp,
            {
                "next": [instants.format_instant(t, spec.timezone) for t in occurrences],
                "description": describe(regular),
                "warnings": [
                    *_about_calendar(spec, occurrences, once=regular.kind == "at"),
                    *warnings(regular, occurrences, after),
                ],
            },
        )

    async def _with_calendar(self, schedule: Schedule, timezone: str, use: CalendarUse) -> Schedule:
        wanted = WantedCalendar(use.name, use.on_excluded)
        days = (await calendars.days_of(self.db, [use.name])).get(use.name)
        if days is None:
            raise InvalidInput([unknown_calendar(use.name)])
        return schedule.excluding(replace(wanted, days=days).exclusion(timezone))


def _about_calendar(spec: PreviewSpec, occurrences: list[int], *, once: bool) -> list[str]:
    if spec.calendar is None or len(occurrences) == spec.count or (once and occurrences):
        return []
    some = "every occurrence that could be found" if not occurrences else "all later occurrences that could be found"
    return [f"the calendar '{spec.calendar.name}' excludes {some}, years ahead"]
