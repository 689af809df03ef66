"""One request to a target as a job would send it, to see what it answers. It is not a run: nothing is recorded.

The request goes out through the sender of the node, so the same addresses are refused and the same headers are set. It
counts against no limit and no circuit breaker, because it says nothing about the job's executions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cluster.core.errors import Fault, InvalidInput
from cluster.core.execution.model import Execution
from cluster.core.execution.templates import fill_in
from cluster.core.execution.trace import traceparent
from cluster.core.execution.verdict import Verdict, verdict_of
from cluster.core.ids import execution_id
from cluster.core.job.changes import define
from cluster.core.job.wanted import KeepSecret
from cluster.outbound.headers import delivery_headers
from cluster.store import engine_jobs, jobs
from cluster.usecases.jobs import new_stamp, stored_secrets

if TYPE_CHECKING:
    from cluster.core.execution.model import Job
    from cluster.core.job.wanted import WantedJob
    from cluster.outbound.sender import Reply, Sender
    from cluster.store.mongo.client import Database

TEST_JOB_ID = "test"
MOST_SECONDS = 25.0
TEST_HEADER = ("Horae-Test", "true")


@dataclass(frozen=True, slots=True)
class TargetAnswer:
    """The reply, what a run of the job would make of it, and the id that the request carried."""

    execution_id: str
    reply: Reply
    verdict: Verdict


async def send_test(db: Database, sender: Sender, job_id: str | None, wanted: WantedJob, now_ms: int) -> TargetAnswer:
    """Send the request. Secrets that are kept come from the job of this id. Raises `InvalidInput`."""
    old = None if job_id is None else await jobs.get(db, job_id)
    stored = stored_secrets(old)
    definition = wanted.resolve(stored)
    if stored is not None and definition.host != stored.host and _keeps_secrets(wanted):
        fault = "is of another host than the job's: kept secrets go to the host of their job only; send them with the request"
        raise InvalidInput([Fault("api", fault)])
    change = define(None, job_id or TEST_JOB_ID, definition, new_stamp(now_ms))
    if change is None:  # pragma: no cover - without an old job there is a change
        raise AssertionError(job_id)
    job = engine_jobs.from_stored(change.job, db.keyring)
    return await _send(sender, job, now_ms)


def _keeps_secrets(wanted: WantedJob) -> bool:
    auth = () if wanted.auth is None else (wanted.auth.secret,)
    secrets = (*(s for _, s in wanted.secret_headers), *auth)
    return any(isinstance(s, KeepSecret) for s in secrets)


async def _send(sender: Sender, job: Job, now_ms: int) -> TargetAnswer:
    name = f"{execution_id(job.id, now_ms)}:test"  # no execution has such an id
    execution = Execution(
        id=name,
        job_id=job.id,
        due_ms=now_ms,
        send_ms=now_ms,
        schedule_version=job.schedule_version,
        batch="",
        lane=job.lane,
    )
    target = fill_in(job.target, execution, 1) if job.target.templated else job.target
    target = replace(target, timeout_seconds=min(MOST_SECONDS, target.timeout_seconds))
    parent = traceparent(name, 1, 1, None)
    headers = delivery_headers(execution, replace(job, target=target), 1, 1, parent, now_ms)
    reply = await sender.send(sender.prepare(target, [*headers, TEST_HEADER]))
    return TargetAnswer(name, reply, verdict_of(reply.status, reply.error, job.success_codes))
