"""Writing what is owed: executions first, then the batches they name. The order is the protocol.

A crash in between leaves executions that name a batch which does not exist. The same step, run again, finds the executions
by their ids and inserts the missing batch under the id they name. So every caller may repeat the step from its start.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from cluster.core.errors import StoreUnavailable
from cluster.core.execution.batching import BatchOptions, in_portions, make_batch
from cluster.core.execution.model import FIRST_CLAIM
from cluster.core.execution.planning import MAX_BATCH, split_by_host
from cluster.core.limits.permits import sharing_key
from cluster.store import batches, claimable_batches, engine_jobs, executions, history

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from cluster.core.execution.model import Batch, Execution
    from cluster.store.mongo.client import Database

K = TypeVar("K")
CHUNK = 1000
"""Executions in one insert."""
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Enqueued:
    """What one call wrote: executions inserted, batches repaired, executions adopted from an older schedule."""

    inserted: int = 0
    repaired: int = 0
    adopted: int = 0


async def insert_owed(
    db: Database, planned: Sequence[Execution], planned_batches: Sequence[Batch], new_id: Callable[[], str]
) -> Enqueued:
    """Insert executions and then their batches, and repair what an interrupted writer left of the same.

    `planned` name their batches; `new_id` makes ids for batches of adopted executions. Safe to repeat. Raises
    `StoreUnavailable` if nodes kept changing the executions of an older schedule meanwhile.
    """
    total = Enqueued()
    for _ in range(ROUNDS):
        written, lost = await _insert_once(db, planned, planned_batches, new_id)
        total = Enqueued(
            total.inserted + written.inserted, total.repaired + written.repaired, total.adopted + written.adopted
        )
        if not lost:
            return total
        names = {b.id: new_id() for b in planned_batches}
        planned = [replace(e, batch=names[e.batch]) for e in planned if e.id in lost]
        planned_batches = [
            replace(b, id=names[b.id], ids=tuple(i for i in b.ids if i in lost)) for b in planned_batches
        ]
        planned_batches = [b for b in planned_batches if b.ids]
    raise StoreUnavailable(f"{len(planned)} executions of an older schedule kept changing hands")


async def _insert_once(
    db: Database, planned: Sequence[Execution], planned_batches: Sequence[Batch], new_id: Callable[[], str]
) -> tuple[Enqueued, set[str]]:
    """What was written, and the ids of executions that have to be written once more."""
    members: defaultdict[str, list[Execution]] = defaultdict(list)
    for e in planned:
        members[e.batch].append(e)
    existed: set[str] = set()
    for chunk in _chunks(planned_batches):
        duplicates = set(await executions.insert(db, [e for b in chunk for e in members[b.id]]))
        existed |= duplicates
        fresh = [_without(b, duplicates) for b in chunk]
        await batches.insert(db, [b for b in fresh if b.ids])
    if not existed:
        return Enqueued(len(planned)), existed
    wanted = {e.id: e for e in planned if e.id in existed}
    owed, unreadable = await executions.read_owed(db, existed)
    stale = [e for e in owed.values() if not wanted[e.id].trigger and _is_stale(e, wanted[e.id].schedule_version)]
    older = {e.id: e for e in await _older(db, stale, wanted)}
    late = {b.id for b in planned_batches if b.late}
    caught_up = {i for b in planned_batches if b.unclaimed is False for i in b.ids}
    # Before anything is adopted: what an interrupted adoption has left without its batches is what is to be sent first.
    repaired = await repair_batches(db, [e for e in owed.values() if e.id not in older], caught_up=caught_up)
    adopted = await _adopt(db, list(older.values()), wanted, late, new_id)
    unsure = (existed - owed.keys() - unreadable.keys()) | (older.keys() - adopted)
    lost, present = await _lost(db, {i: wanted[i].schedule_version for i in unsure})
    # Another leader adopted these since they were read. It may have died before their batches existed.
    repaired += await repair_batches(db, present, caught_up=caught_up)
    return Enqueued(len(planned) - len(existed), repaired, len(adopted)), lost


def _is_stale(e: Execution, version: str) -> bool:
    """Whether no node will send this execution for that schedule version. Triggered ones are sent under any version."""
    return e.schedule_version != version and not e.trigger


async def _lost(db: Database, versions: dict[str, str]) -> tuple[set[str], list[Execution]]:
    """Of executions that existed and could not be adopted, those that no node will send for the wanted version; and those
    that are owed under it now.

    An execution that is no longer owed is final. Usually it was sent. But a node may have cancelled it just then, because
    it met it under the older schedule, although the present schedule owes it. An execution that is still owed was moved
    to another batch just then, still under the older version.
    """
    if not versions:
        return set(), []
    owed = await executions.owed(db, versions)
    stale = {e.id for e in owed.values() if _is_stale(e, versions[e.id])}
    ended = {i: version for i, version in versions.items() if i not in owed}
    lost = stale | (ended.keys() - await history.final_ids(db, ended) if ended else set())
    return lost, [e for i, e in owed.items() if i not in stale]


def _chunks(planned_batches: Sequence[Batch]) -> Iterator[list[Batch]]:
    """The batches in order, about `CHUNK` executions at a time, so that those to be sent first are claimable first."""
    chunk: list[Batch] = []
    size = 0
    for batch in planned_batches:
        chunk.append(batch)
        size += len(batch.ids)
        if size >= CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _without(batch: Batch, ids: set[str]) -> Batch:
    return replace(batch, ids=tuple(i for i in batch.ids if i not in ids)) if ids else batch


async def _older(db: Database, stale: Sequence[Execution], wanted: Mapping[str, Execution]) -> list[Execution]:
    """Of executions that carry another schedule version than the wanted one, those whose version is the older one.

    Versions have no order. A caller that was suspended since it read the jobs may want a version that is outdated by now,
    and would take executions away from the present one. So the jobs are read after the executions were: if a job has the
    wanted version now, the version of its execution is older. The filter of the write catches what changes after that.
    """
    if not stale:
        return []
    now = await engine_jobs.schedule_versions(db, {e.job_id for e in stale})
    return [e for e in stale if now.get(e.job_id) == wanted[e.id].schedule_version]


async def _adopt(
    db: Database,
    older: Sequence[Execution],
    wanted: dict[str, Execution],
    late: Collection[str],
    new_id: Callable[[], str],
) -> set[str]:
    """Move executions of an older schedule to the present one, grouped as batches must be. `late`: ids of late batches.

    An execution that failed under the older schedule, just when the job was changed, keeps the time of its retry. Those to
    be sent first are moved first, many batches in each write: a job that runs every second has a batch for each.
    """
    adopted: set[str] = set()
    groups: defaultdict[tuple[int, bool, int, str], list[Execution]] = defaultdict(list)
    for e in older:
        plan, attempts = wanted[e.id], len(e.attempts)
        send_ms = e.send_ms if attempts else plan.send_ms
        groups[send_ms, plan.batch in late, attempts, sharing_key(plan.limit_key)].append(e)
    small = _small(groups, lambda e: wanted[e.id].host)
    for portion in in_portions(sorted(small, key=lambda g: g[0][0]), _size, CHUNK):
        named = [(key, new_id(), group) for key, group in portion]
        moving = [e for _, _, group in named for e in group]
        moved = await executions.adopt(db, moving, wanted, {e.id: name for _, name, group in named for e in group})
        if not moved:
            continue
        unclaimed = await _never_claimed(db, moving)
        made: list[Batch] = []
        for (send_ms, is_late, *_), name, group in named:
            members = [
                replace(wanted[e.id], batch=name, send_ms=send_ms, attempts=e.attempts)
                for e in sorted(group, key=lambda e: e.id)
                if e.id in moved
            ]
            if members:
                claims = _claimed_before(group) or int(_claimed_first(group, unclaimed))
                options = BatchOptions(
                    late=is_late, caught_up=is_late, token=max(e.token for e in group), claims=claims
                )
                made.append(make_batch(members, options))
        await batches.insert(db, made)
        adopted |= moved
    return adopted


def _size(group: tuple[K, Sequence[Execution]]) -> int:
    return len(group[1])


def _small(
    groups: Mapping[K, Sequence[Execution]], host: Callable[[Execution], str]
) -> Iterator[tuple[K, Sequence[Execution]]]:
    """The groups by host, in pieces that fit into a batch."""
    for key, group in groups.items():
        for share in split_by_host(group, host, MAX_BATCH):
            yield key, share


async def repair_batches(
    db: Database, owed: Iterable[Execution], claims: int = 0, *, caught_up: Collection[str] = ()
) -> int:
    """Make sure that every batch these executions name exists and lists them. Returns how many were missing.

    `claims` is how often the batch they were moving from was claimed, if that is known. Executions that were answered
    there start again at no claims; those that were split off, because they may kill nodes, keep the number.
    `caught_up`: ids of executions that catch-up wrote.

    It is not enough that a batch exists: two nodes may each find a part of one unfinished move, and the second one then
    meets the batch that the first one made.
    """
    by_batch: defaultdict[str, list[Execution]] = defaultdict(list)
    for e in owed:
        by_batch[e.batch].append(e)
    if not by_batch:
        return 0
    listed = await batches.executions_listed(db, by_batch)
    unlisted = [e for name, group in by_batch.items() for e in group if e.id not in listed.get(name, ())]
    if not unlisted:
        return 0
    # A batch may have ended, its executions with it, between the two reads: only executions that are owed now count.
    still_owed = await executions.owed(db, [e.id for e in unlisted])
    to_repair: defaultdict[str, list[Execution]] = defaultdict(list)
    for e in still_owed.values():
        if e.batch in by_batch:
            to_repair[e.batch].append(e)
    await batches.insert(db, [_rebuilt(group, claims, caught_up) for group in to_repair.values()])
    return len(to_repair.keys() - listed.keys())


def _rebuilt(group: Sequence[Execution], claims: int, caught_up: Collection[str]) -> Batch:
    answered = any(a.token == e.token for e in group for a in e.attempts)
    claims = 0 if answered else max(claims, _claimed_before(group))
    # Also executions of a first claim are stamped by the next one: this batch is not the one that they were written for.
    token = max(e.token for e in group)
    options = BatchOptions(claims=claims, token=token, caught_up=all(e.id in caught_up for e in group))
    return make_batch(group, options)


def _claimed_before(group: Sequence[Execution]) -> int:
    """1 if any of them was claimed: it may have been sent by a node that died, so `catchUp` must not call it missed.

    An execution of a first claim whose batch is missing was not claimed: a batch goes when nothing is left that names it.
    """
    return int(any(e.token and e.owner != FIRST_CLAIM for e in group))


async def _never_claimed(db: Database, adopted: Iterable[Execution]) -> set[str]:
    """Of the batches under whose first claim these executions were, before they were adopted, those without a claim.

    The batches are asked after the adoption: a claim that read an execution before it was adopted had counted by then.
    """
    names = {e.batch for e in adopted if e.owner == FIRST_CLAIM}
    return await claimable_batches.never_claimed(db, names) if names else set()


def _claimed_first(group: Sequence[Execution], never_claimed: Collection[str]) -> bool:
    """Whether a first claim may own any of these executions, whose batches were as they were read before the adoption."""
    return any(e.owner == FIRST_CLAIM and e.batch not in never_claimed for e in group)
