"""Why an execution that is owed has not been sent: what holds it, which node has it, or when one may claim it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.core.explain.sentences import Explanation, Sentence
from cluster.core.instants import format_instant

if TYPE_CHECKING:
    from cluster.core.execution.view import ExecutionView
    from cluster.core.explain.facts import BatchFacts, ClusterFacts, OccurrenceFacts

CLAIM_MS = 2_000
"""An execution that could be claimed for less long is not late: nodes claim it in their next turns."""


def explain_owed(
    facts: OccurrenceFacts, execution: ExecutionView, now: ClusterFacts, sentences: list[Sentence]
) -> Explanation:
    """The answer for an execution that is owed. `sentences`: what was said of it so far."""
    batch, breaker, state = facts.batch, now.breaker, execution.state
    window = facts.window
    if window is not None and (batch is None or batch.owner is None):
        until = format_instant(window.to_ms)
        sentences.append(Sentence(window.from_ms, f"the window '{window.name}' began"))
        sentences.append(Sentence(window.to_ms, "it ends, and what it held leaves soon after"))
        return Explanation(state, f"It waits: the window '{window.name}' holds it until {until}.", tuple(sentences))
    if batch is None:
        if now.now_ms - execution.send_ms < CLAIM_MS and not execution.attempts:
            summary = "It was requested just now and is about to be written for the nodes."
            return Explanation(state, summary, tuple(sentences))
        text = "its batch does not exist; the leader's sweep creates it within a minute"
        sentences += [Sentence(None, text), leader_sentence(now)]
        return Explanation(state, "It is owed, but no node can claim it at the moment.", tuple(sentences))
    if breaker is not None and breaker.until_ms > now.now_ms:
        sentences.append(Sentence(breaker.opened_ms, f"the circuit breaker of {breaker.host} opened: {breaker.why}"))
        text = "the host is probed then; executions that wait for it are late, not lost"
        sentences.append(Sentence(breaker.until_ms, text))
        return Explanation(state, f"It waits: the circuit breaker of {breaker.host} is open.", tuple(sentences))
    if facts.awaited is not None:
        sentences.append(Sentence(None, f"execution {facts.awaited} has not ended, and `overlap` is `skip`"))
        return Explanation(state, f"It waits for the end of execution {facts.awaited}.", tuple(sentences))
    limit = facts.limit
    if limit is not None and state != "running" and execution.send_ms <= now.now_ms and limit.is_used_up(now.now_ms):
        sentences.append(Sentence(None, f"{limit.whose} allows {limit.in_words()}; {limit.in_use(now.now_ms)}"))
        summary = f"It waits: the limit of {limit.whose} is used up. What waits for it is late, not lost."
        return Explanation(state, summary, tuple(sentences))
    if batch.owner is None:
        return _unclaimed(facts, batch, execution, now, sentences)
    text = (
        f"the lease of {batch.owner} on its batch {batch.id} (token {batch.token}, claimed {batch.claims} times) expires "
        "unless it is renewed"
    )
    sentences.append(Sentence(batch.claimable_ms, text))
    if batch.owner not in now.nodes:
        text = f"{batch.owner} has no recent heartbeat; another node takes over when the lease expires"
        sentences.append(Sentence(None, text))
        return Explanation(state, "Its node seems to be lost. Another node will send it.", tuple(sentences))
    sending = "is sending it or about to" if execution.send_ms <= now.now_ms else "holds it and will send it on time"
    under = "" if limit is None else f", as the limit of {limit.whose} allows"
    return Explanation(state, f"{batch.owner} {sending}{under}.", tuple(sentences))


def _unclaimed(
    facts: OccurrenceFacts, batch: BatchFacts, execution: ExecutionView, now: ClusterFacts, sentences: list[Sentence]
) -> Explanation:
    claimable = batch.claimable_ms <= now.now_ms
    if claimable and now.now_ms - max(batch.claimable_ms, execution.send_ms) < CLAIM_MS and now.nodes:
        sentences.append(Sentence(batch.claimable_ms, f"its batch {batch.id} can be claimed since then"))
        return Explanation(execution.state, "It is due now: a node claims it within a moment.", tuple(sentences))
    when = "since then" if claimable else "from then on"
    late = " as late work, after everything that is due now" if batch.late else ""
    sentences.append(
        Sentence(batch.claimable_ms, f"its batch {batch.id} can be claimed {when}{late}; no node holds it")
    )
    if claimable:
        why = "no node is alive" if not now.nodes else "no node has claimed it yet"
        return Explanation(execution.state, f"It waits for a node: {why}.", tuple(sentences))
    summary = f"It is owed and will be sent at {format_instant(execution.send_ms)}."
    if execution.send_ms < now.now_ms:
        by = "its host" if facts.limit is None else f"the limit of {facts.limit.whose}"
        summary = f"It was put off by {by}. A node takes it up again at {format_instant(batch.claimable_ms)}."
    return Explanation(execution.state, summary, tuple(sentences))


def leader_sentence(now: ClusterFacts) -> Sentence:
    """Who leads, and since when that is known."""
    leader = now.leader
    if leader.node is None:
        return Sentence(leader.renewed_ms, "no node leads" if leader.renewed_ms is None else "no node leads since then")
    silent = "" if leader.node in now.nodes else ", which has no recent heartbeat"
    return Sentence(leader.renewed_ms, f"the last renewal by the leader {leader.node}{silent}")
