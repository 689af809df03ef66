"""Writing down what is owed: executions first, then the batches they name. The order is the protocol.

A crash in between leaves executions that name a batch which does not exist; running the same step again finds them by
their ids and inserts the missing batch under the very id they name. So every caller may be repeated from its start.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from cluster.core.errors import StoreUnavailable
from cluster.core.execution.batching import BatchOptions, make_batch
from cluster.core.execution.planning import MAX_BATCH
from cluster.core.limits.permits import batch_limit_key
from cluster.store import batches, engine_jobs, executions, history

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from cluster.core.execution.model import Batch, Execution
    from cluster.store.mongo.client import Database

K = TypeVar("K")
CHUNK = 1000
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Enqueued:
    """What one call wrote: new executions, batches repaired, executions taken over from an older schedule."""

    inserted: int = 0
    repaired: int = 0
    adopted: int = 0


async def insert_owed(
    db: Database, planned: Sequence[Execution], planned_batches: Sequence[Batch], new_id: Callable[[], str]
) -> Enqueued:
    """Insert executions and then their batches, and repair what an interrupted writer left of the same.

    `planned` names its batches; `new_id` makes ids for batches of executions that are re-owned. Safe to repeat. Raises
    `StoreUnavailable` if nodes kept changing the executions of an older schedule meanwhile.
    """
    total = Enqueued()
    for _ in range(ROUNDS):
        done, lost = await _owe_once(db, planned, planned_batches, new_id)
        total = Enqueued(total.inserted + done.inserted, total.repaired + done.repaired, total.adopted + done.adopted)
        if not lost:
            return total
        names = {b.id: new_id() for b in planned_batches}
        planned = [replace(e, batch=names[e.batch]) for e in planned if e.id in lost]
        planned_batches = [
            replace(b, id=names[b.id], ids=tuple(i for i in b.ids if i in lost)) for b in planned_batches
        ]
        planned_batches = [b for b in planned_batches if b.ids]
    raise StoreUnavailable(f"{len(planned)} executions of an older schedule kept changing hands")


async def _owe_once(
    db: Database, planned: Sequence[Execution], its_batches: Sequence[Batch], new_id: Callable[[], str]
) -> tuple[Enqueued, set[str]]:
    """What was written, and the ids of what has to be written once more."""
    members: defaultdict[str, list[Execution]] = defaultdict(list)
    for e in planned:
        members[e.batch].append(e)
    existed: set[str] = set()
    for some in _chunks(its_batches):
        there = await executions.insert(db, [e for b in some for e in members[b.id]])
        existed.update(there)
        fresh = [_without(b, set(there)) for b in some]
        await batches.insert(db, [b for b in fresh if b.ids])
    if not existed:
        return Enqueued(len(planned)), existed
    wanted = {e.id: e for e in planned if e.id in existed}
    found, unreadable = await executions.read_owed(db, existed)
    stale = [e for e in found.values() if not wanted[e.id].trigger and _stale(e, wanted[e.id].schedule_version)]
    older = await _older(db, stale, wanted)
    late = {b.id for b in its_batches if b.late}
    reowned = await _reown(db, older, wanted, late, new_id)
    repaired = await repair_batches(db, [e for e in found.values() if e.id not in reowned])
    unsure = (existed - found.keys() - unreadable.keys()) | ({e.id for e in older} - reowned)
    lost = await _lost(db, {i: wanted[i].schedule_version for i in unsure})
    return Enqueued(len(planned) - len(existed), repaired, len(reowned)), lost


def _stale(e: Execution, version: str) -> bool:
    """Whether nobody will send this for that version. What was asked for by hand is sent under any."""
    return e.schedule_version != version and not e.trigger


async def _lost(db: Database, versions: dict[str, str]) -> set[str]:
    """Of executions that were there and could not be taken over, those that nobody will send for this version.

    One that is gone has ended. Usually it was sent; but a node that met it under the older schedule cancelled it just
    then, and the present schedule owes it still. Or it was moved to another batch just then, still under the older one.
    """
    if not versions:
        return set()
    there = await executions.owed(db, versions)
    moved = {e.id for e in there.values() if _stale(e, versions[e.id])}
    gone = {i: version for i, version in versions.items() if i not in there}
    return moved | (gone.keys() - await history.final_ids(db, gone) if gone else set())


def _chunks(its_batches: Sequence[Batch]) -> Iterator[list[Batch]]:
    """Batches in the order given, about `CHUNK` executions at a time: what is to be sent first is claimable first."""
    some: list[Batch] = []
    size = 0
    for batch in its_batches:
        some.append(batch)
        size += len(batch.ids)
        if size >= CHUNK:
            yield some
            some, size = [], 0
    if some:
        yield some


def _without(batch: Batch, ids: set[str]) -> Batch:
    return replace(batch, ids=tuple(i for i in batch.ids if i not in ids)) if ids else batch


async def _older(db: Database, found: Sequence[Execution], wanted: Mapping[str, Execution]) -> list[Execution]:
    """Of executions that carry another version than is wanted, those to which the wanted one is newer.

    Versions have no order. But whoever stood still since he read the jobs may want one that is over by now, and would
    take executions away from the present one. So the jobs are asked after the executions were read: if a job has the
    wanted version now, what its execution carries is older. What changes after that is caught by the write's filter.
    """
    if not found:
        return []
    now = await engine_jobs.schedule_versions(db, {e.job_id for e in found})
    return [e for e in found if now.get(e.job_id) == wanted[e.id].schedule_version]


async def _reown(
    db: Database,
    stale: Sequence[Execution],
    wanted: dict[str, Execution],
    late: Collection[str],
    new_id: Callable[[], str],
) -> set[str]:
    """Move executions of an older schedule to the present one, grouped as batches must be. `late`: batches planned so.

    What failed under the older one, in the moment in which the job was changed, is tried again when it was to be.
    """
    taken: set[str] = set()
    groups: defaultdict[tuple[int, bool, int, int, str, str | None], list[Execution]] = defaultdict(list)
    for e in stale:
        now, made = wanted[e.id], len(e.attempts)
        send_ms = e.send_ms if made else now.send_ms
        groups[now.lane, now.batch in late, made, send_ms, now.host, batch_limit_key(now.limit_key)].append(e)
    for (_, behind, _, send_ms, *_), group in _small(groups):
        name = new_id()
        mine = await executions.adopt(db, group, {e.id: wanted[e.id] for e in group}, name)
        if mine:
            members = [
                replace(wanted[e.id], batch=name, send_ms=send_ms, attempts=e.attempts)
                for e in sorted(group, key=lambda e: e.id)
                if e.id in mine
            ]
            options = BatchOptions(late=behind, token=max(e.token for e in group))
            await batches.insert(db, [make_batch(members, options)])
            taken |= mine
    return taken


def _small(groups: Mapping[K, Sequence[Execution]]) -> Iterator[tuple[K, Sequence[Execution]]]:
    """The groups in pieces that fit into a batch."""
    for key, group in groups.items():
        for start in range(0, len(group), MAX_BATCH):
            yield key, group[start : start + MAX_BATCH]


async def repair_batches(db: Database, owed: Iterable[Execution], claims: int = 0) -> int:
    """Make sure that every batch these executions name exists and lists them. Returns how many were missing.

    `claims` is how often the batch was claimed that they were moving from, if that is known. What was answered there
    begins anew; what was split, because it may kill nodes, does not.

    Existing is not enough: two nodes that find parts of one unfinished move each know of their part alone, and the
    second one meets the batch that the first one made.
    """
    by_batch: defaultdict[str, list[Execution]] = defaultdict(list)
    for e in owed:
        by_batch[e.batch].append(e)
    if not by_batch:
        return 0
    listed = await batches.executions_listed(db, by_batch)
    suspects = [e for name, group in by_batch.items() for e in group if e.id not in listed.get(name, ())]
    if not suspects:
        return 0
    # A batch may have ended, its executions with it, between the two reads: only what is owed now counts.
    still = await executions.owed(db, [e.id for e in suspects])
    again: defaultdict[str, list[Execution]] = defaultdict(list)
    for e in still.values():
        if e.batch in by_batch:
            again[e.batch].append(e)
    await batches.insert(db, [_rebuilt(group, claims) for group in again.values()])
    return len(again.keys() - listed.keys())


def _rebuilt(group: Sequence[Execution], claims: int) -> Batch:
    answered = any(a.token == e.token for e in group for a in e.attempts)
    return make_batch(group, BatchOptions(claims=0 if answered else claims))
