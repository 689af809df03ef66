"""`/executions/retry`: replay many failed, dead or cancelled executions."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

from api.http.requests import QueryParameters, read_object
from api.http.responses import send_json
from api.resources.jobs import Resource
from cluster.core.documents.base import Model
from cluster.core.documents.job import Instant
from cluster.core.documents.job_json import faults_of
from cluster.core.documents.request_fields import Tag
from cluster.core.errors import Conflict, InvalidInput, NotFound
from cluster.core.instants import format_instant, format_optional_instant
from cluster.core.lifecycle import REPLAYABLE
from cluster.store import replayable, replays
from cluster.store.replays import Replay, ReplayFilter

if TYPE_CHECKING:
    from falcon.asgi import Request, Response


LISTED = 50


class RetryFilter(Model):
    """Which executions: all given conditions must match."""

    job_id: str | None = Field(default=None, pattern="^[A-Za-z0-9_-]{1,64}$", description="Executions of this job.")
    tag: Tag | None = Field(default=None, description="Executions of jobs with this tag.")
    host: str | None = Field(
        default=None,
        min_length=1,
        max_length=300,
        description="Executions whose target has this host; a port may follow.",
    )
    state: Annotated[list[Literal["failed", "dead", "cancelled"]], Field(min_length=1, max_length=3)] = Field(
        default=["failed", "dead"], description="Executions in these states."
    )
    since: Instant | None = Field(default=None, description="Executions that ended at or after this time.")
    until: Instant | None = Field(default=None, description="Executions that ended before this time.")
    error: (
        Literal[
            "dns",
            "connect",
            "tls",
            "timeout",
            "stalled",
            "reset",
            "denied",
            "too_large",
            "protocol",
            "other",
            "not_sent",
        ]
        | None
    ) = Field(
        default=None,
        description="Executions whose last attempt ended with this kind of error; `not_sent`: that have no attempt.",
    )
    status: int | None = Field(
        default=None, ge=100, le=599, description="Executions whose last attempt got this HTTP status."
    )


class RetrySpecMany(Model):
    """Which executions to replay, and how fast."""

    filter: RetryFilter
    dry_run: bool = Field(default=False, description="Only count the matches; send nothing.")
    max_per_second: float = Field(
        default=50.0,
        ge=0.1,
        le=1000,
        allow_inf_nan=False,
        description="How many executions to send per second, at most; work that is due is sent first.",
    )


def _replay_json(r: Replay) -> dict[str, Any]:
    w = r.criteria
    return {
        "retryId": r.id,
        "state": "stopped" if r.stopped else "done" if r.done else "running",
        "matched": r.matched,
        "sent": r.sent,
        "maxPerSecond": r.per_second,
        "createdAt": format_instant(r.created_ms),
        "filter": {
            "jobId": w.job_id,
            "tag": w.tag,
            "host": w.host,
            "state": list(w.states),
            "since": format_optional_instant(w.since_ms),
            "until": format_optional_instant(w.until_ms),
            "error": w.error,
            "status": w.status,
        },
    }


class ReplayMany(Resource):
    """`/executions/retry`."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """The replays of the last seven days, latest first."""
        QueryParameters(req, ()).raise_faults()
        send_json(resp, {"items": [_replay_json(r) for r in await replays.latest(self.db, LISTED)]})

    async def on_post(self, req: Request, resp: Response) -> None:
        """Count the matches (`dryRun`: 200), or start the replay (202)."""
        body = await read_object(req)
        try:
            spec = RetrySpecMany.model_validate(body)
        except ValidationError as exc:
            raise InvalidInput(faults_of(exc)) from exc
        f = spec.filter
        states = tuple(s.value for s in REPLAYABLE if s.value in f.state)
        criteria = ReplayFilter(
            states=states,
            job_id=f.job_id,
            tag=f.tag,
            since_ms=f.since,
            until_ms=f.until,
            error=f.error,
            status=f.status,
            host=None if f.host is None else f.host.lower(),
        )
        now_ms = self.clock.now_ms()
        matched = await replayable.count(self.db, criteria, now_ms)
        if spec.dry_run:
            send_json(resp, {"dryRun": True, "matched": matched})
            return
        replay = Replay(uuid.uuid4().hex, criteria, spec.max_per_second, now_ms, matched)
        await replays.insert(self.db, replay)
        resp.set_header("Location", f"/executions/retry/{replay.id}")
        send_json(resp, _replay_json(replay), 202)


class ReplayStatus(Resource):
    """`/executions/retry/{retryId}`."""

    async def on_get(self, _req: Request, resp: Response, retry_id: str) -> None:
        """The progress of the replay."""
        send_json(resp, _replay_json(_require(await replays.get(self.db, retry_id), retry_id)))

    async def on_delete(self, _req: Request, resp: Response, retry_id: str) -> None:
        """Stop the replay: what was sent again stays so. 409 if it is done."""
        replay = _require(await replays.stop(self.db, retry_id, self.clock.now_ms()), retry_id)
        if not replay.stopped:
            raise Conflict("the replay is done: there is nothing left to stop")
        resp.status = 204


def _require(replay: Replay | None, retry_id: str) -> Replay:
    if replay is None:
        raise NotFound(f"there is no replay '{retry_id[:64]}', or it is older than a week")
    return replay
