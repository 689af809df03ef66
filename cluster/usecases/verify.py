"""`horae verify`: finds missing executions, and executions that should not exist. It only reads, a page at a time.

Jobs are taken a hundred at a time. Executions that are owed are read before those that are final, so that one that ends
in between is not missed by both readings. A live cluster goes on all the same: if there are findings, the jobs of that
hundred are read once more after a moment, and only the findings of both readings are reported.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cluster.core.ids import is_message, parse_execution_id
from cluster.core.timings import Timings
from cluster.core.verify.findings import KINDS, NOTES, Finding, VerifyCounts
from cluster.core.verify.judge import JobVerifier
from cluster.core.verify.records import BatchLeaseTimings
from cluster.core.verify.subjects import Bounds, VerifiedJob
from cluster.store import followed, meta
from cluster.store.queries import verify_records
from cluster.usecases import unfollowed, waiting_messages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from cluster.core.verify.findings import FindingKind
    from cluster.core.verify.records import Record
    from cluster.core.verify.subjects import MissedRecord
    from cluster.store.mongo.client import Database, Document

CHUNK = 100
MAX_FINDINGS = 1000
"""Findings of each kind that are kept for the report by default; all are counted."""
COMPARED = 5000
"""Findings of each kind, of one reading, that are kept to be compared with the next one; more if more are reported."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The scope of a verification: occurrences due within `since_ms <= due <= until_ms`, of one job or (None) of all."""

    since_ms: int
    until_ms: int | None = None
    """None: up to now, by the database's clock."""
    job: str | None = None
    late_seconds: float = 60.0
    retention_days: float = 7.0
    """As configured; jobs may have their own."""
    timings: Timings = field(default_factory=Timings)
    """As configured: how long leases last."""
    recheck_seconds: float = 1.5
    """Between the two readings: longer than an execution takes from its record to the delete of what was owed."""
    max_findings: int = MAX_FINDINGS
    """Findings of each kind kept for the report."""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The result. `findings` has the first `Scope.max_findings` of each kind that `counts` counts, the gravest first."""

    since_ms: int
    until_ms: int
    counts: VerifyCounts
    findings: list[Finding]
    seconds: float
    doubts: tuple[tuple[int, int, int], ...] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong. Second deliveries that are explained are reported, and not wrong."""
        return not any(n for kind, n in self.counts.findings.items() if kind not in NOTES)


async def verify(
    db: Database,
    scope: Scope,
    progress: Callable[[VerifyCounts], None] | None = None,
    clock: Callable[[Database], Awaitable[int]] = verify_records.now_ms,
) -> VerifyReport:
    """Verify everything in the scope. `progress` is called with the counts after each chunk of jobs."""
    began = time.perf_counter()
    bounds = await _bounds(db, scope, await clock(db))
    missed_before = await verify_records.missed_before(db, [scope.job] if scope.job else [], scope.since_ms)
    run = _Run(db, bounds, missed_before, scope, clock)
    if scope.job is not None:
        await run.verify_jobs([scope.job])
    else:
        chunk: list[str] = []
        async for job_id in verify_records.ids_in_order(db):
            chunk.append(job_id)
            if len(chunk) == CHUNK:
                await run.verify_jobs(chunk)
                chunk = []
                if progress is not None:
                    progress(run.counts)
        await run.verify_jobs([*chunk, "~"])  # no job has this id: with it, the gap after the last job is read too
    waiting = await waiting_messages.overdue(db, bounds, scope.job, scope.recheck_seconds)
    for finding in waiting:
        run.counts.note_finding(finding.kind)
    return VerifyReport(
        since_ms=bounds.since_ms,
        until_ms=bounds.until_ms,
        counts=run.counts,
        findings=sorted([*run.findings, *waiting], key=lambda f: KINDS.index(f.kind)),
        seconds=time.perf_counter() - began,
        doubts=bounds.doubts,
    )


async def _bounds(db: Database, scope: Scope, now_ms: int) -> Bounds:
    return Bounds(
        since_ms=scope.since_ms,
        until_ms=now_ms if scope.until_ms is None else min(scope.until_ms, now_ms),
        now_ms=now_ms,
        late_ms=int(scope.late_seconds * 1000),
        configured_days=scope.retention_days,
        shortest_days=await verify_records.shortest_retention_days(db, scope.retention_days),
        lease=BatchLeaseTimings(int(scope.timings.batch_lease * 1000), int(scope.timings.margin * 1000)),
        doubts=tuple(await meta.clock_doubts(db, scope.since_ms)),
    )


