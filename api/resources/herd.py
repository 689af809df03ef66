"""`/herd` and `/schedules/crowd`: how many requests are due at the same time, and how crowded a schedule would be."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from api.http.requests import QueryParameters, read_json
from api.http.responses import send_json
from api.resources.jobs import Resource
from cluster.core.documents.base import Model
from cluster.core.documents.job import Instant, check_schedule, check_zone
from cluster.core.documents.job_json import faults_of
from cluster.core.errors import Fault, InvalidInput
from cluster.core.instants import format_instant
from cluster.core.schedule.schedule import MAX_SCHEDULE_LENGTH, parse_schedule
from cluster.usecases import herd

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from api.http.context import Services

HOUR_S = 3600
WORST = 10
SPREADS = (10, 60, 300)
AHEAD_MS = 366 * 86_400_000


class CrowdSpec(Model):
    """The schedule whose seconds are looked at."""

    timezone: Annotated[str, AfterValidator(check_zone)] = Field(default="UTC", max_length=64)
    schedule: Annotated[str, AfterValidator(check_schedule)] = Field(max_length=MAX_SCHEDULE_LENGTH)
    count: int = Field(default=3, ge=1, le=10, description="How many of its next occurrences.")
    after: Instant | None = Field(default=None, description="The occurrences after this time; now if absent.")


class Herd(Resource):
    """`/herd`. One is computed at a time, so that requests do not take a node's time from the engine."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._computing = asyncio.Lock()

    async def on_get(self, req: Request, resp: Response) -> None:
        """How many requests are due per second and minute, for up to an hour."""
        q = QueryParameters(req, ("from", "seconds"))
        first, seconds = q.instant("from"), q.number("seconds", HOUR_S, HOUR_S)
        now_ms = self.clock.now_ms()
        if first is not None and not now_ms - AHEAD_MS <= first <= now_ms + AHEAD_MS:
            q.faults.append(Fault("from", "must be within a year of now"))
        q.raise_faults()
        start = now_ms + 1000 if first is None else first
        async with self._computing:
            load = await herd.herd(self.db, start - start % 1000, seconds)
        send_json(
            resp,
            {
                "from": format_instant(load.from_ms),
                "seconds": seconds,
                "sends": round(sum(load.per_second), 1),
                "perSecond": load.per_second,
                "perMinute": [round(n, 1) for n in load.buckets(60)],
                "worst": [{"at": format_instant(at), "sends": n} for at, n in load.busiest(WORST)],
                "worstSecondIfSpread": {str(s): round(load.busiest_if_spread(s), 1) for s in SPREADS},
                "jobsLeftOut": load.jobs_not_counted,
            },
        )


class Crowd(Resource):
    """`/schedules/crowd`."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._computing = asyncio.Lock()

    async def on_post(self, req: Request, resp: Response) -> None:
        """What else is due in the seconds of a schedule, and what a spread would make of it."""
        try:
            spec = CrowdSpec.model_validate(await read_json(req))
        except ValidationError as exc:
            raise InvalidInput(faults_of(exc)) from exc
        after = self.clock.now_ms() if spec.after is None else spec.after
        schedule = parse_schedule(spec.schedule, spec.timezone, after)
        occurrences: list[int] = []
        at = schedule.next_after(after)
        while at is not None and len(occurrences) < spec.count:
            occurrences.append(at)
            at = schedule.next_after(at)
            await asyncio.sleep(0)
        if not occurrences:
            raise InvalidInput([Fault("schedule", "has no occurrence after `after`; choose an earlier time")])
        async with self._computing:
            found, left_out = await herd.crowd(self.db, occurrences, SPREADS)
        send_json(resp, {"occurrences": [_crowded_json(c) for c in found], "jobsLeftOut": left_out})


def _crowded_json(c: herd.CrowdedSecond) -> dict[str, Any]:
    return {
        "at": format_instant(c.at_ms),
        "others": c.others,
        "ifSpread": [
            {"spreadSeconds": s, "worstSecond": worst, "meanSecond": round(c.mean_if_spread[s], 3)}
            for s, worst in c.worst_if_spread.items()
        ],
    }
