"""`explain` of a message: why it has not been sent, where it is, or how it ended. This gathers the facts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cluster.core.errors import NotFound
from cluster.core.execution.follow_up import FIELDS, kinds_told
from cluster.core.explain.messages import MessageFacts, explain_message
from cluster.core.ids import callback_id
from cluster.core.limits.permits import UNLIMITED
from cluster.core.targets import parse_target
from cluster.core.windows import Subject
from cluster.store.mongo.codec import instant
from cluster.store.queries import explain_facts, follow_up_pages, message_states
from cluster.usecases.explain import OWED_STATES, cluster_facts, holding_window

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cluster.core.execution.view import ExecutionView
    from cluster.core.explain.facts import ClusterFacts
    from cluster.core.explain.sentences import Explanation
    from cluster.store.mongo.client import Database
    from cluster.store.queries.message_states import MessageView

_DEFAULT_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class MessageExplanation:
    """The explanation of a message."""

    message_id: str
    answer: Explanation


async def explain(
    db: Database, message_id: str, now_ms: int, retention_days: float, lookahead_ms: int
) -> MessageExplanation:
    """Explain a message. Raises `NotFound` for one that there is not, or not any more."""
    view = await message_states.view(db, message_id, now_ms)
    if view is None:
        raise NotFound(
            f"there is no message '{message_id}': it was never accepted, or its record has expired "
            f"(kept for {retention_days:g} days after the end, unless its retentionDays says otherwise)"
        )
    request = view.request or {}
    cluster = await cluster_facts(db, request.get("url", ""), retention_days)
    facts = MessageFacts(
        execution=view.execution,
        waits=view.waits,
        created_ms=instant(request.get("created_at")),
        expires_ms=instant(request.get("expires_at")),
        max_attempts=(request.get("retry") or {}).get("max_attempts", _DEFAULT_ATTEMPTS),
        callbacks=await _callbacks(db, view, cluster.now_ms),
    )
    if view.execution.state in OWED_STATES and not view.waits:
        facts = await _owed(db, facts, request, cluster)
    return MessageExplanation(message_id, explain_message(facts, cluster, lookahead_ms))


async def _owed(db: Database, facts: MessageFacts, request: Mapping[str, Any], cluster: ClusterFacts) -> MessageFacts:
    e = facts.execution
    owed = await message_states.owed(replace(db, work=db.api), e.job_id)
    queue, url = request.get("queue"), request.get("url", "")
    subject = Subject(tuple(request.get("tags", ())), parse_target(url).host_port if url else "", queue)
    asked_ms = None if owed is None else owed.replayed_ms
    return replace(
        facts,
        cancelled=owed is not None and owed.cancelled,
        batch=await explain_facts.batch_of(db, e),
        window=await holding_window(db, subject, e.send_ms, asked_ms, cluster.now_ms),
        limit=await explain_facts.limit_of(db, e.id, queue, UNLIMITED, e.job_id),
    )


async def _callbacks(db: Database, view: MessageView, now_ms: int) -> tuple[tuple[str, str, ExecutionView | None], ...]:
    """Its callbacks. Of one that has succeeded the request is not kept, but the execution that told it is."""
    e, request = view.execution, view.request or {}
    there = {v.id: v for v in await follow_up_pages.of_execution(db, e, now_ms)}
    callbacks: list[tuple[str, str, ExecutionView | None]] = []
    for kind, field in FIELDS.items():
        execution = there.get(callback_id(e.id, kind, e.due_ms))
        if execution is not None or kind in kinds_told(request):
            callbacks.append((kind, _to(request.get(field)), execution))
    return tuple(callbacks)


def _to(callback: Mapping[str, Any] | None) -> str:
    if callback is None:
        return "its callback"
    return f"the channel '{callback['channel']}'" if "channel" in callback else str(callback["url"])
