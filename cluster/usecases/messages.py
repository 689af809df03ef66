"""Messages: accept them, cancel them. `cluster/README.md` ("Messages") says why the order of the writes is safe."""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cluster.core.errors import Conflict, Fault, InvalidInput, NotFound
from cluster.core.execution.model import Ending
from cluster.core.execution.planning import plan_messages
from cluster.core.ids import execution_id, is_message, message_id, parse_execution_id
from cluster.core.job.message import DEDUP_MS
from cluster.core.lifecycle import State
from cluster.store import batches, channels, dedups, executions, history, messages
from cluster.store.dedups import Chosen, Dedup
from cluster.store.enqueue import repair_batches
from cluster.store.queries import leased_executions, message_states
from cluster.usecases.jobs import unknown_channel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.execution.model import Execution
    from cluster.core.job.message import NewMessage
    from cluster.store.mongo.client import Database

NODES = 2
"""Batches of one write are made so small that so many nodes get a share of them."""
RACES = 8
"""How often a cancellation looks again because the message moved meanwhile."""
CANCELLED = "it was cancelled before it was sent"
_OTHER_PAYLOAD = "was used with another message within 24 hours: use a new one"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A message that will be sent. `duplicate`: an earlier request with its `dedupId` had asked for it."""

    execution_id: str
    duplicate: bool = False

    @property
    def message_id(self) -> str:
        """The id of the message."""
        return self.execution_id.partition(":")[0]


def new_execution_id(m: NewMessage) -> str:
    """A fresh id of a message with its due time."""
    return execution_id(message_id(m.created_ms, secrets.randbits(80)), m.due_ms)


async def accept(
    db: Database, accepted: Sequence[tuple[NewMessage, str]], now_ms: int, lookahead_ms: int
) -> list[Accepted | InvalidInput]:
    """Write these messages, each with the execution id that was chosen for it. Safe to repeat. In the order given: the
    message, or why it is refused.
    """
    refused = await _without_channels(db, [m for m, _ in accepted])
    if refused:
        fine = [pair for n, pair in enumerate(accepted) if n not in refused]
        others = iter(await accept(db, fine, now_ms, lookahead_ms) if fine else ())
        return [refused[n] if n in refused else next(others) for n in range(len(accepted))]
    chosen = await _choose(db, accepted, now_ms)
    results: list[Accepted | InvalidInput] = []
    to_write: dict[str, NewMessage] = {}
    met: dict[str, NewMessage] = {}
    taken: set[str] = set()
    for (m, own_id), c in zip(accepted, chosen, strict=True):
        if c is None and m.passed:
            results.append(InvalidInput(m.passed))
            continue
        if c is not None and c.digest != m.digest:
            results.append(InvalidInput([Fault("dedupId", _OTHER_PAYLOAD)]))
            continue
        name = own_id if c is None else c.execution_id
        results.append(Accepted(name, duplicate=name != own_id or name in taken))
        (to_write if name == own_id else met).setdefault(name, m)
        taken.add(name)
    if met:
        known = await message_states.known_ids(db, met)
        to_write |= {name: m for name, m in met.items() if name not in known}
        # The request that wrote it may have died before it inserted the batch; its caller asks again with the `dedupId`.
        await repair_batches(db, [e for e in (await executions.owed(db, known)).values() if not e.cancelled])
    await _write(db, [messages.execution_of(db, m, name) for name, m in to_write.items()], now_ms, lookahead_ms)
    return results


async def _without_channels(db: Database, accepted: Sequence[NewMessage]) -> dict[int, InvalidInput]:
    """By their place, the messages with a callback to a channel that does not exist."""
    callbacks = {n: c for n, m in enumerate(accepted) if (c := m.definition.callbacks)}
    names = {c.channel for of_one in callbacks.values() for c in of_one.values() if c.channel is not None}
    if not names:
        return {}
    existing = await channels.existing_names(db, names)
    refused: dict[int, InvalidInput] = {}
    for n, of_one in callbacks.items():
        faults = [
            unknown_channel(f"{name}.channel", c.channel)
            for name, c in of_one.items()
            if c.channel is not None and c.channel not in existing
        ]
        if faults:
            refused[n] = InvalidInput(faults)
    return refused


async def _choose(db: Database, accepted: Sequence[tuple[NewMessage, str]], now_ms: int) -> list[Chosen | None]:
    """What counts for the `dedupId` of each message; None: it has none."""
    wanted: dict[str, Dedup] = {}
    for m, name in accepted:
        if m.dedup_id is not None and not m.passed:  # twice in one write: the first counts, as if it had come before
            wanted.setdefault(m.dedup_id, Dedup(m.dedup_id, m.digest, name, now_ms + DEDUP_MS))
    stored = dict(zip(wanted, await dedups.reserve(db, list(wanted.values()), now_ms), strict=True))
    late = {m.dedup_id for m, _ in accepted if m.passed and m.dedup_id is not None and m.dedup_id not in stored}
    if late:  # only the repetition of a request that was accepted may come so late: it chooses nothing
        stored |= await dedups.counting(db, late, now_ms)
    return [None if m.dedup_id is None else stored.get(m.dedup_id) for m, _ in accepted]


async def _write(db: Database, owed: Sequence[Execution], now_ms: int, lookahead_ms: int) -> None:
    """Insert the executions that are due within the look-ahead and then their batches, and the others as waiting."""
    soon = [e for e in owed if e.due_ms <= now_ms + lookahead_ms]
    await messages.insert(db, [e for e in owed if e.due_ms > now_ms + lookahead_ms])
    if not soon:
        return
    plan = plan_messages(soon, NODES, lambda: uuid.uuid4().hex, now_ms)
    existed = await executions.insert(db, plan.executions)
    await batches.insert(db, plan.batches)
    if existed:  # this request, or another with the same `dedupId`, may have died before it inserted the batch
        await repair_batches(db, (await executions.owed(db, existed)).values())


async def cancel(db: Database, name: str, now_ms: int, retention_days: float) -> None:
    """Cancel a message that was not sent: it will not be. Safe to repeat. Raises `NotFound`, or `Conflict` if it is too late.

    The execution is the arbiter: it is taken out of its batch, or inserted as taken if the message waits. Then history has
    the record, and only then the documents go; so an insert that comes late meets the record.
    """
    for _ in range(RACES):
        # In the order in which a message moves, so that it is found.
        waiting = await message_states.waiting(db, name)
        owed = await message_states.owed(db, name)
        if owed is None and waiting is not None:
            taken = replace(waiting, batch=_no_batch(), cancelled=True)
            if await executions.insert(db, [taken]):
                continue  # the leader was first
            final = await message_states.final_state(db, taken.id)
            if final not in (None, State.CANCELLED):  # it was sent, and all of it is over since it was read as waiting
                await executions.delete_cancelled(db, taken.id)
                raise _too_late(name, str(final))
            await _record(db, taken, now_ms, retention_days)
            return
        if owed is None:
            await _require_cancelled(db, name)
            return
        if not owed.cancelled:
            if owed.attempts or owed.replayed_ms is not None or await leased_executions.may_be_sent(db, owed):
                raise _too_late(name, "being sent" if not owed.attempts else "sent, and retried")
            if not await executions.take_unsent(db, owed, _no_batch()):
                continue
        await _record(db, owed, now_ms, retention_days)
        return
    raise Conflict(f"message '{name}' is just being moved: try again, or read what became of it")


def _no_batch() -> str:
    """The name of a batch that does not exist, and that no other writer chooses."""
    return f"cancelled-{uuid.uuid4().hex}"


async def _record(db: Database, taken: Execution, now_ms: int, retention_days: float) -> None:
    """The rest of a cancellation, once the execution is taken. Whoever finds it taken may repeat this."""
    days = None if taken.message is None else taken.message.get("retention_days")
    taken = (await executions.with_large_bodies(db, [taken])).get(taken.id, taken)
    ending = Ending(execution=taken, state=State.CANCELLED, ended_ms=now_ms, reason=CANCELLED, retention_days=days)
    await history.record(db, [ending], retention_days)
    await messages.delete(db, [taken.id])
    await executions.delete_cancelled(db, taken.id)


async def _require_cancelled(db: Database, name: str) -> None:
    """Raises unless the message is in history as cancelled."""
    found = await message_states.recorded(db, name)
    if found is None:
        raise NotFound(f"there is no message '{name}', or its retention has ended")
    if found != State.CANCELLED:
        raise _too_late(name, found)


def _too_late(name: str, what: str) -> Conflict:
    return Conflict(f"message '{name}' is {what}: only a message that no node has sent or holds can be cancelled")


def message_of(execution: str) -> str | None:
    """The id of the message whose execution this is; None: it is of a job."""
    parts = parse_execution_id(execution)
    return parts.job_id if parts is not None and is_message(parts.job_id) else None
