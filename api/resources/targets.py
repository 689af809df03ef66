"""`/targets/test`: one request to a target as a job would send it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import falcon

from api.http.addresses import client_address, limit_name
from api.http.off_loop import off_loop
from api.http.rate_limit import TokenBuckets
from api.http.requests import body_size, read_job_object
from api.http.responses import send_json
from api.resources.jobs import Resource, checked_job_id
from cluster.core.documents.job_json import read_job
from cluster.usecases.target_test import send_test

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

    from api.http.context import Services

PER_SECOND, BURST = 0.5, 5
MOST_AT_ONCE = 4
NEVER_DUE = "@yearly"
"""A test needs no schedule."""


class TargetTest(Resource):
    """`/targets/test`. Bounded by key or address, and few at once, so that nobody floods a target from here."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._rates = TokenBuckets(PER_SECOND, BURST, self.clock.monotonic)
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)

    async def on_post(self, req: Request, resp: Response) -> None:
        """Send one request, marked `Horae-Test: true`. It is not a run: nothing is recorded."""
        sender = self.services.sender
        if sender is None:
            raise falcon.HTTPNotImplemented(description="this process sends no requests: ask a node")
        body = await read_job_object(req)
        job_id = checked_job_id(body.pop("jobId")) if "jobId" in body else None
        if body.get("after") is None:
            body.setdefault("schedule", NEVER_DUE)
        wanted = await off_loop(body_size(req), read_job, body, self.validation_context)
        caller = getattr(req.context, "key_name", None) or limit_name(
            client_address(req, self.services.settings.trusted_proxies)
        )
        wait = self._rates.take(caller)
        if wait > 0:
            raise falcon.HTTPTooManyRequests(
                description="a caller may test a target every two seconds: wait `Retry-After` seconds",
                retry_after=max(1, int(wait + 1)),
            )
        async with self._slots:
            answer = await send_test(self.db, sender, job_id, wanted, self.clock.now_ms())
        reply = answer.reply
        send_json(
            resp,
            {
                "executionId": answer.execution_id,
                "verdict": answer.verdict.value,
                "status": reply.status,
                "durationMs": round(reply.duration_ms, 1),
                "error": reply.error,
                "detail": reply.detail,
                "responseExcerpt": reply.excerpt,
            },
        )
