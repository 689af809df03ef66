"""Actions: one change of many jobs, a page a step, at the requested rate. Only the leader does this.

A page is noted as begun, then its jobs are changed, then the page is noted as done. After a crash in between, the next
leader does the same page again. Each job's part is one write, on the revision that was read, which names the action; a
job that names it is not changed again, whatever was done to it since. A run is owed under an id that follows from the
page, so that a page that is done again owes no second one.

A stale leader harms nothing: it asks for its term before each write, and the write is on the revision that it read
before. If its successor has finished the page since, that revision is gone.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import structlog

from cluster.core.actor import acting
from cluster.core.documents import strict_json
from cluster.core.documents.follow_ups import callback_channels
from cluster.core.documents.job_json import apply_patch, channels_in_patch
from cluster.core.documents.json_source import keep_body
from cluster.core.errors import CallerError, UndecryptableSecret
from cluster.core.execution.model import Execution
from cluster.core.execution.planning import plan_requested
from cluster.core.ids import execution_id, trigger_due_ms
from cluster.core.job import changes
from cluster.core.job.wanted_state import define_in_state
from cluster.core.limits.permits import limit_key_of
from cluster.store import actions, audit, batches, calendars, executions, jobs
from cluster.store.actions import MOST_FAILURES
from cluster.store.enqueue import insert_owed
from cluster.store.progress import DONE
from cluster.store.queries import action_targets, jobs_and_executions
from cluster.usecases.actions import entry_of, object_of
from cluster.usecases.executions import TriggerRequest, trigger
from cluster.usecases.jobs import (
    RACES,
    new_stamp,
    record_retention,
    require_alert_channels,
    require_callback_channels,
    with_days_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cluster.core.execution.planning import Plan
    from cluster.core.job.changes import ChangeStamp
    from cluster.core.job.definition import JobChange, StoredJob
    from cluster.core.schedule.calendar_days import ExcludedDays
    from cluster.leader.context import LeaderContext
    from cluster.store.actions import Action
    from cluster.store.queries.action_targets import Targets

    Decide = Callable[[StoredJob, ChangeStamp], JobChange | None]

log = structlog.get_logger()

SLICE = 50
"""Jobs changed by one write. To make it takes some ms, during which this node sends nothing."""
LIVE_BATCHES = 32
"""While so many late batches are alive, no page of runs is begun."""


@dataclass(frozen=True, slots=True)
class Acted:
    """The result of one step. `more`: there is an action that has not ended."""

    jobs: int = 0
    more: bool = False


@dataclass(slots=True)
class _Tally:
    """What became of the jobs of one page."""

    done: int = 0
    left_out: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)

    def add(self, targets: Targets, done: int) -> None:
        """So many are as they are to be; and those of `targets` on which there is nothing to decide."""
        self.done += done
        self.left_out += len(targets.left_out)
        self.failures += [(i, f"it cannot be read: {why}") for i, why in targets.unreadable.items()]

    def fail(self, job_ids: Iterable[str], reason: str) -> None:
        self.failures += [(i, reason) for i in job_ids]


def _calendars_in(patch: dict[str, Any]) -> set[str]:
    """The calendar that a patch names."""
    calendar = patch.get("calendar")
    name = calendar.get("name") if isinstance(calendar, dict) else None
    return {name} if isinstance(name, str) else set()


def _calendars_of(found: Sequence[StoredJob]) -> set[str]:
    return {job.definition.calendar.name for job in found if job.definition.calendar is not None}


class JobActions:
    """Actions by one leader."""

    def __init__(self, context: LeaderContext) -> None:
        self._context = context
        self._db = context.db

    async def step(self) -> Acted:
        """The next page of the action whose turn it is, if its time has come."""
        action = await actions.next_due(self._db)
        if action is None:
            return Acted()
        if not action.page_ms:
            now_ms = self._context.clock.now_ms()
            if now_ms < action.next_ms or not await self._has_room(action):
                return Acted(more=True)
            self._context.trusted_term()
            begun = await actions.save(self._db, replace(action, page_ms=trigger_due_ms(now_ms)))
            if begun is None:
                return Acted(more=True)
            action = begun
        page = await actions.page_of(self._db, action)
        if page is None:
            await self._finish(action)
            return Acted(more=True)
        tally = _Tally()
        with acting(replace(action.by, within=object_of(action))):  # their entry is that of the action
            if action.kind == "trigger":
                await self._trigger(action, page, tally)
            else:
                await self._change(action, page, tally)
        await self._save(action, len(page), tally)
        return Acted(tally.done, more=True)

    async def _has_room(self, action: Action) -> bool:
        return action.kind != "trigger" or await batches.count_late(self._db, LIVE_BATCHES) < LIVE_BATCHES

    async def _save(self, action: Action, size: int, tally: _Tally) -> None:
        pause_ms = int(size * 1000 / action.per_second)
        done = replace(
            action,
            page=action.page + 1,
            page_ms=0,
            next_ms=action.page_ms + pause_ms,
            done=action.done + tally.done,
            left_out=action.left_out + tally.left_out,
            failed=action.failed + len(tally.failures),
            failures=(*action.failures, *tally.failures)[:MOST_FAILURES],
        )
        await audit.record(self._db, entry_of(done))
        await actions.save_page(self._db, action, done)

    async def _finish(self, action: Action) -> None:
        self._context.trusted_term()
        ended = replace(action, state=DONE, page_ms=0, ended_ms=self._context.clock.now_ms())
        if await actions.save(self._db, ended) is not None:
            await audit.record(self._db, entry_of(ended))
            log.info(
                "action_done",
                action=action.id,
                kind=action.kind,
                matched=action.matched,
                done=action.done,
                left_out=action.left_out,
                failed=action.failed,
            )
        await actions.delete_pages(self._db, action.pages)

    async def _change(self, action: Action, page: Sequence[str], tally: _Tally) -> None:
        try:
            days: dict[str, ExcludedDays] = {}
            decide = await self._decision(action, days)
        except (CallerError, UndecryptableSecret) as exc:
            tally.fail(page, str(exc))
            return
        for start in range(0, len(page), SLICE):
            await self._change_slice(action, page[start : start + SLICE], decide, days, tally)

    async def _decision(self, action: Action, days: dict[str, ExcludedDays]) -> Decide:
        """`days`: of the calendars that the jobs name which are decided on."""
        if action.kind == "pause":
            return changes.pause
        if action.kind == "resume":
            return changes.resume
        if action.kind == "delete":
            return changes.delete
        raw = (actions.patch_text(self._db, action) or "{}").encode()
        patch: dict[str, Any] = keep_body(raw, strict_json.loads(raw))
        if named := _calendars_in(patch):
            days |= await calendars.days_of(self._db, named)
        context = self._context.document_limits.context
        await require_alert_channels(self._db, channels_in_patch(patch))
        await require_callback_channels(self._db, callback_channels(patch))

        def patched(job: StoredJob, at: ChangeStamp) -> JobChange | None:
            wanted = with_days_of(apply_patch(job.definition, patch, context), job.definition, days)
            return define_in_state(job, job.id, wanted.resolve(job.definition), at, wanted.state)

        return patched

    async def _change_slice(
        self,
        action: Action,
        job_ids: Sequence[str],
        decide: Decide,
        days: dict[str, ExcludedDays],
        tally: _Tally,
    ) -> None:
        """Decide on the jobs as they are, and write; those that another request changed meanwhile are decided on again."""
        pending, rounds = list(job_ids), RACES
        while pending and rounds:
            targets = await action_targets.read(self._db, action, pending)
            if action.kind == "patch" and (named := {*days, *_calendars_of(targets.jobs)}):
                # Read after the jobs, so that none goes back to days that its calendar had before.
                days |= await calendars.days_of(self._db, named)
            decided, unchanged = await self._decide(targets.jobs, decide, tally)
            await record_retention(self._db, decided)
            self._context.trusted_term()
            written = await jobs.update_many(self._db, decided, action=action.id)
            tally.add(targets, len(targets.acted) + unchanged + (len(decided) if written else 0))
            pending = list(targets.unread)  # of large jobs a few at a time, for as long as it takes
            if not written:
                pending += [c.job.id for c in decided]
                rounds -= 1
        tally.fail(pending, f"other requests changed the job {RACES} times meanwhile")

    async def _decide(self, found: Sequence[StoredJob], decide: Decide, tally: _Tally) -> tuple[list[JobChange], int]:
        """The changes to write, and how many jobs are as they are to be."""
        decided: list[JobChange] = []
        unchanged = 0
        for job in found:
            try:
                change = decide(job, new_stamp(self._context.clock.now_ms()))
            except CallerError as exc:
                tally.fail([job.id], str(exc))
                continue
            if change is None:
                unchanged += 1
            else:
                decided.append(change)
            await asyncio.sleep(0)  # to decide on one job may take a ms
        return decided, unchanged

    async def _trigger(self, action: Action, page: Sequence[str], tally: _Tally) -> None:
        """Owe a run of each job, as late work, due at the instant at which the page was begun."""
        pending = list(page)
        while pending:
            targets = await action_targets.read(self._db, action, pending)
            plan = self._planned(action, targets.jobs)
            self._context.trusted_term()
            await insert_owed(self._db, plan.executions, plan.batches, self._context.new_batch_id)
            await self._run_beside_others(action, plan.executions)
            tally.add(targets, len(plan.executions))
            pending = targets.unread

    def _planned(self, action: Action, found: Sequence[StoredJob]) -> Plan:
        return plan_requested([_asked_for(action, job) for job in found], self._context.new_batch_id)

    async def _run_beside_others(self, action: Action, owed: Sequence[Execution]) -> None:
        """A job that somebody triggered in the same ms runs for that request under this id: it gets a run of its own."""
        ids = [e.id for e in owed]
        requests = {i: e.request_id for i, e in (await executions.owed(self._db, ids)).items()}
        requests |= await jobs_and_executions.recorded_requests(self._db, ids)  # what is final is not sent, owed or not
        for e in owed:
            if requests.get(e.id, action.id) != action.id:
                request = TriggerRequest(action.id, trigger_due_ms(e.due_ms + 1))
                await trigger(self._db, e.job_id, e.due_ms, request=request)


def _asked_for(action: Action, job: StoredJob) -> Execution:
    """The run of this job that the action asks for."""
    d = job.definition
    return Execution(
        id=execution_id(job.id, action.page_ms),
        job_id=job.id,
        due_ms=action.page_ms,
        send_ms=action.page_ms,
        schedule_version=job.schedule_version,
        batch="",
        lane=d.lane,
        trigger=True,
        host=d.host,
        limit_key=limit_key_of(job.id, d.queue, d.limits),
        request_id=action.id,
    )
