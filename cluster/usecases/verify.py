"""`horae verify`: nothing is missing, nothing is there that should not be. Reads alone, a page at a time.

Jobs are taken a hundred at a time. What is owed is read before what is final, so that nothing which ends in between is
seen in neither. A live cluster moves all the same: where anything is found, those jobs are read once more after a
moment, and only what is found both times is told.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cluster.core.ids import parse_execution_id
from cluster.core.timings import Timings
from cluster.core.verify.findings import KINDS, NOTES, Finding, VerifyCounts
from cluster.core.verify.judge import JobVerifier
from cluster.core.verify.records import BatchLeaseTimings
from cluster.core.verify.subjects import Bounds, VerifiedJob
from cluster.store.queries import verify_records

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from cluster.core.verify.findings import FindingKind
    from cluster.core.verify.records import Record
    from cluster.core.verify.subjects import MissedRecord
    from cluster.store.mongo.client import Database, Document

CHUNK = 100
MAX_FINDINGS = 1000
"""Findings of each kind kept to be told, if nobody asks for more; all are counted."""
COMPARED = 5000
"""Findings of each kind, of one look at a few jobs, that are kept to be compared with the next look's; more if more
are to be told."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What to verify: occurrences due within `since_ms <= due <= until_ms`, of one job or (None) of all."""

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
    """Between the two looks: longer than a result takes from history to being owed no more."""
    max_findings: int = MAX_FINDINGS
    """Findings of each kind kept to be told."""


