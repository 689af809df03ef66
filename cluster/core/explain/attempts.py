"""The requests of one execution in sentences: which node sent which attempt when, and why there was another.

The token of an execution grows with every claim and is carried over moves. So a gap between two tokens is a claim without
a result: its node died, was frozen, or released the batch.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from cluster.core.execution.attempts_kept import KEEP_FIRST
from cluster.core.explain.sentences import Sentence, duration_text
from cluster.core.ids import is_message

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from cluster.core.execution.model import Attempt
    from cluster.core.execution.view import ExecutionView

LATE_MS = 1000
PART_MS = 100
"""Shorter parts of a lateness are not worth a word."""
_PARTS = {
    "written": "because it was written or put back late",
    "claimed": "until a node claimed it",
    "waited": "for a slot of its node",
    "held_back": "for its host or its limit",
    "sent": "until the request left",
}


def attempt_sentences(execution: ExecutionView, nodes: AbstractSet[str], max_attempts: int) -> list[Sentence]:
    """A sentence for each request, and one between two requests that says why there was another."""
    if not execution.attempts:
        return []
    attempts = sorted(execution.attempts, key=lambda a: a.sent_ms)
    first = attempts[0]
    whose = "message" if is_message(execution.job_id) else "job"
    sentences = []
    if first.number == 1 and first.token > 1:
        sentences.append(Sentence(first.sent_ms, _lost_claims(first.token - 1)))
    sentences.append(_request(first, execution.drift_ms, max_attempts))
    for place, (a, b) in enumerate(pairwise(attempts), 1):
        if execution.attempts_left_out and place == KEEP_FIRST:
            text = f"{execution.attempts_left_out} requests before this one are not stored any more"
            sentences.append(Sentence(b.sent_ms, text))
        else:
            sentences.append(Sentence(b.sent_ms, _why_another(a, b, nodes, whose)))
        sentences.append(_request(b, None, max_attempts))
    return sentences


def _request(a: Attempt, drift_ms: int | None, max_attempts: int) -> Sentence:
    late = f", {duration_text(drift_ms)} late{_parts(a)}" if drift_ms is not None and drift_ms >= LATE_MS else ""
    request = f"{a.node} sent attempt {a.number} of at most {max(max_attempts, a.number)} (token {a.token}){late}"
    took = duration_text(a.duration_ms)
    if a.error is not None:
        detail = f" ({a.detail})" if a.detail else ""
        answer = "no answer" if a.status is None else f"an answer {a.status} that broke off"
        return Sentence(a.sent_ms, f"{request}; {answer} after {took}: {a.error}{detail}")
    return Sentence(a.sent_ms, f"{request}; the target answered {a.status} after {took}")


def _parts(a: Attempt) -> str:
    parts = [f"{duration_text(ms)} {_PARTS[name]}" for name, ms in a.late._asdict().items() if ms >= PART_MS]
    return f" ({', '.join(parts)})" if parts else ""


def _lost_claims(claims: int) -> str:
    times = "once" if claims == 1 else f"{claims} times"
    return (
        f"before this it was claimed {times} without a result: the node released the batch, as it does for a window, a "
        "pause or a limit, or it died or was frozen until its lease expired; if it had sent a request, the target received "
        "the request twice"
    )


def _why_another(a: Attempt, b: Attempt, nodes: AbstractSet[str], whose: str) -> str:
    if b.number > a.number:
        claims = b.token - a.token - 1
        waited = duration_text(max(0, b.sent_ms - a.sent_ms - a.duration_ms))
        text = f"retried {waited} after that, by the {whose}'s retry policy"
        return text if claims <= 0 else f"{text}; {_lost_claims(claims)}"
    if b.token <= a.token:
        return "a replay was requested; its attempts are counted from 1"
    absent = "" if a.node in nodes else ", which is no longer among the nodes,"
    if a.sent_ms + a.duration_ms > b.sent_ms:
        why = f"{a.node}{absent} was waiting for the answer when its lease (token {a.token}) expired without renewal"
    else:
        why = f"{a.node}{absent} did not record the answer before its lease (token {a.token}) expired"
    return (
        f"delivered twice: {why}; {b.node} claimed the batch (token {b.token}) and sent it again under the same "
        "Idempotency-Key"
    )
