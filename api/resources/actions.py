"""`/jobs/actions`: one change of many jobs, done in the background."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
from pydantic import BeforeValidator, Field, ValidationError, WithJsonSchema

from api.http import cursors
from api.http.idempotency import idempotency_key, run_once, send_stored
from api.http.off_loop import off_loop
from api.http.requests import QueryParameters, body_size, read_object_with_source
from api.http.responses import send_json
from api.resources.job_list import CURSOR_LENGTH, DEFAULT_PAGE, MAX_PAGE, VISIBLE_STATES, JobLister, schedule_keys
from api.resources.jobs import Resource
from cluster.core.documents import json_source, strict_json
from cluster.core.documents.base import Model
from cluster.core.documents.job import Instant
from cluster.core.documents.job_json import apply_patch, callback_channels_in_patch, channels_in_patch, faults_of
from cluster.core.documents.json_source import JsonText, keep_body
from cluster.core.documents.request_fields import Tag
from cluster.core.errors import Fault, InvalidInput
from cluster.core.instants import format_instant, format_optional_instant
from cluster.core.job.search import wanted_words
from cluster.core.schedule.schedule import InvalidSchedule
from cluster.store import actions as stored
from cluster.store.actions import MOST_FAILURES, Action
from cluster.store.idempotency import Reservation, StoredResponse
from cluster.store.queries.action_targets import filter_document
from cluster.store.queries.job_filter import JobFilter, JobListQuery
from cluster.usecases import actions
from cluster.usecases.jobs import require_callback_channels, require_channels, with_calendar

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from api.http.context import Services
    from cluster.core.job.definition import StoredJob

EMPTY_FILTER = 'is empty, which would be every job: say {"all": true} if you mean that'


def _words(value: Any) -> Any:
    """A word, or words separated by commas, as a list."""
    return [w.strip() for w in value.split(",")] if isinstance(value, str) else value


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _or_list(item: dict[str, Any], most: int) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [item, {"type": "array", "items": item, "minItems": 1, "maxItems": most}]})


_TAG = {"type": "string", "minLength": 1, "maxLength": 64}
_STATE = {"type": "string", "enum": list(VISIBLE_STATES)}
Tags = Annotated[list[Tag], Field(min_length=1, max_length=8), BeforeValidator(_one_or_many), _or_list(_TAG, 8)]
AnyTags = Annotated[list[Tag], Field(min_length=1, max_length=32), BeforeValidator(_one_or_many), _or_list(_TAG, 32)]
States = Annotated[
    list[Literal["active", "paused", "completed"]],
    Field(min_length=1, max_length=3),
    BeforeValidator(_words),
    _or_list(_STATE, 3),
]


class ActionFilter(Model):
    """Which jobs, by the words of `GET /jobs`: all given conditions must match."""

    all: Literal[True] | None = Field(default=None, description="Every job. Needed if there is no other condition.")
    tag: Tags | None = Field(default=None, description="Jobs with this tag, or with all of these.")
    any_tag: AnyTags | None = Field(default=None, description="Jobs with at least one of these tags.")
    state: States | None = Field(default=None, description="Jobs in one of these states.")
    q: str | None = Field(default=None, min_length=1, max_length=200, description="Jobs with all of these words.")
    host: str | None = Field(default=None, min_length=1, max_length=300, description="Jobs whose target has this host.")
    schedule: str | None = Field(default=None, min_length=1, max_length=256, description="Jobs with this schedule.")
    calendar: str | None = Field(default=None, min_length=1, max_length=64, description="Jobs that name this calendar.")
    failing: bool | None = Field(default=None, description="Jobs whose last execution failed, or all others.")
    next_run_before: Instant | None = Field(default=None, description="Jobs that are due next before this time.")


class ActionSpec(Model):
    """One change of many jobs."""

    action: Literal["pause", "resume", "trigger", "delete", "patch"]
    filter: ActionFilter
    patch: dict[str, Any] | None = Field(default=None, description="Of `patch`: a JSON merge patch of each job.")
    dry_run: bool = Field(default=False, description="Only count the jobs and show the first ten; change nothing.")
    max_per_second: float = Field(
        default=500.0, ge=1, le=5000, allow_inf_nan=False, description="How many jobs to change per second, at most."
    )


def action_json(a: Action, *, in_list: bool = False) -> dict[str, Any]:
    """An action with its progress."""
    content: dict[str, Any] = {
        "actionId": a.id,
        "action": a.kind,
        "state": a.state,
        "matched": a.matched,
        "done": a.done,
        "leftOut": a.left_out,
        "failed": a.failed,
        "filter": a.filter["asked"],
        **({"fields": list(a.fields)} if a.kind == "patch" else {}),
        "maxPerSecond": a.per_second,
        "createdAt": format_instant(a.created_ms),
        "endedAt": format_optional_instant(a.ended_ms),
    }
    if not in_list:
        content["failures"] = [{"jobId": job, "reason": reason} for job, reason in a.failures]
        content["failuresNotShown"] = max(0, a.failed - MOST_FAILURES)
    return content


class JobActions(Resource):
    """`/jobs/actions`."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._lister = JobLister(services)

    async def on_post(self, req: Request, resp: Response) -> None:
        """Count the jobs (`dryRun`: 200), or begin (202)."""
        raw, body = await read_object_with_source(req)
        spec = await off_loop(len(raw), _spec, body)
        now_ms = self.clock.now_ms()
        query = await self._query(spec.filter, now_ms)
        patch = b"" if spec.patch is None else await off_loop(len(raw), json_source.member, raw, "patch")
        if spec.patch is not None and query is not None:
            await self._check_patch(patch, await actions.sample(self.db, query), body_size(req))
        if spec.dry_run:
            idempotency_key(req)
            found = actions.Preview(0, ()) if query is None else await actions.preview(self.db, query)
            shown = [{"jobId": j.id, "name": j.definition.name, "state": j.state.value} for j in found.sample]
            send_json(resp, {"dryRun": True, "matched": found.matched, "sample": shown})
            return
        fresh_id = uuid.uuid4().hex

        async def work(reservation: Reservation | None) -> StoredResponse:
            action = Action(
                id=fresh_id if reservation is None else reservation.name,
                kind=spec.action,
                filter=filter_document(JobFilter(VISIBLE_STATES) if query is None else query.filter, body["filter"]),
                per_second=spec.max_per_second,
                created_ms=now_ms,
                matched=0,
                pages="",
                patch=patch.decode() or None,
                fields=tuple(sorted(spec.patch or {})),
            )
            begun = await actions.start(self.db, action, query)
            answer = {"actionId": begun.id, "matched": begun.matched}
            return StoredResponse(202, orjson.dumps(answer), (("Location", f"/jobs/actions/{begun.id}"),))

        # The text of the patch, because its numbers may have more digits than a number of the parsed one.
        asked = body if spec.patch is None else body | {"patch": JsonText(patch)}
        response, replayed = await run_once(self.services, req, asked, fresh_id, work)
        send_stored(resp, response, replayed=replayed)

    async def on_get(self, req: Request, resp: Response) -> None:
        """The actions, the latest first."""
        q = QueryParameters(req, ("limit", "cursor"))
        limit, cursor = q.number("limit", DEFAULT_PAGE, MAX_PAGE), q.text("cursor", CURSOR_LENGTH)
        q.raise_faults()
        before = None
        if cursor is not None:
            created_ms, action_id = cursors.decode(cursor, (int, str))
            before = (created_ms, action_id)
        found = await stored.newest(self.db, limit + 1, before)
        page = found[:limit]
        more = cursors.encode(page[-1].created_ms, page[-1].id) if len(found) > limit else None
        send_json(resp, {"items": [action_json(a, in_list=True) for a in page], "nextCursor": more})

    async def _query(self, f: ActionFilter, now_ms: int) -> JobListQuery | None:
        """The jobs that the filter names, as a list of jobs would. None: a search for punctuation, which no job matches."""
        try:
            schedule = None if f.schedule is None else schedule_keys(f.schedule)
        except InvalidSchedule as exc:
            raise InvalidInput([Fault("filter.schedule", exc.message)]) from exc
        words = None if f.q is None else wanted_words(f.q)
        if words == ():
            return None
        wanted = JobFilter(
            states=tuple(sorted(set(f.state or VISIBLE_STATES))),
            tags=tuple(dict.fromkeys(f.tag or ())),
            any_tags=tuple(dict.fromkeys(f.any_tag or ())),
            host=None if f.host is None else f.host.lower(),
            schedule=schedule,
            calendar=f.calendar,
            failing=f.failing,
            **(await self._lister.search(f.q or "", words or ())),
        )
        return JobListQuery(
            filter=wanted,
            limit=actions.SAMPLE,
            since_ms=now_ms,
            lookahead_ms=int(self.services.settings.lookahead_seconds * 1000),
            before_ms=f.next_run_before,
        )

    async def _check_patch(self, raw: bytes, sample: tuple[StoredJob, ...], size: int) -> None:
        """Raises `InvalidInput` for a patch that none of the first jobs takes. The others are told with the progress."""
        patch = await off_loop(len(raw), _patch_of, raw)
        await require_channels(self.db, {"patch.alerts": channels_in_patch(patch)})
        await require_callback_channels(self.db, callback_channels_in_patch(patch))
        first: InvalidInput | None = None
        for job in sample:
            try:
                wanted = await off_loop(
                    size + len(job.definition.body), apply_patch, job.definition, patch, self.validation_context
                )
                if "calendar" in patch:
                    wanted = await with_calendar(self.db, wanted)
                wanted.resolve(job.definition)
            except InvalidInput as exc:
                first = first or exc
            else:
                return
        if first is not None:
            raise InvalidInput([Fault(f"patch.{f.path}".rstrip("."), f.message) for f in first.faults])