class _Run:
    """One verification in progress."""

    def __init__(
        self,
        db: Database,
        bounds: Bounds,
        missed_before: dict[str, list[MissedRecord]],
        scope: Scope,
        clock: Callable[[Database], Awaitable[int]],
    ) -> None:
        self.counts = VerifyCounts()
        self.findings: list[Finding] = []
        self._db = db
        self._bounds = bounds
        self._missed_before = missed_before
        self._recheck_seconds = scope.recheck_seconds
        self._max_findings = scope.max_findings
        self._clock = clock
        self._kept: Counter[FindingKind] = Counter()
        self._previous_id: str | None = "" if scope.job is None else None

    async def verify_jobs(self, ids: Sequence[str]) -> None:
        """Verify these jobs, which are the next ones in order, and the records between them that belong to no job."""
        reading = await self._read(ids, self._bounds)
        if reading.findings:
            await asyncio.sleep(self._recheck_seconds)
            bounds = replace(self._bounds, now_ms=await self._clock(self._db))
            first, reading = reading, await self._read(ids, bounds)
            reading.keep_findings_of(first)
            others = {f.job_id for f in reading.findings} - set(ids)
            if others:  # a job that was created after its place in the list of ids was read is left to the next run
                created, _ = await verify_records.jobs_to_verify(self._db, list(others))
                reading.drop_findings_of(set(created))
        if self._previous_id is not None:
            self._previous_id = ids[-1]
        self.counts.add(reading.counts)
        for finding in reading.findings:
            self._kept[finding.kind] += 1
            if self._kept[finding.kind] <= self._max_findings:
                self.findings.append(finding)

    async def _read(self, ids: Sequence[str], bounds: Bounds) -> _Reading:
        jobs, unreadable = await verify_records.jobs_to_verify(self._db, ids)
        reading = _Reading(ids, jobs, bounds, self._missed_before, max(COMPARED, self._max_findings))
        chained = await followed.chained(self._db, ids)
        for u in unreadable:
            reading.add_unreadable_job(u.id, u.why)
        due = (bounds.since_ms, bounds.until_ms)
        owed: list[Record] = []
        ranges = verify_records.ranges(ids, *due, self._previous_id)
        async for page in verify_records.pages(self._db, "executions", verify_records.spanning_range(ranges), due):
            owed += await verify_records.with_batch_listing(self._db, [r for d in page if (r := reading.record(d))])
        reading.add_owed(owed)
        async for page in verify_records.pages(self._db, "history", ranges, due):
            for document in page:
                reading.add_final(document)
            for finding in await unfollowed.missing(self._db, page, jobs, chained, reading.owed_ids, bounds):
                reading.add(finding)
        reading.finish()
        return reading


