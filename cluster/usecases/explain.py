"""`explain`: why a job did or did not run at a time. This gathers the facts; `core.explain` says what they mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cluster.core.errors import NotFound
from cluster.core.explain.explain import explain, explain_not_due
from cluster.core.explain.facts import ClusterFacts, LeaderFacts, OccurrenceFacts, WindowFacts
from cluster.core.explain.timeline import ActivePeriod, active_periods, period_at
from cluster.core.lifecycle import JobState
from cluster.core.windows import HoldingWindow, Planned, Subject, decide
from cluster.store import leases, nodes, windows
from cluster.store.queries import explain_facts, jobs_and_executions

if TYPE_CHECKING:
    from cluster.core.execution.view import ExecutionView
    from cluster.core.explain.sentences import Explanation
    from cluster.core.job.definition import StoredJob
    from cluster.store.mongo.client import Database

ALIVE_MS = 5000
"""A node whose heartbeat is this young is alive."""
OWED_STATES = ("pending", "running", "retrying")
MAX_EXPLANATIONS = 5
HELD_MS = 1000
"""What left sooner than this after it was due was held by no window."""


@dataclass(frozen=True, slots=True)
class JobExplanation:
    """The explanation of a job at a time (`at_ms`), or of its last and next run (None)."""

    job_id: str
    state: str
    at_ms: int | None
    occurrences: tuple[Explanation, ...]


@dataclass(frozen=True, slots=True)
class _Case:
    """The job that is explained, and the facts that do not depend on the occurrence."""

    db: Database
    job: StoredJob
    periods: list[ActivePeriod]
    unsettled: bool
    cluster: ClusterFacts


async def explain_job(db: Database, job_id: str, at_ms: int | None, retention_days: float) -> JobExplanation:
    """Explain the occurrences of that second, or why there are none; without a time the last run and the next.

    Raises `NotFound` for a job that never existed, or whose tombstone was deleted.
    """
    stored = await explain_facts.job_and_periods(db, job_id)
    if stored is None:
        raise NotFound(f"there is no job '{job_id}', or it was deleted long ago")
    job, past, unsettled = stored
    cluster = await cluster_facts(db, job.definition.url, retention_days)
    case = _Case(db, job, active_periods(job, past), unsettled, cluster)
    explanations = await _last_and_next(case) if at_ms is None else await _at(case, at_ms)
    return JobExplanation(job.id, job.state.value, at_ms, tuple(explanations))


async def cluster_facts(db: Database, target: str, retention_days: float) -> ClusterFacts:
    """The state of the cluster, and of the breaker of the host of this URL."""
    leader = await leases.leadership(db)
    statuses, now_ms = await nodes.nodes_and_clock(db)
    url = urlsplit(target)
    host = (url.hostname or "").lower()
    port = url.port or (443 if url.scheme == "https" else 80)
    return ClusterFacts(
        now_ms=now_ms,
        leader=LeaderFacts(leader.node, leader.renewed_ms),
        nodes=frozenset(n.id for n in statuses if now_ms - n.seen_ms < ALIVE_MS),
        retention_days=retention_days,
        breaker=await explain_facts.breaker_of(db, (f"{host}:{port}", url.netloc.lower(), host)),
    )


async def _at(case: _Case, at_ms: int) -> list[Explanation]:
    """The occurrences of the second; if there is none, why, and the occurrence before it."""
    second = at_ms - at_ms % 1000
    now_ms = case.cluster.now_ms
    executions = await explain_facts.executions_between(case.db, case.job.id, second, second + 1000, now_ms)
    if executions:
        return [await _explain_execution(case, e, e.due_ms) for e in executions[:MAX_EXPLANATIONS]]
    period = period_at(case.periods, second)
    if not isinstance(period, ActivePeriod):
        return [explain_not_due(case.job, case.periods, at_ms, period, now_ms)]
    due = next(iter(period.parsed.between(second, second + 1000, 1)), None)  # of `@at`, within the second
    if due is not None and period.owes(due) and period.from_ms <= due:
        return [await _explain_due(case, period, due)]
    missed = None if due is None else await explain_facts.missed_at(case.db, case.job.id, due)
    if due is not None and missed is not None:
        return [await _explain_execution(case, missed, due)]
    explanations = [explain_not_due(case.job, case.periods, at_ms, period, now_ms)]
    before = period.last_before(second, now_ms)
    if before is not None and before >= period.from_ms:
        # The time that was asked for may be approximate, and this the occurrence that is meant.
        explanations += (await _at(case, before))[:MAX_EXPLANATIONS]
    return explanations


async def _explain_due(case: _Case, period: ActivePeriod, due_ms: int) -> Explanation:
    """An occurrence that has no execution of its own."""
    missed = await explain_facts.missed_at(case.db, case.job.id, due_ms)
    if missed is not None:
        return await _explain_execution(case, missed, due_ms)
    # The text may mean the same as the one that the key was made of.
    key = case.job.schedule_key if period.to_ms is None else period.parsed.key
    facts = OccurrenceFacts(
        due_ms,
        caught_up_to_ms=await explain_facts.catch_up_cursor(case.db, key, case.job.id, due_ms),
        written_to_ms=await explain_facts.scheduled_until(case.db, key),
        unsettled=case.unsettled,
    )
    # It may have been materialised between the readings.
    now_ms = case.cluster.now_ms
    executions = await explain_facts.executions_between(case.db, case.job.id, due_ms, due_ms + 1, now_ms)
    if executions:
        return await _explain_execution(case, executions[0], due_ms)
    return explain(case.job, case.periods, period, facts, case.cluster)


async def _explain_execution(case: _Case, execution: ExecutionView, due_ms: int) -> Explanation:
    period = next((p for p in case.periods if p.version == execution.schedule_version), None)
    facts = OccurrenceFacts(due_ms, execution)
    if execution.state in OWED_STATES:
        d = case.job.definition
        asked_ms = execution.due_ms if execution.trigger else None
        subject = Subject(d.tags, d.host, d.queue)
        batch = await explain_facts.batch_of(case.db, execution)
        awaited = await jobs_and_executions.exclusive_run(case.db, case.job.id) if batch and batch.waits else None
        facts = replace(
            facts,
            batch=batch,
            awaited=None if awaited == execution.id else awaited,
            window=await holding_window(case.db, subject, execution.send_ms, asked_ms, case.cluster.now_ms),
            limit=await explain_facts.limit_of(case.db, execution.id, d.queue, d.limits, case.job.id),
        )
    elif execution.attempts and not execution.trigger:
        facts = replace(facts, window=await _window_before(case, execution))
    if execution.state == "skipped":
        overlapping = await explain_facts.running_when_skipped(case.db, execution, case.cluster.now_ms)
        facts = replace(facts, overlapping=overlapping)
    return explain(case.job, case.periods, period, facts, case.cluster)


async def holding_window(
    db: Database, subject: Subject, send_ms: int, asked_ms: int | None, now_ms: int
) -> WindowFacts | None:
    """The window that holds an owed execution now. `asked_ms`: when it was asked for by hand. None: there is none."""
    planned = Planned(send_ms, send_ms, attempted=True, asked_ms=asked_ms)
    held = decide(await windows.present(db), subject, planned, now_ms)
    if not isinstance(held, HoldingWindow) or held.span.from_ms > now_ms:
        return None
    return WindowFacts(held.window.name, held.span.from_ms, held.span.to_ms)


async def _window_before(case: _Case, execution: ExecutionView) -> WindowFacts | None:
    """The window, as it was then, that held an execution until its first request."""
    due_ms, sent_ms = execution.due_ms, execution.attempts[0].sent_ms
    if sent_ms - due_ms < HELD_MS or execution.attempts_left_out:
        return None
    d = case.job.definition
    subject = Subject(d.tags, d.host, d.queue)
    for period in await windows.periods(case.db, due_ms):
        w = period.window
        span = w.span_at(due_ms) if w.mode == "hold" and w.concerns(subject) else None
        until_ms = None if span is None else span.to_ms if period.to_ms is None else min(span.to_ms, period.to_ms)
        if (
            span is not None
            and until_ms is not None
            and period.from_ms <= due_ms + HELD_MS
            and due_ms < until_ms <= sent_ms
        ):
            return WindowFacts(w.name, span.from_ms, until_ms)
    return None


async def _last_and_next(case: _Case) -> list[Explanation]:
    now_ms = case.cluster.now_ms
    period = period_at(case.periods, now_ms)
    explanations = await _last(case, period if isinstance(period, ActivePeriod) else None)
    if isinstance(period, ActivePeriod) and case.job.state is JobState.ACTIVE:
        following = period.parsed.next_after(max(now_ms, (period.start_ms or 0) - 1))
        if following is not None and period.owes(following):
            return [*explanations, await _explain_due(case, period, following)]
    return [*explanations, explain_not_due(case.job, case.periods, now_ms, period, now_ms)]


async def _last(case: _Case, period: ActivePeriod | None) -> list[Explanation]:
    """The last occurrence: the latest execution, or a later one that has none of its own."""
    now_ms = case.cluster.now_ms
    latest = await explain_facts.latest_execution(case.db, case.job.id, now_ms)
    before = None if period is None else period.last_before(now_ms, now_ms)
    if period is None or before is None or before < period.from_ms or (latest and latest.due_ms >= before):
        return [] if latest is None else [await _explain_execution(case, latest, latest.due_ms)]
    if latest and latest.last_ms is not None and latest.last_ms >= before:  # a missed range that covers it
        return [await _explain_execution(case, latest, before)]
    return [await _explain_due(case, period, before)]
