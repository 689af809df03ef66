"""`/alerts`: what is wrong with which job. `/channels`: who is told."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from api.http import cursors
from api.http.requests import Query, read_object
from api.http.responses import send
from api.resources.jobs import Base
from api.resources.jobs import named as job_named
from cluster.core.alerts import ALERT_PREFIX, Incident
from cluster.core.documents.alerts import AlertSpec, ChannelSpec, check_channel
from cluster.core.documents.job_json import faults
from cluster.core.documents.secret_fields import NOTHING_KEPT
from cluster.core.documents.secret_marks import MARK, Given, Keep
from cluster.core.errors import Conflict, Fault, InvalidInput, NotFound
from cluster.core.instants import render
from cluster.store import alert_jobs, channels, incidents
from cluster.store.channels import Channel as Stored
from cluster.usecases.jobs import check_channels

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

PAGE, PAGE_MOST = 50, 500
STATES = {"open": True, "closed": False}


def _shown_incident(i: Incident) -> dict[str, Any]:
    return {
        "jobId": i.job_id,
        "kind": i.kind.value,
        "state": "open" if i.open else "closed",
        "detail": i.detail,
        "executionId": i.execution,
        "openedAt": render(i.opened_ms),
        "lastSeenAt": render(i.bad_ms),
        "closedAt": None if i.closed_ms is None else render(i.closed_ms),
    }


class Alerts(Base):
    """`/alerts`."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """What is wrong now (or was), the latest first."""
        q = Query(req, ("state", "jobId", "limit", "cursor"))
        states, job_id = q.choices("state", tuple(STATES)), q.text("jobId", 64)
        limit, cursor = q.number("limit", PAGE, PAGE_MOST), q.text("cursor", 400)
        q.done()
        if job_id is not None:
            job_named(job_id)
        at = None if cursor is None else cursors.decode(cursor, (int, str))
        wanted = [STATES[s] for s in sorted(states or {"open"})]
        found = await incidents.page(self.db, wanted, limit + 1, job_id, None if at is None else (at[0], at[1]))
        page = found[:limit]
        following = cursors.encode(page[-1].opened_ms, page[-1].id) if len(found) > limit else None
        send(resp, {"items": [_shown_incident(i) for i in page], "nextCursor": following})


class DefaultRules(Base):
    """`/alerts/default`: the rules of all jobs that have none of their own."""

    async def on_get(self, _req: Request, resp: Response) -> None:
        """They, or null."""
        spec = await incidents.default_spec(self.db)
        send(resp, {"alerts": None if spec is None else spec.model_dump(by_alias=True)})

    async def on_put(self, req: Request, resp: Response) -> None:
        """Replace them; in force within a few seconds."""
        body = await read_object(req)
        try:
            spec = AlertSpec.model_validate(body)
        except ValidationError as exc:
            raise InvalidInput(faults(exc)) from exc
        if spec.no_run_for_seconds is not None:
            raise InvalidInput([Fault("noRunForSeconds", "belongs to a job: how often each one runs differs")])
        await check_channels(self.db, {"": spec.channels})
        await incidents.set_default(self.db, spec)
        send(resp, {"alerts": spec.model_dump(by_alias=True)})

    async def on_delete(self, _req: Request, resp: Response) -> None:
        """No rules but those of each job."""
        await incidents.set_default(self.db, None)
        resp.status = 204


def named(name: str) -> str:
    """A channel's name from outside. Raises `InvalidInput`."""
    try:
        return check_channel(name)
    except PydanticCustomError as exc:
        raise InvalidInput([Fault("name", exc.message())]) from exc


def _shown(c: Stored) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": c.name, "type": c.kind}
    if c.kind == "email":
        shown["to"] = list(c.to)
    else:
        shown["url"] = MARK if c.kind == "slack" else c.url
    if c.kind == "webhook":
        shown["signingSecret"] = MARK if c.signing_secret is not None else None
    return {**shown, "updatedAt": render(c.updated_ms)}


class Channels(Base):
    """`/channels`."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """Every channel, by name."""
        Query(req, ()).done()
        send(resp, {"items": [_shown(c) for c in await channels.listing(self.db)]})


class Channel(Base):
    """`/channels/{name}`."""

    async def on_get(self, _req: Request, resp: Response, name: str) -> None:
        """One channel."""
        send(resp, _shown(await found(self, name)))

    async def on_put(self, req: Request, resp: Response, name: str) -> None:
        """Make or replace it. A secret that is not mentioned is kept."""
        known = named(name)
        body = await read_object(req)
        before = await channels.one(self.db, known)
        if before is not None and before.kind == "slack" and body.get("url") == MARK and body.get("type") == "slack":
            body = {**body, "url": before.url}
        try:
            spec = ChannelSpec.model_validate(body, context=self.context)
        except ValidationError as exc:
            raise InvalidInput(faults(exc)) from exc
        channel = Stored(
            known,
            spec.type,
            spec.url,
            tuple(spec.to or ()),
            _secret(spec, before) if spec.type == "webhook" else None,
            self.clock.now_ms(),
        )
        if await channels.put(self.db, channel):
            resp.set_header("Location", f"/channels/{known}")
            send(resp, _shown(channel), 201)
        else:
            send(resp, _shown(channel))

    async def on_delete(self, _req: Request, resp: Response, name: str) -> None:
        """Remove it. Refused while a job's rules, or the default ones, name it."""
        channel = await found(self, name)
        default = await incidents.default_rules(self.db)
        user = await channels.used_by(self.db, channel.name)
        if default is not None and channel.name in default.channels:
            raise Conflict("the default rules name it: change them first (PUT /alerts/default)")
        if user is not None:
            raise Conflict(f"the alerts of job '{user}' name it, and maybe those of others: change them first")
        await channels.delete(self.db, channel.name)
        resp.status = 204


class ChannelTest(Base):
    """`/channels/{name}/test`."""

    async def on_post(self, _req: Request, resp: Response, name: str) -> None:
        """Send it an alert that says it is a test: 202 and the execution, which tells what came of it."""
        channel = await found(self, name)
        now = self.clock.now_ms()
        text = f"Test: this is how alerts of Horae arrive at the channel {channel.name}"
        at = render(now)
        said = {"type": "test", "jobId": None, "executionId": None, "since": at, "at": at, "text": text}
        job_id = ALERT_PREFIX + hashlib.sha256(f"test:{channel.name}:{now}".encode()).hexdigest()[:24]
        await alert_jobs.insert(self.db, job_id, channel, said, now)
        send(resp, {"executionId": alert_jobs.execution_of(job_id, now)}, 202)


async def found(base: Base, name: str) -> Stored:
    """The channel. Raises `NotFound`."""
    channel = await channels.one(base.db, name)
    if channel is None:
        raise NotFound(f"there is no channel '{name[:64]}'")
    return channel


def _secret(spec: ChannelSpec, before: Stored | None) -> str | None:
    old = None if before is None else before.signing_secret
    given = spec.signing_secret
    if isinstance(given, Given):
        return given.value
    if isinstance(given, Keep):
        if old is None:
            raise InvalidInput([Fault("signingSecret", NOTHING_KEPT)])
        return old
    return None if "signing_secret" in spec.model_fields_set else old