class _Reading:
    """History of a few jobs in order, merged with what is owed. First `add_owed`, then `add_final` in order, then `finish`."""

    def __init__(
        self,
        ids: Sequence[str],
        jobs: dict[str, VerifiedJob],
        bounds: Bounds,
        missed_before: dict[str, list[MissedRecord]],
        compared: int,
    ) -> None:
        self.findings: list[Finding] = []
        self.counts = VerifyCounts()
        self._ids = list(ids)
        self._jobs = jobs
        self._bounds = bounds
        self._missed_before = missed_before
        self._compared = compared
        self._kept: Counter[FindingKind] = Counter()
        self._unreadable: set[str] = set()
        self._owed: dict[str, Record] = {}
        self._owed_in_order: list[str] = []
        self._next_owed = 0
        self._next_job = 0
        self._verifier: JobVerifier | None = None
        self._verified_id: str | None = None

    def add(self, finding: Finding) -> None:
        """A finding that no verifier counted."""
        self.counts.findings[finding.kind] += 1
        self._keep(finding)

    def _keep(self, finding: Finding) -> None:
        self._kept[finding.kind] += 1
        if self._kept[finding.kind] <= self._compared:
            self.findings.append(finding)

    @property
    def owed_ids(self) -> Collection[str]:
        """The executions that are owed."""
        return self._owed.keys()

    @property
    def _full_kinds(self) -> set[FindingKind]:
        """The kinds of which there may be more findings than are kept here."""
        return {kind for kind, n in self._kept.items() if n >= self._compared}

    def keep_findings_of(self, other: _Reading) -> None:
        """Keep only the findings that another reading has too; of a kind that is full in one of them, keep all."""
        full = self._full_kinds | other._full_kinds
        seen = {(f.kind, f.execution) for f in other.findings}
        self._keep_only([f for f in self.findings if f.kind in full or (f.kind, f.execution) in seen])

    def drop_findings_of(self, job_ids: set[str]) -> None:
        """Drop the findings about these jobs."""
        self._keep_only([f for f in self.findings if f.job_id not in job_ids])

    def _keep_only(self, findings: list[Finding]) -> None:
        for f in self.findings:
            self.counts.findings[f.kind] -= 1
        for f in findings:
            self.counts.findings[f.kind] += 1
        self.findings = findings

    def add_unreadable_job(self, job_id: str, why: str) -> None:
        """A job whose document cannot be read: that is a finding, and its records are not verified."""
        self.add(Finding("contradiction", job_id, job_id, f"the job's document cannot be read: {why}"))
        self._unreadable.add(job_id)

    def record(self, document: Document) -> Record | None:
        """A document as a record; None, and a finding, for one that cannot be read."""
        name = str(document.get("_id"))
        parsed = parse_execution_id(name)
        if parsed is None:
            self.add(Finding("unexpected", name.rpartition(":")[0] or name, name, "no execution has such an id"))
            return None
        try:
            return verify_records.record_from_document(document, parsed.due_ms)
        except Exception as exc:
            why = f"its document cannot be read: {type(exc).__name__}: {str(exc)[:200]}"
            self.add(Finding("contradiction", parsed.job_id, name, why))
            return None

    def add_owed(self, records: Sequence[Record]) -> None:
        """All executions that are owed."""
        self._owed = {r.id: r for r in records}
        self._owed_in_order = sorted(self._owed)

    def add_final(self, document: Document) -> None:
        """The next document of history."""
        name = document["_id"]
        self._check_owed_before(name)
        job_id, _, due = name.partition(":")
        verifier = self._verifier_of(job_id)
        if verifier is None:
            return
        if due.endswith(":missed"):
            try:
                verifier.add_missed(verify_records.missed_from_document(document))
            except Exception as exc:
                self.add(Finding("contradiction", job_id, name, f"its document cannot be read: {type(exc).__name__}"))
            return
        owed = None
        if self._next_owed < len(self._owed_in_order) and self._owed_in_order[self._next_owed] == name:
            owed = self._owed[name]
            self._next_owed += 1
        record = self.record(document)
        if record is not None:
            verifier.check(record.due_ms, record, owed)
        elif len(due) == 13 and due.isdigit():
            verifier.check(int(due), None, owed)

    def finish(self) -> None:
        """There are no more records of these jobs."""
        self._check_owed_before(None)
        while self._next_job < len(self._ids):
            self._verifier_of(self._ids[self._next_job])
        self._finish_job()

    def _check_owed_before(self, name: str | None) -> None:
        """Executions that are owed under smaller ids than this (None: all that are left) have no document in history."""
        order = self._owed_in_order
        while self._next_owed < len(order) and (name is None or order[self._next_owed] < name):
            record = self._owed[order[self._next_owed]]
            self._next_owed += 1
            verifier = self._verifier_of(record.id.partition(":")[0])
            if verifier is not None:
                verifier.check(record.due_ms, None, record)

    def _finish_job(self) -> None:
        if self._verifier is not None:
            self._verifier.finish()
            self.counts.add(self._verifier.counts)
            self._verifier = self._verified_id = None

    def _verifier_of(self, job_id: str) -> JobVerifier | None:
        """The verifier of this job; every job before it, in order, is finished first. None if the job cannot be read."""
        if job_id == self._verified_id:
            return self._verifier
        while self._next_job < len(self._ids) and f"{self._ids[self._next_job]}:" <= f"{job_id}:":
            following = self._ids[self._next_job]
            self._next_job += 1
            self._begin_job(following)
            if following == job_id:
                return self._verifier
        self._begin_job(job_id)
        return self._verifier

    def _begin_job(self, job_id: str) -> None:
        self._finish_job()
        self._verified_id = job_id
        if job_id in self._unreadable:
            return
        job = self._jobs.get(job_id) or VerifiedJob(job_id, (), exists=False, is_message=is_message(job_id))
        try:
            self._verifier = JobVerifier(job, self._bounds, self._keep)
        except Exception as exc:
            why = f"{type(exc).__name__}: {str(exc)[:200]}"
            self.add(Finding("contradiction", job_id, job_id, f"the job's schedule cannot be read: {why}"))
            return
        for missed in self._missed_before.get(job_id, ()):
            self._verifier.add_missed(missed)
