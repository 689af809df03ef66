"""`explain`: why a job did or did not run at a time. Gathers the facts; what they mean is said in `core.explain`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cluster.core.errors import NotFound
from cluster.core.explain.explain import (
    ClusterFacts,
    Explanation,
    LeaderFacts,
    OccurrenceFacts,
    explain,
    explain_not_due,
)
from cluster.core.explain.timeline import ActivePeriod, active_periods, period_at
from cluster.core.lifecycle import JobState
from cluster.store import leases, nodes
from cluster.store.queries import explain_facts

if TYPE_CHECKING:
    from cluster.core.execution.view import ExecutionView
    from cluster.core.job.definition import StoredJob
    from cluster.store.mongo.client import Database

FRESH_MS = 5000
"""A heartbeat this young is a node that lives."""
OWED = ("pending", "running", "retrying")
MOST = 5


@dataclass(frozen=True, slots=True)
class JobExplanation:
    """What is known of a job at a time (`at_ms`), or of its last and next run (None)."""

    job_id: str
    state: str
    at_ms: int | None
    occurrences: tuple[Explanation, ...]


@dataclass(frozen=True, slots=True)
class _Case:
    db: Database
    job: StoredJob
    spans: list[ActivePeriod]
    unsettled: bool
    now: ClusterFacts


async def explain_job(db: Database, job_id: str, at_ms: int | None, retention_days: float) -> JobExplanation:
    """Explain the occurrences of that second, or why there are none; without a time the last run and the next.

    Raises `NotFound` for a job that never was, or whose tombstone has gone.
    """
    life = await explain_facts.job_and_periods(db, job_id)
    if life is None:
        raise NotFound(f"there is no job '{job_id}', or it was deleted long ago")
    job, past, unsettled = life
    case = _Case(db, job, active_periods(job, past), unsettled, await _cluster(db, job, retention_days))
    found = await _last_and_next(case) if at_ms is None else await _at(case, at_ms)
    return JobExplanation(job.id, job.state.value, at_ms, tuple(found))


async def _cluster(db: Database, job: StoredJob, retention_days: float) -> ClusterFacts:
    leader = await leases.leadership(db)
    present, now_ms = await nodes.nodes_and_clock(db)
    url = urlsplit(job.definition.url)
    host = (url.hostname or "").lower()
    port = url.port or (443 if url.scheme == "https" else 80)
    return ClusterFacts(
        now_ms,
        LeaderFacts(leader.node, leader.renewed_ms),
        frozenset(n.id for n in present if now_ms - n.seen_ms < FRESH_MS),
        retention_days,
        await explain_facts.breaker_of(db, (f"{host}:{port}", url.netloc.lower(), host)),
    )


async def _at(case: _Case, at_ms: int) -> list[Explanation]:
    second = at_ms - at_ms % 1000
    runs = await explain_facts.executions_between(case.db, case.job.id, second, second + 1000, case.now.now_ms)
    if runs:
        return [await _run(case, r, r.due_ms) for r in runs[:MOST]]
    held = period_at(case.spans, second)
    if (
        isinstance(held, ActivePeriod)
        and held.owes(second)
        and held.from_ms <= second
        and held.parsed.is_occurrence(second)
    ):
        return [await _due(case, held, second)]
    missed = await explain_facts.missed_at(case.db, case.job.id, second)
    if missed is not None and isinstance(held, ActivePeriod) and held.parsed.is_occurrence(second):
        return [await _run(case, missed, second)]
    found = [explain_not_due(case.job, case.spans, at_ms, held, case.now.now_ms)]
    before = held.last_before(second, case.now.now_ms) if isinstance(held, ActivePeriod) else None
    if isinstance(held, ActivePeriod) and before is not None and before >= held.from_ms:
        found += (await _at(case, before))[:MOST]  # what whoever asks for an approximate time means
    return found


async def _due(case: _Case, span: ActivePeriod, due_ms: int) -> Explanation:
    """An occurrence that has no execution of its own."""
    missed = await explain_facts.missed_at(case.db, case.job.id, due_ms)
    if missed is not None:
        return await _run(case, missed, due_ms)
    key = span.parsed.key
    asked = OccurrenceFacts(
        due_ms,
        caught_up_to_ms=await explain_facts.catch_up_cursor(case.db, key, case.job.id, due_ms),
        written_to_ms=await explain_facts.scheduled_until(case.db, key),
        unsettled=case.unsettled,
    )
    # It may have been written down between the two readings.
    runs = await explain_facts.executions_between(case.db, case.job.id, due_ms, due_ms + 1, case.now.now_ms)
    if runs:
        return await _run(case, runs[0], due_ms)
    return explain(case.job, case.spans, span, asked, case.now)


async def _run(case: _Case, run: ExecutionView, due_ms: int) -> Explanation:
    held = next((s for s in case.spans if s.version == run.schedule_version), None)
    asked = OccurrenceFacts(due_ms, run)
    if run.state in OWED:
        asked = replace(asked, batch=await explain_facts.batch_of(case.db, run))
    if run.state == "skipped":
        asked = replace(asked, overlapping=await explain_facts.running_when_skipped(case.db, run, case.now.now_ms))
    return explain(case.job, case.spans, held, asked, case.now)


async def _last_and_next(case: _Case) -> list[Explanation]:
    now_ms = case.now.now_ms
    found = []
    held = period_at(case.spans, now_ms)
    last = await explain_facts.latest_execution(case.db, case.job.id, now_ms)
    before = held.last_before(now_ms, now_ms) if isinstance(held, ActivePeriod) else None
    if (
        isinstance(held, ActivePeriod)
        and before is not None
        and before >= held.from_ms
        and (not last or last.due_ms < before)
    ):
        covers = last is not None and last.last_ms is not None and last.last_ms >= before
        found.append(await _run(case, last, before) if last and covers else await _due(case, held, before))
    elif last is not None:
        found.append(await _run(case, last, last.due_ms))
    if isinstance(held, ActivePeriod) and case.job.state is JobState.ACTIVE:
        following = held.parsed.next_after(max(now_ms, (held.start_ms or 0) - 1))
        if following is not None and held.owes(following):
            return [*found, await _due(case, held, following)]
    return [*found, explain_not_due(case.job, case.spans, now_ms, held, now_ms)]
