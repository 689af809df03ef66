"""The use cases on jobs: what the API asks for, each one write of one document.

A change is decided on the job as it was read and written on its revision; if somebody was faster it is decided again on
the newer job, unless the caller named the revision he meant.
"""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cluster.core.documents.job_json import job_document, merge_patch, read_spec
from cluster.core.errors import CallerError, Conflict, Fault, InvalidInput, NotFound, PreconditionFailed
from cluster.core.execution.batching import DUE_NOW, make_batch
from cluster.core.execution.model import Execution
from cluster.core.ids import execution_id, trigger_due_ms
from cluster.core.job import changes as jobchange
from cluster.core.job.changes import ChangeStamp
from cluster.core.lifecycle import JobState, State
from cluster.core.limits.permits import limit_key_of
from cluster.store import batches, channels, executions, history, jobs, meta
from cluster.store.enqueue import insert_owed
from cluster.store.queries import jobs_and_executions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from cluster.core.documents.job import JobSpec
    from cluster.core.execution.model import Job
    from cluster.core.job.definition import Definition, JobChange, StoredJob
    from cluster.store.mongo.client import Database

RACES = 8
"""How often a change is decided again because somebody else was faster."""


@dataclass(frozen=True, slots=True)
class Precondition:
    """What the caller knows of the job: the revision it must have, or that there must be none."""

    revision: int | None = None
    absent: bool = False

    def check(self, job: StoredJob | None) -> None:
        """Raises `PreconditionFailed` if it is otherwise."""
        there = job is not None and job.state is not JobState.DELETED
        if self.absent and there:
            raise PreconditionFailed("the job exists already")
        if self.revision is not None and (job is None or not there or job.revision != self.revision):
            now = f"is at revision {job.revision}" if job is not None and there else "does not exist"
            raise PreconditionFailed(f"the job {now}: read it again and repeat the change on what it is now")


NO_PRECONDITION = Precondition()


def new_moment(now_ms: int) -> ChangeStamp:
    """Names for one change made now."""
    return ChangeStamp(now_ms, uuid.uuid4().hex, uuid.uuid4().hex)


def new_job_id(now_ms: int) -> str:
    """Unique, and ascending in time so that a large import appends to the index."""
    return f"{now_ms:011x}{secrets.token_hex(8)}"


async def create(db: Database, job_id: str, spec: JobSpec, now_ms: int, *, repeated: bool = False) -> StoredJob:
    """A new job. Raises `Conflict` if the id is taken; with `again`, only if what is there is not the same job."""
    name = job_id
    try:
        job, _ = await put(db, name, spec, now_ms, Precondition(absent=True))
    except PreconditionFailed as exc:
        there = await jobs.get(db, name) if repeated else None
        if there is not None and there.definition == spec.to_definition(None):
            return there
        raise Conflict(f"the job '{name}' exists already; change it with PUT or PATCH") from exc
    return job


async def put(
    db: Database, job_id: str, spec: JobSpec, now_ms: int, precondition: Precondition = NO_PRECONDITION
) -> tuple[StoredJob, bool]:
    """Create or replace the job. Returns it, and whether it was created."""

    def decide(old: StoredJob | None, at: ChangeStamp) -> JobChange | None:
        return jobchange.define(old, job_id, spec.to_definition(kept(old)), at)

    await _check(db, spec)
    before, after = await _change(db, job_id, decide, now_ms, precondition)
    return after, before is None or before.state is JobState.DELETED


def kept(old: StoredJob | None) -> Definition | None:
    """Where a document's marks find their secrets. They are write-only: not to mention one does not remove it."""
    return None if old is None or old.state is JobState.DELETED else old.definition


async def patch(
    db: Database,
    job_id: str,
    change: dict[str, Any],
    context: dict[str, Any],
    now_ms: int,
    precondition: Precondition = NO_PRECONDITION,
) -> StoredJob:
    """Apply a JSON merge patch. `context` is for the model's validators."""
    rules = change.get("alerts")
    named_now = rules.get("channels") if isinstance(rules, dict) else None
    if isinstance(named_now, list) and all(isinstance(n, str) for n in named_now):
        await require_channels(db, {"alerts": named_now})

    def decide(old: StoredJob | None, at: ChangeStamp) -> JobChange | None:
        job = require_job(old, job_id)
        wanted = read_spec(merge_patch(job_document(job.definition, write_only=True), change), context)
        return jobchange.define(job, job_id, wanted.to_definition(kept(job), complete=True), at)

    return (await _change(db, job_id, decide, now_ms, precondition))[1]