@dataclass(slots=True)
class VerifyReport:
    """What was seen. `findings` are those counted in `tally.findings`, the first `Scope.kept` of each kind, the gravest first."""

    since_ms: int
    until_ms: int
    tally: VerifyCounts = field(default_factory=VerifyCounts)
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong. Second deliveries that are explained are told, and not wrong."""
        return not any(n for kind, n in self.tally.findings.items() if kind not in NOTES)


async def verify(
    db: Database,
    scope: Scope,
    progress: Callable[[VerifyCounts], None] | None = None,
    clock: Callable[[Database], Awaitable[int]] = verify_records.now_ms,
) -> VerifyReport:
    """Judge everything in the scope. `progress` is told how much was seen, now and then.

    At the end of a run that is known from its beginning to its end, `Scope(since_ms=its beginning)` is all it takes.
    """
    began = time.perf_counter()
    now = await clock(db)
    until = now if scope.until_ms is None else min(scope.until_ms, now)
    days = scope.retention_days
    shortest = await verify_records.shortest_retention_days(db, days)
    lease = BatchLeaseTimings(int(scope.timings.batch_lease * 1000), int(scope.timings.margin * 1000))
    bounds = Bounds(scope.since_ms, until, now, int(scope.late_seconds * 1000), days, shortest, lease)
    early = await verify_records.missed_before(db, [scope.job] if scope.job else [], scope.since_ms)
    run = _Run(db, bounds, early, scope, clock)
    if scope.job is not None:
        await run.chunk([scope.job])
    else:
        chunk: list[str] = []
        async for name in verify_records.ids_in_order(db):
            chunk.append(name)
            if len(chunk) == CHUNK:
                await run.chunk(chunk)
                chunk = []
                if progress is not None:
                    progress(run.report.tally)
        await run.chunk([*chunk, "~"])  # nothing is called so: with it the gap behind the last job is looked at
    run.report.findings.sort(key=lambda f: KINDS.index(f.kind))
    run.report.seconds = time.perf_counter() - began
    return run.report


class _Run:
    """One verification under way."""

    def __init__(
        self,
        db: Database,
        bounds: Bounds,
        early: dict[str, list[MissedRecord]],
        scope: Scope,
        clock: Callable[[Database], Awaitable[int]],
    ) -> None:
        self._db = db
        self._bounds = bounds
        self._early = early
        self._again_seconds = scope.recheck_seconds
        self._most = scope.max_findings
        self._clock = clock
        self._kept: Counter[FindingKind] = Counter()
        self._before: str | None = "" if scope.job is None else None
        self.report = VerifyReport(bounds.since_ms, bounds.until_ms)

    async def chunk(self, ids: Sequence[str]) -> None:
        """Judge these jobs, which are the next ones in order, and what lies between them."""
        look = await self._look(ids, self._before, self._bounds)
        if look.findings:
            await asyncio.sleep(self._again_seconds)
            bounds = replace(self._bounds, now_ms=await self._clock(self._db))
            known, full = {(f.kind, f.execution) for f in look.findings}, look.full
            look = await self._look(ids, self._before, bounds)
            look.keep(known, full)
            strangers = {f.job_id for f in look.findings} - set(ids)
            if strangers:  # a job that was made since the list of jobs was read is judged next time
                there, _ = await verify_records.jobs_to_verify(self._db, list(strangers))
                look.forget(set(there))
        if self._before is not None:
            self._before = ids[-1]
        self.report.tally.add(look.tally)
        for f in look.findings:
            self._kept[f.kind] += 1
            if self._kept[f.kind] <= self._most:
                self.report.findings.append(f)

    async def _look(self, ids: Sequence[str], before: str | None, bounds: Bounds) -> _Look:
        jobs, unreadable = await verify_records.jobs_to_verify(self._db, ids)
        look = _Look(jobs, bounds, self._early, max(COMPARED, self._most))
        for u in unreadable:
            look.tell(Finding("contradiction", u.id, u.id, f"the job's document cannot be read: {u.why}"))
            look.unjudged.add(u.id)
        wanted = verify_records.ranges(ids, bounds.since_ms, bounds.until_ms, before)
        due = (bounds.since_ms, bounds.until_ms)
        async for page in verify_records.pages(self._db, "executions", verify_records.spanning_range(wanted), due):
            records = [r for d in page if (r := look.read(d)) is not None]
            look.owed.update((r.id, r) for r in await verify_records.with_batch_listing(self._db, records))
        look.order = sorted(look.owed)
        look.ids = list(ids)
        async for page in verify_records.pages(self._db, "history", wanted, due):
            for d in page:
                look.final(d)
        look.finish()
        return look


class _Look:
    """One look at a few jobs: history in order, merged with what is owed."""

    def __init__(
        self, jobs: dict[str, VerifiedJob], bounds: Bounds, early: dict[str, list[MissedRecord]], compared: int
    ) -> None:
        self.owed: dict[str, Record] = {}
        self.order: list[str] = []
        self.ids: list[str] = []
        self.findings: list[Finding] = []
        self.unjudged: set[str] = set()
        self.tally = VerifyCounts()
        self._kept: Counter[FindingKind] = Counter()
        self._jobs = jobs
        self._bounds = bounds
        self._early = early
        self._compared = compared
        self._at = 0
        self._next_job = 0
        self._judge: JobVerifier | None = None
        self._name: str | None = None

    def tell(self, finding: Finding) -> None:
        """A finding that no judge made."""
        self.tally.findings[finding.kind] += 1
        self._found(finding)

    def _found(self, finding: Finding) -> None:
        self._kept[finding.kind] += 1
        if self._kept[finding.kind] <= self._compared:
            self.findings.append(finding)

    @property
    def full(self) -> set[FindingKind]:
        """The kinds of which there may be more than are kept here."""
        return {kind for kind, n in self._kept.items() if n >= self._compared}

    def keep(self, known: set[tuple[FindingKind, str]], full: set[FindingKind]) -> None:
        """Forget what was not found before; of these kinds, or where it is too much to be compared, nothing."""
        full |= self.full
        self._only([f for f in self.findings if f.kind in full or (f.kind, f.execution) in known])

    def forget(self, jobs: set[str]) -> None:
        """Forget what was found of these jobs."""
        self._only([f for f in self.findings if f.job_id not in jobs])

    def _only(self, findings: list[Finding]) -> None:
        for f in self.findings:
            self.tally.findings[f.kind] -= 1
        for f in findings:
            self.tally.findings[f.kind] += 1
        self.findings = findings

    def read(self, d: Document) -> Record | None:
        """A document as a record; one that cannot be read is told."""
        name = str(d.get("_id"))
        where = parse_execution_id(name)
        if where is None:
            self.tell(Finding("unexpected", name.rpartition(":")[0] or name, name, "no execution has such an id"))
            return None
        try:
            return verify_records.record_from_document(d, where.due_ms)
        except Exception as exc:
            why = f"its document cannot be read: {type(exc).__name__}: {str(exc)[:200]}"
            self.tell(Finding("contradiction", where.job_id, name, why))
            return None

    def final(self, d: Document) -> None:
        """The next document of history."""
        name = d["_id"]
        self._owed_before(name)
        job, _, due = name.partition(":")
        judge = self._judge_of(job)
        if judge is None:
            return
        if due.endswith(":missed"):
            try:
                judge.add_missed(verify_records.missed_from_document(d))
            except Exception as exc:
                self.tell(Finding("contradiction", job, name, f"its document cannot be read: {type(exc).__name__}"))
            return
        owed = None
        if self._at < len(self.order) and self.order[self._at] == name:
            owed = self.owed[name]
            self._at += 1
        record = self.read(d)
        if record is not None:
            judge.check(record.due_ms, record, owed)
        elif len(due) == 13 and due.isdigit():
            judge.check(int(due), None, owed)

    def finish(self) -> None:
        """There is no more of these jobs."""
        self._owed_before(None)
        while self._next_job < len(self.ids):
            self._judge_of(self.ids[self._next_job])
        self._done()

    def _owed_before(self, name: str | None) -> None:
        """What is owed under smaller ids than this has nothing in history."""
        while self._at < len(self.order) and (name is None or self.order[self._at] < name):
            record = self.owed[self.order[self._at]]
            self._at += 1
            judge = self._judge_of(record.id.partition(":")[0])
            if judge is not None:
                judge.check(record.due_ms, None, record)

    def _done(self) -> None:
        if self._judge is not None:
            self._judge.finish()
            self.tally.add(self._judge.counts)
            self._judge = self._name = None

    def _judge_of(self, name: str) -> JobVerifier | None:
        """The judge of this job; every job before it, in order, is judged to its end first."""
        if name == self._name:
            return self._judge
        while self._next_job < len(self.ids) and f"{self.ids[self._next_job]}:" <= f"{name}:":
            job = self.ids[self._next_job]
            self._next_job += 1
            self._begin(job)
            if job == name:
                return self._judge
        self._begin(name)
        return self._judge

    def _begin(self, name: str) -> None:
        self._done()
        self._name = name
        if name in self.unjudged:
            return
        job = self._jobs.get(name)
        try:
            self._judge = JobVerifier(job or VerifiedJob(name, (), exists=False), self._bounds, self._found)
        except Exception as exc:
            why = f"{type(exc).__name__}: {str(exc)[:200]}"
            self.tell(Finding("contradiction", name, name, f"the job's schedule cannot be read: {why}"))
            return
        for r in self._early.get(name, ()):
            self._judge.add_missed(r)


def describe_counts(kinds: Iterable[str], tally: VerifyCounts) -> str:
    """Counts in words: `2 missing, 1 late`."""
    return ", ".join(f"{tally.findings[k]} {k}" for k in kinds if tally.findings[k])
