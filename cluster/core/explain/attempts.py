"""The requests of one execution, told: what was sent when, by whom, and why once more.

A token grows by one at every claim and is carried on over moves, so a gap between two tokens is a claim that left no
result behind: its node died, froze, or handed the work back.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from cluster.core.explain.sentences import Sentence, duration_text

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from cluster.core.execution.model import Attempt
    from cluster.core.execution.view import ExecutionView

LATE_MS = 1000


def attempt_sentences(run: ExecutionView, nodes: AbstractSet[str], most: int) -> list[Sentence]:
    """A sentence for each request, and one between two that says why there was another."""
    if not run.attempts:
        return []
    attempts = sorted(run.attempts, key=lambda a: a.sent_ms)
    first = attempts[0]
    told = []
    if first.number == 1 and first.token > 1:
        told.append(Sentence(first.sent_ms, _unheard(first.token - 1)))
    told.append(_request(first, run.drift_ms, most))
    for a, b in pairwise(attempts):
        told.append(Sentence(b.sent_ms, _again(a, b, nodes)))
        told.append(_request(b, None, most))
    return told


def _request(a: Attempt, drift_ms: int | None, most: int) -> Sentence:
    late = f", {duration_text(drift_ms)} late" if drift_ms is not None and drift_ms >= LATE_MS else ""
    what = f"{a.node} sent attempt {a.number} of at most {max(most, a.number)} (token {a.token}){late}"
    if a.error is not None:
        detail = f" ({a.detail})" if a.detail else ""
        return Sentence(a.sent_ms, f"{what}; no answer after {duration_text(a.duration_ms)}: {a.error}{detail}")
    return Sentence(a.sent_ms, f"{what}; the target answered {a.status} after {duration_text(a.duration_ms)}")


def _unheard(claims: int) -> str:
    times = "once" if claims == 1 else f"{claims} times"
    return (
        f"before this it had been claimed {times} without a result: a node died or froze and its lease ended, or it handed "
        "the work back; if a request had left by then, the target saw it twice"
    )


def _again(a: Attempt, b: Attempt, nodes: AbstractSet[str]) -> str:
    if b.number > a.number:
        gap = b.token - a.token - 1
        waited = duration_text(max(0, b.sent_ms - a.sent_ms - a.duration_ms))
        text = f"retried {waited} after that, by the job's retry policy"
        return text if gap <= 0 else f"{text}; {_unheard(gap)}"
    if b.token <= a.token:
        return "somebody asked to send it again, with fresh attempts"
    gone = "" if a.node in nodes else ", which is no longer among the nodes,"
    if a.sent_ms + a.duration_ms > b.sent_ms:
        why = f"{a.node}{gone} was still waiting for its answer when its lease (token {a.token}) ended: it did not renew it"
    else:
        why = f"{a.node}{gone} had its answer but did not record it before its lease (token {a.token}) ended"
    return (
        f"delivered twice: {why}; {b.node} claimed the batch (token {b.token}) and sent it again under the same "
        "Idempotency-Key"
    )