async def require_channels(db: Database, named: Mapping[str, Iterable[str]]) -> None:
    """Raises `InvalidInput` for names that are no channels. `named` maps the path of some rules to their channels."""
    wanted = {name for names in named.values() for name in names}
    if not wanted:
        return
    there = await channels.existing_names(db, wanted)
    missing = [
        Fault(f"{path}.channels.{i}".lstrip("."), f"there is no channel '{name}': make it with PUT /channels/{name}")
        for path, names in named.items()
        for i, name in enumerate(names)
        if name not in there
    ]
    if missing:
        raise InvalidInput(missing)


async def _check(db: Database, spec: JobSpec) -> None:
    if spec.alerts is not None:
        await require_channels(db, {"alerts": spec.alerts.channels})


async def pause(db: Database, job_id: str, now_ms: int, precondition: Precondition = NO_PRECONDITION) -> StoredJob:
    """Stop owing occurrences."""
    return (
        await _change(db, job_id, lambda old, at: jobchange.pause(require_job(old, job_id), at), now_ms, precondition)
    )[1]


async def pause_for_gone_target(db: Database, sent: Job, now_ms: int, reason: str) -> bool:
    """Pause a job whose target answered 410, as it was sent. False if it has another target by now, or does not run."""

    def decide(old: StoredJob | None, at: ChangeStamp) -> JobChange | None:
        job = require_job(old, sent.id)
        if job.state is not JobState.ACTIVE or job.definition.url != sent.target.url:
            return None
        return jobchange.pause(job, at, reason)

    try:
        before, after = await _change(db, sent.id, decide, now_ms, NO_PRECONDITION)
    except CallerError:  # it was deleted, or it is being changed again and again: the next 410 will tell
        return False
    return before is not None and before.revision != after.revision


async def resume(db: Database, job_id: str, now_ms: int, precondition: Precondition = NO_PRECONDITION) -> StoredJob:
    """Owe occurrences again, from now on."""
    return (
        await _change(db, job_id, lambda old, at: jobchange.resume(require_job(old, job_id), at), now_ms, precondition)
    )[1]


async def delete(db: Database, job_id: str, now_ms: int, precondition: Precondition = NO_PRECONDITION) -> None:
    """Delete the job; its document stays as a tombstone."""
    await _change(db, job_id, lambda old, at: jobchange.delete(require_job(old, job_id), at), now_ms, precondition)


def require_job(job: StoredJob | None, job_id: str) -> StoredJob:
    """The job, if it is one. Raises `NotFound`."""
    if job is None or job.state is JobState.DELETED:
        raise NotFound(f"there is no job '{job_id}'")
    return job


async def _change(
    db: Database,
    job_id: str,
    decide: Callable[[StoredJob | None, ChangeStamp], JobChange | None],
    now_ms: int,
    expect: Precondition,
) -> tuple[StoredJob | None, StoredJob]:
    """Read, decide, write on the revision read. Returns the job before and after."""
    for _ in range(RACES):
        old = await jobs.get(db, job_id)
        expect.check(old)
        change = decide(old, new_moment(now_ms))
        if change is None:
            return old, require_job(old, job_id)
        await _remember_retention(db, [change])
        written = await (jobs.insert(db, change) if old is None else jobs.update(db, change))
        if written:
            return old, change.job
    raise Conflict(f"job '{job_id}' was changed by others {RACES} times while this change was made")


async def _remember_retention(db: Database, changes: Sequence[JobChange]) -> None:
    """Before anything is recorded under a shorter retention: searches by time rely on knowing the shortest."""
    days = [c.job.definition.retention_days for c in changes if c.job.definition.retention_days is not None]
    if days:
        await meta.record_retention(db, min(days))


