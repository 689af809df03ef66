"""`/alerts`: incidents and default alert rules. `/channels`: the destinations of alerts."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from api.http import cursors
from api.http.requests import QueryParameters, read_object
from api.http.responses import send_json
from api.resources.jobs import Resource, checked_job_id
from cluster.core.alerts import ALERT_PREFIX, Incident
from cluster.core.documents.alerts import AlertSpec, ChannelSpec, check_channel
from cluster.core.documents.job_json import faults_of
from cluster.core.documents.secret_marks import SECRET_PLACEHOLDER
from cluster.core.errors import Conflict, Fault, InvalidInput, NotFound
from cluster.core.instants import format_instant
from cluster.core.job.wanted import KEEP_IF_STORED, NO_STORED_SECRET, resolve_secret
from cluster.store import alert_jobs, channels, incidents, jobs, meta
from cluster.store.channels import Channel as Stored
from cluster.usecases.jobs import require_channels

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

DEFAULT_PAGE, MAX_PAGE = 50, 500
STATES = {"open": True, "closed": False}


def _incident_json(i: Incident) -> dict[str, Any]:
    return {
        "jobId": i.job_id,
        "kind": i.kind.value,
        "state": "open" if i.open else "closed",
        "detail": i.detail,
        "executionId": i.execution,
        "openedAt": format_instant(i.opened_ms),
        "lastSeenAt": format_instant(i.last_symptom_ms),
        "closedAt": None if i.closed_ms is None else format_instant(i.closed_ms),
    }


class Alerts(Resource):
    """`/alerts`."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """Incidents, open or closed, latest first."""
        q = QueryParameters(req, ("state", "jobId", "limit", "cursor"))
        states, job_id = q.choices("state", tuple(STATES)), q.text("jobId", 64)
        limit, cursor = q.number("limit", DEFAULT_PAGE, MAX_PAGE), q.text("cursor", 400)
        q.raise_faults()
        if job_id is not None:
            checked_job_id(job_id)
        position = None if cursor is None else cursors.decode(cursor, (int, str))
        wanted_states = [STATES[s] for s in sorted(states or {"open"})]
        listed = await incidents.page(
            self.db, wanted_states, limit + 1, job_id, None if position is None else (position[0], position[1])
        )
        page = listed[:limit]
        next_cursor = cursors.encode(page[-1].opened_ms, page[-1].id) if len(listed) > limit else None
        send_json(resp, {"items": [_incident_json(i) for i in page], "nextCursor": next_cursor})


class DefaultRules(Resource):
    """`/alerts/default`: the rules of all jobs that have none of their own."""

    async def on_get(self, _req: Request, resp: Response) -> None:
        """The default rules, or null."""
        spec = await meta.default_rules_spec(self.db)
        send_json(resp, {"alerts": None if spec is None else spec.model_dump(by_alias=True)})

    async def on_put(self, req: Request, resp: Response) -> None:
        """Replace the default rules. They take effect within a few seconds."""
        body = await read_object(req)
        try:
            spec = AlertSpec.model_validate(body)
        except ValidationError as exc:
            raise InvalidInput(faults_of(exc)) from exc
        if spec.no_run_for_seconds is not None:
            raise InvalidInput(
                [Fault("noRunForSeconds", "must be set in the alerts of a job: jobs run at different intervals")]
            )
        await require_channels(self.db, {"": spec.channels})
        await meta.set_default_rules(self.db, spec, self.clock.now_ms())
        send_json(resp, {"alerts": spec.model_dump(by_alias=True)})

    async def on_delete(self, _req: Request, resp: Response) -> None:
        """Delete the default rules."""
        await meta.set_default_rules(self.db, None, self.clock.now_ms())
        resp.status = 204


def checked_channel_name(name: str) -> str:
    """The name of a channel. Raises `InvalidInput` if it is not valid."""
    try:
        return check_channel(name)
    except PydanticCustomError as exc:
        raise InvalidInput([Fault("name", exc.message())]) from exc


def _channel_json(c: Stored) -> dict[str, Any]:
    rendered: dict[str, Any] = {"name": c.name, "type": c.kind}
    if c.kind == "email":
        rendered["to"] = list(c.to)
    else:
        rendered["url"] = SECRET_PLACEHOLDER if c.kind == "slack" else c.url
    if c.kind == "webhook":
        rendered["signingSecret"] = SECRET_PLACEHOLDER if c.signing_secret is not None else None
    return {**rendered, "updatedAt": format_instant(c.updated_ms)}


class Channels(Resource):
    """`/channels`."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """All channels, by name."""
        QueryParameters(req, ()).raise_faults()
        send_json(resp, {"items": [_channel_json(c) for c in await channels.list_all(self.db)]})


class Channel(Resource):
    """`/channels/{name}`."""

    async def on_get(self, _req: Request, resp: Response, name: str) -> None:
        """One channel."""
        send_json(resp, _channel_json(await channel_or_not_found(self, name)))

    async def on_put(self, req: Request, resp: Response, name: str) -> None:
        """Create or replace a channel. A secret that the body leaves out is kept."""
        checked_name = checked_channel_name(name)
        body = await read_object(req)
        before = await channels.get(self.db, checked_name)
        if body.get("url") == SECRET_PLACEHOLDER and body.get("type") == "slack":
            if before is None or before.kind != "slack":
                raise InvalidInput([Fault("url", NO_STORED_SECRET)])
            body = {**body, "url": before.url}
        try:
            spec = ChannelSpec.model_validate(body, context=self.validation_context)
        except ValidationError as exc:
            raise InvalidInput(faults_of(exc)) from exc
        channel = Stored(
            name=checked_name,
            kind=spec.type,
            url=spec.url,
            to=tuple(spec.to or ()),
            signing_secret=_secret(spec, before) if spec.type == "webhook" else None,
            updated_ms=self.clock.now_ms(),
        )
        if await channels.put(self.db, channel):
            resp.set_header("Location", f"/channels/{checked_name}")
            send_json(resp, _channel_json(channel), 201)
        else:
            send_json(resp, _channel_json(channel))

    async def on_delete(self, _req: Request, resp: Response, name: str) -> None:
        """Delete a channel. Refused while the rules of a job, or the default rules, name it."""
        channel = await channel_or_not_found(self, name)
        default = await meta.default_rules(self.db)
        user = await jobs.naming_channel(self.db, channel.name)
        if default is not None and channel.name in default.channels:
            raise Conflict("the default alert rules use this channel: change them first (PUT /alerts/default)")
        if user is not None:
            raise Conflict(
                f"the alerts or callbacks of job '{user}', and maybe of other jobs, use this channel: change them first"
            )
        await channels.delete(self.db, channel.name, self.clock.now_ms())
        resp.status = 204


class ChannelTest(Resource):
    """`/channels/{name}/test`."""

    async def on_post(self, _req: Request, resp: Response, name: str) -> None:
        """Send a test alert to the channel: 202 and the id of the execution, which shows the result."""
        channel = await channel_or_not_found(self, name)
        now = self.clock.now_ms()
        text = f"Test: this is a test alert of Horae for the channel {channel.name}"
        at = format_instant(now)
        notice = {"type": "test", "jobId": None, "executionId": None, "since": at, "at": at, "text": text}
        job_id = ALERT_PREFIX + hashlib.sha256(f"test:{channel.name}:{now}".encode()).hexdigest()[:24]
        await alert_jobs.insert(self.db, job_id, channel, notice, now)
        send_json(resp, {"executionId": alert_jobs.execution_id_of(job_id, now)}, 202)


async def channel_or_not_found(base: Resource, name: str) -> Stored:
    """The channel. Raises `NotFound`."""
    channel = await channels.get(base.db, name)
    if channel is None:
        raise NotFound(f"there is no channel '{name[:64]}'")
    return channel


def _secret(spec: ChannelSpec, before: Stored | None) -> str | None:
    wanted = spec.signing_secret if "signing_secret" in spec.model_fields_set else KEEP_IF_STORED
    missing: list[Fault] = []
    secret = resolve_secret(wanted, None if before is None else before.signing_secret, "signingSecret", missing)
    if missing:
        raise InvalidInput(missing)
    return secret
