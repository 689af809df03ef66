"""Why a message has not been sent, where it is, or how it ended: facts in, sentences with times out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cluster.core.explain.explain import explain_recorded
from cluster.core.explain.facts import OccurrenceFacts
from cluster.core.explain.owed import leader_sentence
from cluster.core.explain.sentences import Explanation, Sentence, duration_text, ordered
from cluster.core.instants import format_instant

if TYPE_CHECKING:
    from cluster.core.execution.view import ExecutionView
    from cluster.core.explain.facts import BatchFacts, ClusterFacts, LimitFacts, WindowFacts

MOVING_MS = 5_000
"""The leader writes a message down some seconds before the look-ahead begins, so a message that waits is late only after that."""
_END = {"success": "onSuccess", "failure": "onFailure"}


@dataclass(frozen=True, slots=True)
class MessageFacts:
    """What the database holds about a message. `waits`: it is due later than the look-ahead, and is no execution yet.

    `cancelled`: a cancellation has taken it, and its record is still to be written. `callbacks`: for each callback the kind, to
    whom it goes, and its execution if there is one.
    """

    execution: ExecutionView
    waits: bool = False
    cancelled: bool = False
    created_ms: int | None = None
    expires_ms: int | None = None
    max_attempts: int = 5
    batch: BatchFacts | None = None
    window: WindowFacts | None = None
    limit: LimitFacts | None = None
    callbacks: tuple[tuple[str, str, ExecutionView | None], ...] = ()


def explain_message(facts: MessageFacts, now: ClusterFacts, lookahead_ms: int) -> Explanation:
    """Why the message has its present state."""
    e = facts.execution
    sentences = _accepted(facts, now.now_ms)
    if facts.cancelled:
        answer = Explanation(
            "cancelled",
            "It was cancelled before it was sent. Its record is about to be written.",
            (Sentence(None, "no node can claim it any more"),),
        )
    elif facts.waits:
        answer = _waiting(facts, now, lookahead_ms)
    elif e.state == "cancelled":
        answer = Explanation(
            e.state,
            f"It was not sent: {e.reason}.",
            (Sentence(e.ended_ms, f"it was recorded as cancelled: {e.reason}"),),
        )
    else:
        occurrence = OccurrenceFacts(e.due_ms, e, facts.batch, facts.window, facts.limit)
        answer = explain_recorded(facts.max_attempts, [], occurrence, e, now)
    return replace(
        answer,
        sentences=ordered([*sentences, *answer.sentences, *_callbacks(facts)]),
        due_ms=e.due_ms,
        execution=e.id,
    )


def _accepted(facts: MessageFacts, now_ms: int) -> list[Sentence]:
    e, created = facts.execution, facts.created_ms
    sentences = []
    if created is not None:
        when = "to be sent at once" if e.due_ms <= created else f"to be sent {duration_text(e.due_ms - created)} later"
        sentences.append(Sentence(created, f"it was accepted, {when}"))
    if created is None or e.due_ms > created:
        sentences.append(Sentence(e.due_ms, "it is due" if e.due_ms > now_ms else "it was due"))
    if facts.expires_ms is not None:
        sentences.append(Sentence(facts.expires_ms, "expiresAt: it is not sent, and not retried, after this"))
    return sentences


def _waiting(facts: MessageFacts, now: ClusterFacts, lookahead_ms: int) -> Explanation:
    due = facts.execution.due_ms
    written_ms = due - lookahead_ms
    if now.now_ms < written_ms + MOVING_MS:
        text = "the leader writes it down for the nodes at about this time; until then it can be cancelled"
        summary = f"It waits: it is due at {format_instant(due)}, in {duration_text(due - now.now_ms)}."
        return Explanation("pending", summary, (Sentence(written_ms, text),))
    text = "the leader should have written it down for the nodes by now; it does so as soon as there is one that works"
    late = f" It is {duration_text(now.now_ms - due)} late." if now.now_ms > due else ""
    summary = f"It waits: the leader has not written it down yet.{late}"
    return Explanation("pending", summary, (Sentence(written_ms, text), leader_sentence(now)))


def _callbacks(facts: MessageFacts) -> list[Sentence]:
    """Its callbacks: those that there are, and before its end those that there will be."""
    sentences = []
    ended = facts.execution.ended_ms is not None
    for kind, to, execution in facts.callbacks:
        if execution is not None:
            text = f"{_END[kind]}: {to} is told by the execution {execution.id}, which is {execution.state}"
            sentences.append(Sentence(execution.ended_ms, text))
        elif not ended:
            sentences.append(Sentence(None, f"{_END[kind]}: {to} will be told"))
    return sentences
