"""`/calendars`: days on which the jobs that name one do not run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from api.http.off_loop import off_loop
from api.http.requests import JSON_TYPES, QueryParameters, check_content_type, read_body
from api.http.responses import send_json
from api.resources.jobs import Resource
from cluster.core.documents import strict_json
from cluster.core.documents.calendar import check_calendar_name, read_calendar, remarks
from cluster.core.documents.ical import read_ical
from cluster.core.errors import Conflict, NotFound
from cluster.core.instants import format_instant
from cluster.store import calendars, job_calendars
from cluster.store.calendars import Calendar as Stored
from cluster.store.mongo import schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from falcon.asgi import Request, Response

    from cluster.core.documents.calendar import CalendarSpec

ICALENDAR = "text/calendar"
LIMIT = 1024 * 1024
JOBS_NAMED = 10


class Calendars(Resource):
    """`/calendars`."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """All calendars, by name."""
        QueryParameters(req, ()).raise_faults()
        found = await calendars.list_all(self.db)
        send_json(resp, {"items": [await calendar_json(self, c) for c in found]})


class Calendar(Resource):
    """`/calendars/{name}`."""

    async def on_get(self, _req: Request, resp: Response, name: str) -> None:
        """One calendar, and how many of its jobs have not followed its last change yet."""
        send_json(resp, await calendar_json(self, await self._found(name)))

    async def on_put(self, req: Request, resp: Response, name: str) -> None:
        """Create or replace the calendar. The answer says that this is stored; jobs follow in the background."""
        checked = check_calendar_name(name)
        now_ms = self.clock.now_ms()
        spec, about_file = await self._read(req, now_ms)
        await require_migrated(self)
        calendar = Stored(checked, spec.to_json(), spec.to_days(), now_ms)
        created = await calendars.put(self.db, calendar)
        if created:
            resp.set_header("Location", f"/calendars/{checked}")
        send_json(resp, await calendar_json(self, calendar, about_file), 201 if created else 200)

    async def on_delete(self, _req: Request, resp: Response, name: str) -> None:
        """Delete a calendar that no job names."""
        calendar = await self._found(name)
        using = await job_calendars.using(self.db, calendar.name, JOBS_NAMED + 1)
        if using:
            more = " and others" if len(using) > JOBS_NAMED else ""
            named = ", ".join(using[:JOBS_NAMED])
            raise Conflict(f"jobs name this calendar: {named}{more}; change or delete them first")
        await calendars.delete(self.db, calendar.name)
        resp.status = 204

    async def _found(self, name: str) -> Stored:
        calendar = await calendars.get(self.db, name)
        if calendar is None:
            raise NotFound(f"there is no calendar '{name[:64]}'")
        return calendar

    async def _read(self, req: Request, now_ms: int) -> tuple[CalendarSpec, list[str]]:
        check_content_type(req, (*JSON_TYPES, ICALENDAR))
        raw = await read_body(req, LIMIT)
        if (req.content_type or "").split(";")[0].strip().lower() == ICALENDAR:
            today = datetime.fromtimestamp(now_ms / 1000, UTC).date()
            return await off_loop(len(raw) * 100, read_ical, raw, today)
        return await off_loop(len(raw), _from_json, raw), []


def _from_json(raw: bytes) -> CalendarSpec:
    return read_calendar(strict_json.loads(raw))


async def require_migrated(base: Resource) -> None:
    """Raises `Conflict` while nodes may run that know neither calendars nor windows."""
    version = await schema.version_of(base.db)
    if (version or 0) < schema.CALENDARS_VERSION:
        raise Conflict(
            "the database has the schema of the release before: run `horae db migrate` when all nodes are replaced"
        )


async def calendar_json(base: Resource, c: Stored, about_file: Sequence[str] = ()) -> dict[str, Any]:
    """A calendar as it is shown. `about_file`: remarks about the file that it was read from."""
    jobs, following = await job_calendars.counts(base.db, c.name, c.version)
    return {
        "name": c.name,
        **c.document,
        "version": c.version,
        "jobs": jobs,
        "following": following,
        "remarks": [*about_file, *remarks(c.days, base.clock.now_ms())],
        "updatedAt": format_instant(c.updated_ms),
    }