async def trigger(
    db: Database,
    job_id: str,
    now_ms: int,
    *,
    reserved_due_ms: int | None = None,
    on_due_moved: Callable[[int], Awaitable[None]] | None = None,
) -> str:
    """Run the job once, now, whatever its schedule says. Returns the execution's id.

    `earlier` is the due time (ms) under which an earlier request may have done this; `moved` is told when another
    than `trigger_ms(now_ms)` had to be taken, before it is.
    """
    job = require_job(await jobs.get(db, job_id), job_id)
    patient = replace(db, work=db.api)  # a caller waits for this: the API's deadline, not the engine's
    due = trigger_due_ms(now_ms) if reserved_due_ms is None else reserved_due_ms
    while True:
        name = execution_id(job_id, due)
        batch = uuid.uuid4().hex
        lane = job.definition.lane
        host = job.definition.host
        execution = Execution(name, job_id, due, due, job.schedule_version, batch, lane, trigger=True, host=host)
        execution = replace(execution, limit_key=limit_key_of(job_id, job.definition.queue, job.definition.limits))
        its_batch = make_batch([execution], DUE_NOW)
        final = await jobs_and_executions.is_final(db, name)
        if reserved_due_ms is not None:
            if not final:
                await insert_owed(patient, [execution], [its_batch], lambda: uuid.uuid4().hex)
            return name
        if not final and not await executions.insert(patient, [execution]):
            break
        due = trigger_due_ms(due + 1)
        if on_due_moved is not None:
            await on_due_moved(due)
    # A crash here leaves an execution that names no batch: the sweep gives it one within a minute.
    await batches.insert(patient, [its_batch])
    return name


async def replay(db: Database, execution: str, now_ms: int, retention_days: float) -> None:
    """Send a failed or dead execution again, under its id, its attempts beginning anew. Safe to repeat.

    What its end has left behind goes first. Then history says that it is reopened, so that the engine lets it through;
    then it is owed; then its batch is there. Whoever asks again after a crash in between finishes what is missing.
    Raises `NotFound` or `Conflict`.
    """
    run = await jobs_and_executions.get_execution(db, execution, now_ms)
    if run is None:
        raise NotFound(f"there is no execution '{execution}', or its retention has ended")
    job = await jobs.get(db, run.job_id)
    if job is None or job.state is JobState.DELETED:
        raise Conflict("its job was deleted: there is nothing left to send")
    patient = replace(db, work=db.api)  # a caller waits for this: the API's deadline, not the engine's
    if run.state in (State.FAILED.value, State.DEAD.value) and run.ended_ms is not None:
        await executions.delete_ended(patient, {execution: run.ended_ms})
    if not await history.reopen(db, execution, now_ms, job.definition.retention_days or retention_days):
        raise Conflict(f"the execution is {run.state}: only what is failed or dead can be sent again")
    batch = uuid.uuid4().hex
    lane = job.definition.lane
    again = Execution(
        execution,
        run.job_id,
        run.due_ms,
        now_ms,
        job.schedule_version,
        batch,
        lane,
        State.RETRYING,
        trigger=True,
        replayed_ms=now_ms,
        host=job.definition.host,
        limit_key=limit_key_of(run.job_id, job.definition.queue, job.definition.limits),
    )
    await insert_owed(
        patient,
        [again],
        [make_batch([again], DUE_NOW)],
        lambda: uuid.uuid4().hex,
    )


@dataclass(frozen=True, slots=True)
class ImportLine:
    """One job of an import: its number in the input (1..), its id if it has one, and the job."""

    number: int
    job_id: str | None
    spec: JobSpec


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What became of some lines; `refused` are faults by line."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    refused: tuple[tuple[ImportLine, InvalidInput], ...] = ()


async def import_chunk(db: Database, lines: Sequence[ImportLine], now_ms: int) -> ImportResult:
    """Create or replace the jobs of these lines, as PUT would, in a few writes. Ids must not repeat in one chunk.

    Safe to repeat for lines with ids: what is there already is left alone.
    """
    named = [(line, line.job_id or new_job_id(now_ms)) for line in lines]
    there = await jobs.get_many(db, [line.job_id for line in lines if line.job_id is not None])
    fresh: list[JobChange] = []
    changed: list[JobChange] = []
    refused: list[tuple[ImportLine, InvalidInput]] = []
    unchanged = revived = 0
    for line, job_id in named:
        old = there.get(job_id)
        try:
            await _check(db, line.spec)
            change = jobchange.define(old, job_id, line.spec.to_definition(kept(old)), new_moment(now_ms))
        except InvalidInput as exc:
            refused.append((line, exc))
            continue
        if change is None:
            unchanged += 1
        elif old is None:
            fresh.append(change)
        else:
            changed.append(change)
            revived += old.state is JobState.DELETED
    await _remember_retention(db, [*fresh, *changed])
    raced = await jobs.insert_many(db, fresh)
    if not await jobs.update_many(db, changed):
        # Somebody changed one of them meanwhile. Which ones were written is found out by doing each once more:
        # what is as it should be is left alone.
        raced |= {c.job.id for c in changed}
    for line, job_id in named:
        if job_id in raced:
            await put(db, job_id, line.spec, now_ms)
    created = len(fresh) + revived
    return ImportResult(created, len(lines) - created - unchanged - len(refused), unchanged, tuple(refused))
