"""Executions by hand: trigger a job once, replay an execution that failed or was cancelled."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cluster.core.actor import current_actor
from cluster.core.audit_entry import new_entry
from cluster.core.errors import Conflict, NotFound
from cluster.core.execution.batching import DUE_NOW, make_batch
from cluster.core.execution.model import Execution
from cluster.core.ids import execution_id, is_message, trigger_due_ms
from cluster.core.job.changes import schedule_of
from cluster.core.lifecycle import REPLAYABLE, JobState, State
from cluster.core.limits.permits import limit_key_of
from cluster.store import audit, batches, executions, follow_ups, history, jobs
from cluster.store.enqueue import insert_owed, repair_batches
from cluster.store.queries import jobs_and_executions, message_states
from cluster.usecases.jobs import require_job

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cluster.core.execution.view import ExecutionView
    from cluster.core.job.definition import StoredJob
    from cluster.store.mongo.client import Database


@dataclass(frozen=True, slots=True)
class TriggerRequest:
    """A request to run a job by hand: a unique id, the same whenever it is repeated.

    `reserved_due_ms` is the due time under which an earlier try may have done it. `waits`: under `overlap: skip` the run
    waits for the end of the run before it instead of being skipped.
    """

    id: str
    reserved_due_ms: int | None = None
    waits: bool = False


def new_batch_id() -> str:
    """A name that no other writer ever chooses."""
    return uuid.uuid4().hex


async def trigger(
    db: Database,
    job_id: str,
    now_ms: int,
    *,
    request: TriggerRequest | None = None,
    on_due_moved: Callable[[int], Awaitable[None]] | None = None,
) -> str:
    """Run the job once, now, whatever its schedule is. Returns the id of the execution.

    `request`: who asks; None: a request that is never repeated. `on_due_moved` is called before another due time is
    taken than `trigger_due_ms(now_ms)`, or than the one that is reserved.
    """
    job = require_job(await jobs.get(db, job_id), job_id)
    patient = _with_api_deadline(db)
    request = request or TriggerRequest(uuid.uuid4().hex)
    due_ms = trigger_due_ms(now_ms) if request.reserved_due_ms is None else request.reserved_due_ms
    schedule = schedule_of(job.definition, job.anchor_ms)
    while True:
        if schedule.is_occurrence(due_ms):  # of an `@at` with milliseconds: its run and this one are two
            due_ms = trigger_due_ms(due_ms + 1)
        execution = replace(_triggered(job, due_ms), request_id=request.id, waits=request.waits)
        if await _owe_triggered(patient, execution):
            await _note(db, job_id, "trigger", execution.id, due_ms)
            return execution.id
        due_ms = trigger_due_ms(due_ms + 1)
        if on_due_moved is not None:
            await on_due_moved(due_ms)


async def _owe_triggered(db: Database, execution: Execution) -> bool:
    """Have this run sent. Safe to repeat. False: another request has this millisecond.

    First the execution is inserted, then history is asked. An earlier run under the same id is recorded in history before
    it leaves `executions`. So if the insert met nothing, and history knows nothing, there was none; to ask first would
    miss a run that ends in between, and the insert would then be taken for that run and never be sent.
    """
    existed = bool(await executions.insert(db, [execution]))
    if existed:
        owed = (await executions.owed(db, [execution.id])).get(execution.id)
        if owed is not None:
            if owed.request_id != execution.request_id:
                return False
            await repair_batches(db, [owed])  # an earlier try may have died before it inserted the batch
            return True
    recorded = await jobs_and_executions.recorded_request(db, execution.id)
    if recorded is None:
        if existed:  # it is unreadable: a node will record it as dead
            return False
        # A crash here leaves an execution whose batch does not exist: the sweep makes the batch within a minute.
        await batches.insert(db, [make_batch([execution], DUE_NOW)])
        return True
    if not existed:
        # It has no batch, so no node holds it. If the sweep has just made one, the claim finds the record and removes it.
        await executions.delete_unclaimed(db, execution)
    return recorded.request_id == execution.request_id


async def replay(db: Database, execution_id: str, now_ms: int, retention_days: float, *, waits: bool = False) -> None:
    """Send a failed, dead or cancelled execution again, under its id, with new attempts. Safe to repeat. `waits`: as of a trigger.

    First what follows the result that it takes back is owed, and its leftovers in `executions` are deleted. Then history
    says that it is reopened, so that the workers let it through; then it is owed; then its batch exists. After a crash in between, the same request completes the rest.
    Raises `NotFound` or `Conflict`.
    """
    view = await jobs_and_executions.get_execution(db, execution_id, now_ms)
    if view is None:
        raise NotFound(f"there is no execution '{execution_id}', or its retention has ended")
    asked, retention = await _asked_again(db, view)
    patient = _with_api_deadline(db)
    if view.state in REPLAYABLE and view.ended_ms is not None:
        version = view.schedule_version if view.state == State.CANCELLED.value else None
        # A node that died before it wrote what follows the failure has left the execution, and this deletes it.
        await follow_ups.owe_before_replay(patient, [execution_id])
        await executions.delete_ended(patient, {execution_id: (view.ended_ms, version)})
    while not await history.reopen(db, execution_id, now_ms, retention or retention_days):
        if not await follow_ups.owe_before_replay(patient, [execution_id]):  # of a result that came since
            raise Conflict(f"the execution is {view.state}: only failed, dead and cancelled executions can be replayed")
    execution = replace(
        asked,
        id=execution_id,
        send_ms=now_ms,
        state=State.RETRYING,
        replayed_ms=now_ms,
        waits=waits,
    )
    await insert_owed(patient, [execution], [make_batch([execution], DUE_NOW)], new_batch_id)
    await _note(db, view.job_id, "replay", execution_id, now_ms)


async def _note(db: Database, job_id: str, action: str, execution_id: str, at_ms: int) -> None:
    """The entry of a run by hand. Executions carry no entries, so it is written when the run is owed, before the answer."""
    if current_actor().within is None:
        kind = "message" if is_message(job_id) else "job"
        entry = new_entry(f"{kind}:{job_id}", action, at_ms, f"{action}:{execution_id}")
        await audit.record(db, replace(entry, detail={"executionId": execution_id}))


async def _asked_again(db: Database, view: ExecutionView) -> tuple[Execution, float | None]:
    """What a replay sends, by the job as it is now, or by the message as history keeps it; and how long it is kept (days).

    Raises `Conflict` if there is nothing left to send.
    """
    if is_message(view.job_id):
        request = None if view.state == State.SUCCEEDED.value else await message_states.request_of(db, view.id)
        if request is None and view.state in REPLAYABLE:
            raise Conflict("what the message said could not be read, so it was not kept: send it once more")
        asked = message_states.replayed(view.id, view.job_id, view.due_ms, request or {})
        return replace(asked, batch=new_batch_id()), (request or {}).get("retention_days")
    job = await jobs.get(db, view.job_id)
    if job is None or job.state is JobState.DELETED:
        raise Conflict("its job was deleted: there is nothing left to send")
    return _triggered(job, view.due_ms), job.definition.retention_days


def _with_api_deadline(db: Database) -> Database:
    """The database with the deadline of the API for all operations: a caller waits for them."""
    return replace(db, work=db.api)


def _triggered(job: StoredJob, due_ms: int) -> Execution:
    """A run by hand, in a batch of its own."""
    definition = job.definition
    return Execution(
        id=execution_id(job.id, due_ms),
        job_id=job.id,
        due_ms=due_ms,
        send_ms=due_ms,
        schedule_version=job.schedule_version,
        batch=new_batch_id(),
        lane=definition.lane,
        trigger=True,
        host=definition.host,
        limit_key=limit_key_of(job.id, definition.queue, definition.limits),
    )
