"""Why a job did or did not run: facts in, sentences with times out. Pure; `cluster.usecases.explain` gathers the facts.

Every sentence says only what the facts show. Where the records leave several causes open, the sentence names them all.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cluster.core.explain.attempts import attempt_sentences
from cluster.core.explain.sentences import Sentence, duration_text, local_time_text
from cluster.core.explain.timeline import ActivePeriod, IdlePeriod, schedule_changes, schedule_text
from cluster.core.instants import format_instant
from cluster.core.lifecycle import JobState

if TYPE_CHECKING:
    from cluster.core.execution.view import ExecutionView
    from cluster.core.job.definition import StoredJob

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class LeaderFacts:
    """The leader as the database knows it. Instants in ms."""

    node: str | None = None
    renewed_ms: int | None = None


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """The batch an owed execution names. Instants in ms."""

    id: str
    owner: str | None
    token: int
    claims: int
    claimable_ms: int
    late: bool


@dataclass(frozen=True, slots=True)
class BreakerFacts:
    """The breaker of the job's host, if it is not closed. Instants in ms."""

    host: str
    opened_ms: int
    until_ms: int
    why: str


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What is the case now, whatever is asked about."""

    now_ms: int
    leader: LeaderFacts = field(default_factory=LeaderFacts)
    nodes: frozenset[str] = frozenset()
    """Nodes whose heartbeat is fresh."""
    retention_days: float = 7.0
    breaker: BreakerFacts | None = None


@dataclass(frozen=True, slots=True)
class OccurrenceFacts:
    """One occurrence that is asked about, and what the database has on it."""

    due_ms: int
    execution: ExecutionView | None = None
    """Also a range of missed ones that covers it."""
    batch: BatchFacts | None = None
    overlapping: ExecutionView | None = None
    """The run that was under way when this one was skipped."""
    caught_up_to_ms: int | None = None
    """It lies in a range that is being caught up, which has come so far."""
    written_to_ms: int | None = None
    """Everything before this instant has been written down for its schedule; None: the schedule has no row."""
    unsettled: bool = False
    """The leader has not looked at the job's last change yet."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer for one occurrence. `state` is the execution's, or `notDue`, `paused`, `absent`, `ahead`, `expired`,
    `waiting`, `unknown`.
    """

    state: str
    summary: str
    sentences: tuple[Sentence, ...] = ()
    due_ms: int | None = None
    execution: str | None = None


def explain_not_due(
    job: StoredJob, spans: list[ActivePeriod], at_ms: int, held: ActivePeriod | IdlePeriod, now_ms: int
) -> Explanation:
    """Nothing was due at `at_ms`: why."""
    if isinstance(held, IdlePeriod):
        return _gap(job, held, at_ms)
    before = held.last_before(at_ms, now_ms)
    schedule = held.parsed
    following = schedule.next_after(at_ms)
    told = [Sentence(held.from_ms, f"`{schedule_text(held)}` held from then on")]
    if held.start_ms is not None and at_ms < held.start_ms:
        told.append(Sentence(held.start_ms, "its startAt: nothing is owed before"))
    if held.end_ms is not None and at_ms > held.end_ms:
        told.append(Sentence(held.end_ms, "its endAt: nothing is owed after"))
        following = None
    if before is not None:
        told.append(Sentence(before, "the last occurrence before"))
    if following is not None:
        told.append(Sentence(following, "the next occurrence after"))
    told += [Sentence(at, text) for at, text in schedule_changes(spans, at_ms - DAY_MS, at_ms + DAY_MS)]
    if held.owes(at_ms) and schedule.is_occurrence(at_ms):
        why = "the change or resumption that made it owe took effect just after"
    elif not held.owes(at_ms):
        why = "that lies outside its startAt and endAt"
    else:
        why = f"its schedule `{schedule_text(held)}` has no occurrence then"
    return Explanation("notDue", f"It was not due at {format_instant(at_ms)}: {why}.", _ordered(told))


def _gap(job: StoredJob, gap: IdlePeriod, at_ms: int) -> Explanation:
    told = []
    if gap.from_ms is None:
        if at_ms < job.created_ms:
            told.append(Sentence(job.created_ms, "the job was created"))
            return Explanation("absent", f"The job did not exist at {format_instant(at_ms)}.", tuple(told))
        if gap.to_ms is not None:
            told.append(Sentence(gap.to_ms, "it began to owe what its schedule says"))
        return Explanation(
            "absent",
            f"At {format_instant(at_ms)} the job owed nothing yet, or what it owed then is no longer kept.",
            tuple(told),
        )
    lasting = gap.to_ms is None
    deleted = lasting and job.state is JobState.DELETED
    told.append(Sentence(gap.from_ms, "the job was deleted" if deleted else "the job was paused"))
    if lasting and job.state_reason:
        told.append(Sentence(None, f"the reason given: {job.state_reason}"))
    if gap.to_ms is not None:
        recreated = job.created_ms > gap.from_ms
        told.append(Sentence(gap.to_ms, "it was made anew" if recreated else "it was resumed, and owes from then on"))
    what = "deleted" if deleted else "paused"
    return Explanation(
        what,
        f"The job was {what} at {format_instant(at_ms)}: it owed nothing, and nothing is caught up for that.",
        tuple(told),
    )


def explain(
    job: StoredJob, spans: list[ActivePeriod], span: ActivePeriod | None, asked: OccurrenceFacts, now: ClusterFacts
) -> Explanation:
    """One occurrence that was due, or a run that was asked for."""
    run = asked.execution
    told: list[Sentence] = []
    if run is not None and run.trigger and run.due_ms % 1000:
        told.append(Sentence(run.due_ms, "somebody asked for this run, whatever the schedule says"))
    elif span is not None:
        told.append(
            Sentence(
                asked.due_ms, f"it was due by `{schedule_text(span)}`{local_time_text(asked.due_ms, span.timezone)}"
            )
        )
    else:
        told.append(Sentence(asked.due_ms, "it was due by a schedule that is no longer kept"))
    found = _unrecorded(asked, now, told) if run is None else _recorded(job, spans, asked, run, now)
    return replace(
        found,
        sentences=_ordered([*told, *found.sentences]),
        due_ms=asked.due_ms,
        execution=None if run is None else run.id,
    )


def _ordered(told: list[Sentence]) -> tuple[Sentence, ...]:
    """By time; what has none stays where it is, at the end."""
    return tuple(sorted(told, key=lambda s: (s.at_ms is None, s.at_ms or 0)))


def _recorded(
    job: StoredJob, spans: list[ActivePeriod], asked: OccurrenceFacts, run: ExecutionView, now: ClusterFacts
) -> Explanation:
    told = _spread(run)
    told += attempt_sentences(run, now.nodes, job.definition.retry.max_attempts)
    ended = run.ended_ms
    if run.state == "succeeded":
        late = "" if run.drift_ms is None or run.drift_ms < 1000 else f", {duration_text(run.drift_ms)} late"
        times = "at the first attempt" if len(run.attempts) == 1 else f"after {len(run.attempts)} requests"
        return Explanation(run.state, f"It ran and succeeded {times}{late}.", tuple(told))
    if run.state == "missed":
        return _missed(run, told)
    if run.state in ("failed", "dead"):
        told.append(Sentence(ended, f"it ended as {run.state}: {run.reason}"))
        word = "the target refused it" if run.state == "failed" else "it was given up"
        return Explanation(run.state, f"It did not succeed: {word} ({run.reason}).", tuple(told))
    if run.state == "cancelled":
        until = ended if ended is not None else run.due_ms
        told += [Sentence(at, text) for at, text in schedule_changes(spans, run.due_ms - DAY_MS, until + 1000)]
        told.append(Sentence(ended, f"a node was about to send it and did not: {run.reason}"))
        return Explanation(run.state, f"It was not sent: {run.reason}.", tuple(told))
    if run.state == "skipped":
        return _skipped(asked, run, told)
    return _owed(asked, run, now, told)


def _spread(run: ExecutionView) -> list[Sentence]:
    if run.trigger or run.send_ms <= run.due_ms or run.attempts[1:]:
        return []
    if run.state == "retrying":
        return [Sentence(run.send_ms, "it is to be sent again then")]
    by = duration_text(run.send_ms - run.due_ms)
    return [Sentence(run.send_ms, f"its send time: spreadSeconds sets it {by} behind the due time, always the same")]


def _missed(run: ExecutionView, told: list[Sentence]) -> Explanation:
    if run.count > 1 and run.last_ms is not None:
        until = f"{run.count} occurrences from then to {format_instant(run.last_ms)} were missed together"
        told.append(Sentence(run.due_ms, until))
    told.append(Sentence(run.ended_ms, f"the leader wrote them down as missed: {run.reason}"))
    return Explanation("missed", f"It was missed: {run.reason}.", tuple(told))


def _skipped(asked: OccurrenceFacts, run: ExecutionView, told: list[Sentence]) -> Explanation:
    other = asked.overlapping
    if other is not None and other.attempts:
        a = other.attempts[-1]
        told.append(Sentence(a.sent_ms, f"the run {other.id} was sent; it took {duration_text(a.duration_ms)}"))
    elif other is not None:
        told.append(Sentence(None, f"the run {other.id} is {other.state}"))
    told.append(Sentence(run.ended_ms, f"it was skipped, as `overlap: skip` asks: {run.reason}"))
    return Explanation(run.state, f"It was skipped: {run.reason}.", tuple(told))


def _owed(asked: OccurrenceFacts, run: ExecutionView, now: ClusterFacts, told: list[Sentence]) -> Explanation:
    batch, at = asked.batch, now.now_ms
    if batch is None:
        told.append(
            Sentence(None, "its batch does not exist: the sweep gives it one within a minute while somebody leads")
        )
        told.append(_leader(now))
        return Explanation(run.state, "It is owed, and nobody can claim it for the moment.", tuple(told))
    if now.breaker is not None and now.breaker.until_ms > at:
        b = now.breaker
        told.append(Sentence(b.opened_ms, f"the circuit breaker of {b.host} opened: {b.why}"))
        told.append(Sentence(b.until_ms, "the host is tried again then; what waits for it is late, not lost"))
        return Explanation(run.state, f"It waits: the circuit breaker of {b.host} is open.", tuple(told))
    if batch.owner is None:
        when = "can be claimed since then" if batch.claimable_ms <= at else "can be claimed from then on"
        kind = " as late work, behind what is due now" if batch.late else ""
        told.append(Sentence(batch.claimable_ms, f"its batch {batch.id} {when}{kind}; nobody holds it"))
        if batch.claimable_ms <= at:
            room = "no node lives" if not now.nodes else "no node has had room for it yet"
            return Explanation(run.state, f"It waits for a node: {room}.", tuple(told))
        return Explanation(run.state, f"It is owed and will be sent at {format_instant(run.send_ms)}.", tuple(told))
    alive = batch.owner in now.nodes
    told.append(
        Sentence(
            batch.claimable_ms,
            f"the lease of {batch.owner} on its batch {batch.id} (token {batch.token}, claimed {batch.claims} times) ends "
            "unless it is renewed",
        )
    )
    if not alive:
        told.append(
            Sentence(None, f"{batch.owner} has shown no heartbeat lately: another node takes over after the lease")
        )
        return Explanation(run.state, "Its node seems to be lost; it will be sent by another.", tuple(told))
    sending = "is sending it or about to" if run.send_ms <= at else "holds it and will send it at its time"
    return Explanation(run.state, f"{batch.owner} {sending}.", tuple(told))


def _leader(now: ClusterFacts) -> Sentence:
    if now.leader.node is None:
        return Sentence(now.leader.renewed_ms, "nobody leads since then")
    silent = "" if now.leader.node in now.nodes else ", which has shown no heartbeat lately"
    return Sentence(now.leader.renewed_ms, f"the last sign of the leader {now.leader.node}{silent}")


def _unrecorded(asked: OccurrenceFacts, now: ClusterFacts, told: list[Sentence]) -> Explanation:
    due = asked.due_ms
    if due > now.now_ms:
        told[0] = replace(told[0], text=told[0].text.replace("it was due", "it is due"))
        text = f"It lies ahead: due at {format_instant(due)}, in {duration_text(due - now.now_ms)}."
        if now.leader.node is None or now.leader.node not in now.nodes:
            return Explanation("ahead", text, (_leader(now),))
        return Explanation("ahead", text)
    if asked.caught_up_to_ms is not None:
        done = Sentence(asked.caught_up_to_ms, "catching up has come so far, the oldest first, behind what is due now")
        return Explanation(
            "waiting",
            "It was not written down in time, for want of a leader or by one that is behind; it is being caught up.",
            (done, _leader(now)),
        )
    if due < now.now_ms - now.retention_days * DAY_MS:
        days = f"{now.retention_days:g} days"
        return Explanation("expired", f"Results are kept for {days}; what became of this one is no longer known.")
    if asked.unsettled:
        text = "The leader has not looked at the job's last change yet; then it is written down."
        return Explanation("waiting", text, (_leader(now),))
    if asked.written_to_ms is None or asked.written_to_ms <= due:
        written = [] if asked.written_to_ms is None else [Sentence(asked.written_to_ms, "written down up to here")]
        return Explanation("waiting", "The leader has not written it down yet.", (*written, _leader(now)))
    return Explanation(
        "unknown",
        "It was owed, and there is no record of it: its retention may have been shorter, or this is a fault of Horae. "
        "`horae verify` looks for such.",
    )
