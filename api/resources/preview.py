"""`POST /schedules/preview`: when a schedule would run, in words and instants, before any job has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field, ValidationError

from api.http.requests import read_json
from api.http.responses import send_json
from api.resources.jobs import Resource
from cluster.core import instants
from cluster.core.documents.base import Model
from cluster.core.documents.job import Instant, check_schedule, check_zone
from cluster.core.documents.job_json import faults_of
from cluster.core.errors import Fault, InvalidInput
from cluster.core.schedule.describe import describe, warnings
from cluster.core.schedule.schedule import MAX_SCHEDULE_LENGTH, parse_schedule

if TYPE_CHECKING:
    from falcon.asgi import Request, Response


class PreviewSpec(Model):
    """A question."""

    timezone: Annotated[str, AfterValidator(check_zone)] = Field(default="UTC", max_length=64)
    schedule: Annotated[str, AfterValidator(check_schedule)] = Field(max_length=MAX_SCHEDULE_LENGTH)
    count: int = Field(default=5, ge=1, le=100)
    after: Instant | None = None


class Preview(Resource):
    """`/schedules/preview`."""

    async def on_post(self, req: Request, resp: Response) -> None:
        """The next occurrences, with the zone's offset."""
        try:
            asked = PreviewSpec.model_validate(await read_json(req))
        except ValidationError as exc:
            raise InvalidInput(faults_of(exc)) from exc
        after = self.clock.now_ms() if asked.after is None else asked.after
        schedule = parse_schedule(asked.schedule, asked.timezone, after)
        found = schedule.between(after + 1, instants.LATEST_MS, asked.count)
        if not found:
            raise InvalidInput([Fault("schedule", "never fires after that time")])
        send_json(
            resp,
            {
                "next": [instants.format_instant(t, asked.timezone) for t in found],
                "description": describe(schedule),
                "warnings": warnings(schedule, found, after),
            },
        )
