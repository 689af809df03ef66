"""Requests that are made long before the send time, for executions that share their second with thousands of others.

A node that holds more than it prepares at once has time left before they are due, and none from then on. A request that was
made early is no promise: it is sent only if its job, read again as for every other execution, is the one it was made for.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import structlog

from cluster.store import engine_jobs

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cluster.core.execution.model import Execution, Job
    from cluster.store.mongo.client import Database
    from cluster.worker.held_batch import HeldBatch

log = structlog.get_logger()

MADE_AT_ONCE = 16
"""Between so many of them, other tasks of the node run."""


class _Made(NamedTuple):
    job: Job
    request: Any


class EarlyRequests:
    """The early requests of one node, by batch. They go with their batch, whatever becomes of it."""

    def __init__(self, db: Database, make: Callable[[HeldBatch, Execution, Job], Any]) -> None:
        """`make`: the request of an execution for this job. It may raise anything."""
        self._db = db
        self._make = make
        self._made: WeakKeyDictionary[HeldBatch, dict[str, _Made]] = WeakKeyDictionary()

    async def prepare(self, held: HeldBatch) -> None:
        """Make the requests of a batch for its jobs as this process knows them. Those that it does not know are read.

        What cannot be made early is made in time. That is so of messages, which carry their requests, of signed requests,
        which name the time, and of jobs that are too large to be remembered.
        """
        jobs = self._db.decoded_jobs
        unknown = {e.job_id for e in held.waiting.values() if e.message is None and e.job_id not in jobs}
        if unknown:
            try:
                await engine_jobs.by_id(self._db, unknown)
            except Exception as exc:  # nothing depends on it: they are read again in any case
                log.warning("jobs_unavailable", batch=held.batch.id, error=str(exc))
                return
        made = self._made[held] = dict[str, _Made]()
        for n, execution in enumerate(list(held.waiting.values()), 1):
            unsent = execution.message is None and execution.id in held.waiting
            job = jobs.last_known(execution.job_id) if unsent else None
            if job is not None and not job.target.unread_bytes and job.signing_secret is None:
                # It is made again at its send time, and the error is logged then, with what it means.
                with suppress(Exception):
                    made[execution.id] = _Made(job, self._make(held, execution, job))
            if n % MADE_AT_ONCE == 0:
                await asyncio.sleep(0)

    def take(self, held: HeldBatch, execution_id: str, job: Job) -> Any:
        """The request of an execution that was made early for this very job; None if there is none."""
        made = self._made.get(held, {}).pop(execution_id, None)
        return made.request if made is not None and made.job is job else None