def _patch_of(raw: bytes) -> dict[str, Any]:
    return keep_body(raw, strict_json.loads(raw))


def _spec(body: dict[str, Any]) -> ActionSpec:
    faults: list[Fault] = []
    try:
        spec = ActionSpec.model_validate(body)
    except ValidationError as exc:
        raise InvalidInput(faults_of(exc)) from exc
    asked = {n for n in spec.filter.model_fields_set if getattr(spec.filter, n) is not None}
    if not asked:
        faults.append(Fault("filter", EMPTY_FILTER))
    if "all" in asked and len(asked) > 1:
        faults.append(Fault("filter.all", "stands for every job: leave it out, or leave out the other conditions"))
    if spec.action == "patch" and not spec.patch:
        faults.append(Fault("patch", "must be an object with the fields to change"))
    if spec.patch is not None and "after" in spec.patch:
        faults.append(Fault("patch.after", "is changed job by job, because each change could close a cycle"))
    if spec.action != "patch" and spec.patch is not None:
        faults.append(Fault("patch", f"belongs to the action patch, not to {spec.action}: leave it out"))
    if faults:
        raise InvalidInput(faults)
    return spec


class JobAction(Resource):
    """`/jobs/actions/{actionId}`."""

    async def on_get(self, _req: Request, resp: Response, action_id: str) -> None:
        """The progress of the action."""
        send_json(resp, action_json(actions.require(await stored.get(self.db, action_id), action_id)))

    async def on_delete(self, _req: Request, resp: Response, action_id: str) -> None:
        """Stop the action: 204. What it has changed stays so."""
        await actions.stop(self.db, action_id, self.clock.now_ms())
        resp.status = 204
