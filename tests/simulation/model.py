"""The store's functions in memory, as the steps call them, each with the faults that a database has.

Every function here bears the name of its twin in `cluster.store`, takes the same arguments and gives the same answer;
`test_model.py` compares both with a real MongoDB. In addition, others may run before and after it takes effect, and it
may end in "not applied, and error", "applied, but error" or "applied later, and error now". A write of many
documents may also stop half way, as MongoDB's may.
"""

from __future__ import annotations

import asyncio
import types
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from cluster.core.election import LeaderLease
from cluster.core.errors import OutcomeUnknown, StoreUnavailable
from cluster.core.lifecycle import SENT_FINAL, FinalResult, State, replaces
from cluster.core.timings import ASKED_BY_ALL_MS, PREFETCH_MS
from cluster.store.batches import OVERDUE_MS
from cluster.store.history import Recorded
from cluster.store.mongo.upcoming import Upcoming

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence

    from cluster.core.execution.follow_up import ChainedJob
    from cluster.core.execution.model import Attempt, Batch, Ending, Execution, JobSchedule
    from cluster.core.limits.permits import Permits
    from cluster.core.windows import Window, WindowPeriod
    from cluster.store.backfills import Backfill
    from cluster.store.batches import ClaimFilter
    from cluster.store.dedups import Chosen
    from cluster.store.deferred_batches import Pace
    from cluster.store.followed import FollowedJob
    from cluster.store.missed_ranges import MissedRange
    from cluster.store.mongo.client import Document
    from cluster.store.schedules import ScheduleRow


@types.coroutine
def turn(seconds: float = 0.0) -> Generator[float | None, None, None]:
    """Let others run; come back after so many seconds of virtual time. Serves `World.run` and `VirtualLoop`."""
    if asyncio._get_running_loop() is None:
        yield seconds
    elif seconds > 0.0:
        yield from asyncio.sleep(seconds).__await__()
    else:
        yield None


@dataclass(slots=True)
class Final:
    """A history document."""

    state: State
    version: str
    attempts: list[Attempt]
    reason: str | None = None
    unfollowed: bool = False
    ended_ms: int = 0
    reopened: bool = False
    """A replay was asked for; `state` is that of the result that it took back."""
    asked_ms: int = 0
    """When the last replay was asked for; 0: never."""

    @property
    def is_sent(self) -> bool:
        """Whether it is final after at least one attempt."""
        return self.state in SENT_FINAL and not self.reopened


@dataclass
class Store:
    """The documents. `fault` is asked once per call: None, "lost", "applied", "later" or "half"; `pause` is how long
    (s) the way there and the way back take.
    """

    now_ms: Callable[[], int]
    fault: Callable[[], str | None] = lambda: None
    pause: Callable[[], float] = lambda: 0.0
    executions: dict[str, Execution] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)
    floors: dict[str, int] = field(default_factory=dict)
    """Tokens above which the next claim of a batch has to begin."""
    history: dict[str, Final] = field(default_factory=dict)
    rows: dict[str, ScheduleRow] = field(default_factory=dict)
    jobs: list[JobSchedule] = field(default_factory=list)
    """Jobs that do not change."""
    documents: dict[str, Document] = field(default_factory=dict)
    """Jobs as they are kept, replaced whole by each change."""
    backfills: dict[str, Backfill] = field(default_factory=dict)
    missed: dict[str, MissedRange] = field(default_factory=dict)
    waiting: dict[str, Execution] = field(default_factory=dict)
    """Messages that are due later than the look-ahead."""
    dedups: dict[str, Chosen] = field(default_factory=dict)
    followed_jobs: dict[str, FollowedJob] = field(default_factory=dict)
    """The jobs that something follows; they do not change."""
    requests: dict[str, Document] = field(default_factory=dict)
    """Of messages, what history keeps of them."""
    chained_jobs: dict[str, list[ChainedJob]] = field(default_factory=dict)
    """By the job that they run after."""
    permits: dict[str, Permits] = field(default_factory=dict)
    windows: dict[str, Window] = field(default_factory=dict)
    past_windows: list[WindowPeriod] = field(default_factory=list)
    """What windows were before they were changed or deleted."""
    lease: LeaderLease = field(default_factory=lambda: LeaderLease(None, 0, 0))
    lease_at_ms: int = 0
    endings: dict[str, str] = field(default_factory=dict)
    postponed: list[Callable[[], Any]] = field(default_factory=list)
    writes: int = 0
    """Grows with whatever takes effect."""
    upcoming: Upcoming = field(default_factory=Upcoming)
    """Nothing is noted here: claimers find everything by looking."""

    def primary(self) -> None:
        """Which member is primary is not known."""

    async def read(self, effect: Callable[[], Any]) -> Any:
        """A query: a fault is an error and nothing else."""
        await turn(self.pause())
        if self.fault() is not None:
            raise StoreUnavailable("simulated")
        answer = effect()
        await turn(self.pause())
        return answer

    async def write(self, *effects: Callable[[], Any]) -> list[Any]:
        """A write of some documents, each changed atomically, all in order. The answers of each."""
        await turn(self.pause())
        fault = self.fault()
        if fault == "lost":
            raise StoreUnavailable("simulated: not applied")
        if fault == "later":
            self.postponed.extend(effects)
            raise OutcomeUnknown("simulated: applied later")
        if fault == "half":
            for effect in effects[: len(effects) // 2]:
                effect()
            self.writes += 1
            raise OutcomeUnknown("simulated: half applied")
        answers = [effect() for effect in effects]
        self.writes += 1
        await turn(self.pause())
        if fault == "applied":
            raise OutcomeUnknown("simulated: applied")
        return answers


# -- leases --------------------------------------------------------------------------------------------------------


async def lease_read(db: Store) -> LeaderLease:
    answer: LeaderLease = await db.read(lambda: db.lease)
    return answer


async def take_over(db: Store, seen: LeaderLease, holder: str, _node: str) -> bool:
    def effect() -> bool:
        if (db.lease.term, db.lease.rev) != (seen.term, seen.rev):
            return False
        db.lease, db.lease_at_ms = LeaderLease(holder, seen.term + 1, seen.rev + 1), db.now_ms()
        return True

    return bool((await db.write(effect))[0])


def _while_held(db: Store, holder: str, term: int, *, resign: bool) -> bool:
    if (db.lease.holder, db.lease.term) != (holder, term):
        return False
    db.lease = LeaderLease(None if resign else holder, term, db.lease.rev + 1)
    db.lease_at_ms = db.lease_at_ms if resign else db.now_ms()
    return True


async def lease_renew(db: Store, holder: str, term: int) -> bool:
    return bool((await db.write(lambda: _while_held(db, holder, term, resign=False)))[0])


async def resign(db: Store, holder: str, term: int) -> bool:
    return bool((await db.write(lambda: _while_held(db, holder, term, resign=True)))[0])


# -- executions ----------------------------------------------------------------------------------------------------


async def insert_executions(db: Store, executions: Sequence[Execution]) -> list[str]:
    def effect(e: Execution) -> bool:
        fresh = e.id not in db.executions
        db.executions.setdefault(e.id, e)
        return fresh

    if not executions:
        return []
    fresh = await db.write(*(lambda e=e: effect(e) for e in executions))
    return [e.id for e, new in zip(executions, fresh, strict=True) if not new]


async def read_executions(db: Store, ids: Sequence[str]) -> tuple[dict[str, Execution], dict[str, str]]:
    wanted = sorted(ids)  # a set's order would make one seed another run tomorrow
    return await db.read(lambda: {i: db.executions[i] for i in wanted if i in db.executions}), {}


async def owed(db: Store, ids: Sequence[str]) -> dict[str, Execution]:
    return (await read_executions(db, ids))[0]


def _change(db: Store, e: Execution, **changes: Any) -> bool:
    """Change it if it still carries this batch and token."""
    now = db.executions.get(e.id)
    if now is None or (now.batch, now.token) != (e.batch, e.token):
        return False
    db.executions[e.id] = replace(now, **changes)
    return True


def executions_stamp_filter(now: Execution, token: int) -> bool:
    """A stamp may take an execution that no node holds, or that is held under an older token or this one."""
    return now.owner is None or now.token <= token


async def stamp(db: Store, ids: Sequence[str], batch: str, owner: str, token: int) -> int:
    def effect(i: str) -> bool:
        now = db.executions.get(i)
        if now is None or now.batch != batch or not executions_stamp_filter(now, token):
            return False
        db.executions[i] = replace(now, state=State.LEASED, owner=owner, token=token)
        return True

    return sum(await db.write(*(lambda i=i: effect(i) for i in ids)))


async def remove(db: Store, held: dict[tuple[str, int], Sequence[str]]) -> int:
    def effect(i: str, batch: str, token: int) -> bool:
        now = db.executions.get(i)
        if now is None or (now.batch, now.token) != (batch, token):
            return False
        del db.executions[i]
        return True

    each = [(i, *key) for key, ids in held.items() for i in ids]
    return sum(await db.write(*(lambda x=x: effect(*x) for x in each))) if each else 0


async def fence_endings(db: Store, endings: Sequence[Execution], nonce: str) -> set[str]:
    def effect(e: Execution) -> bool:
        if not _change(db, e):
            return False
        db.endings[e.id] = nonce
        return True

    if not endings:
        return set()
    matched = await db.write(*(lambda e=e: effect(e) for e in endings))
    if all(matched):
        return {e.id for e in endings}
    mine = [e.id for e in endings]
    found: set[str] = await db.read(lambda: {i for i in mine if i in db.executions and db.endings.get(i) == nonce})
    return found


async def move(db: Store, moves: Sequence[Any], to: Mapping[str, str]) -> set[str]:
    def effect(m: Any) -> bool:
        state = State.RETRYING if m.attempts else State.PENDING
        now = db.executions.get(m.execution.id)
        made = () if now is None else (*now.attempts, *m.attempts[len(m.execution.attempts) :])
        name = to[m.execution.id]
        return _change(db, m.execution, batch=name, owner=None, send_ms=m.send_ms, state=state, attempts=made)

    if not moves:
        return set()
    matched = await db.write(*(lambda m=m: effect(m) for m in moves))
    ids = [m.execution.id for m in moves]
    if all(matched):
        return set(ids)
    found: set[str] = await db.read(lambda: {i for i in ids if i in db.executions and db.executions[i].batch == to[i]})
    return found


async def add_attempt(db: Store, execution: Execution) -> bool:
    def effect(a: Attempt) -> bool:
        now = db.executions.get(execution.id)
        if now is None or any(_same(a, b) for b in now.attempts):
            return False
        db.executions[execution.id] = replace(now, attempts=(*now.attempts, a))
        return True

    kept = [(await db.write(partial(effect, a)))[0] for a in execution.attempts]
    return any(kept)


# -- batches -------------------------------------------------------------------------------------------------------


async def insert_batches(db: Store, batches: Sequence[Batch]) -> None:
    def effect(b: Batch) -> None:
        there = db.batches.get(b.id)
        more = () if there is None else tuple(i for i in b.ids if i not in there.ids)
        db.batches[b.id] = b if there is None else replace(there, ids=there.ids + more)
        if there is not None:
            db.floors[b.id] = max(b.token, db.floors.get(b.id, 0))

    if batches:
        await db.write(*(lambda b=b: effect(b) for b in batches))


async def claim(db: Store, owner: str, lease_seconds: float, which: ClaimFilter, _timeout: float) -> Batch | None:
    def effect() -> Batch | None:
        now = db.now_ms()
        fit = [
            b
            for b in db.batches.values()
            if b.late == which.late
            and b.claimable_ms <= now + which.behind_ms
            and (
                b.claimable_ms <= now + which.behind_ms - which.patience_ms
                or b.send_ms <= now + which.behind_ms + ASKED_BY_ALL_MS
            )
            and not (which.soon_only and b.send_ms > now + which.behind_ms + PREFETCH_MS)
            and not (which.unowned_only and b.owner is not None)
            and b.host not in which.hosts_blocked
            and b.limit_key not in which.limits_saturated
            and not (which.max_claims is not None and b.claims > which.max_claims)
        ]
        if not fit:
            return None
        b = min(fit, key=lambda b: b.claimable_ms)
        until = now + int(lease_seconds * 1000)
        claimed = replace(
            b,
            owner=owner,
            token=max(b.token, db.floors.get(b.id, 0)) + 1,
            claims=b.claims + 1,
            claimable_ms=until,
            deferred=False,
            unclaimed=_stood_unclaimed(b, now, which.unclaimed_ms),
        )
        db.batches[b.id] = claimed
        return claimed

    answer: Batch | None = (await db.write(effect))[0]
    return answer


def _stood_unclaimed(b: Batch, now: int, unclaimed_ms: int | None) -> bool:
    if unclaimed_ms is None or b.claims or b.attempt:
        return False
    return _wanted_ms(b) < now - unclaimed_ms if b.unclaimed is None else b.unclaimed


def _wanted_ms(b: Batch) -> int:
    return max(b.claimable_ms, b.send_ms - PREFETCH_MS)


async def note_held_back(
    db: Store, hosts: Sequence[str], limits: Sequence[str], unclaimed_ms: int, since_ms: int
) -> int:
    def effect(b: Batch) -> bool:
        age = db.now_ms() - _wanted_ms(b)
        there = b.owner is None and not b.attempt and b.unclaimed is None and since_ms <= age <= unclaimed_ms
        fits = there and (b.host in hosts or b.limit_key in limits)
        if fits:
            db.batches[b.id] = replace(b, unclaimed=False)
        return fits

    return sum(await db.write(*(lambda b=b: effect(b) for b in sorted(db.batches.values(), key=lambda b: b.id))))


async def spread_late(db: Store, _field: str, _names: Sequence[str], _pace: Pace, _unclaimed_ms: int | None) -> int:
    """There are never as many batches in a simulation as this takes."""
    return int(await db.read(lambda: 0))


async def bring_forward(db: Store, _field: str, _name: str, _max_batches: int, _max_executions: int) -> int:
    """Nothing is ever spread."""
    return int(await db.read(lambda: 0))


def held_still(db: Store, name: str, owner: str | None, token: int) -> Batch | None:
    b = db.batches.get(name)
    return b if b is not None and (b.owner, b.token) == (owner, token) else None


async def renew_batches(db: Store, owner: str, held: Sequence[tuple[str, int]], lease_seconds: float) -> set[str]:
    def effect(name: str, token: int) -> bool:
        b = held_still(db, name, owner, token)
        if b is not None:
            db.batches[name] = replace(b, claimable_ms=db.now_ms() + int(lease_seconds * 1000))
        return b is not None

    pairs = list(held)
    mine = await db.write(*(lambda x=x: effect(*x) for x in pairs))
    return {name for (name, _), ours in zip(pairs, mine, strict=True) if not ours}


async def release(db: Store, batch: Batch, claimable_ms: int | None, *, nothing_sent: bool = False) -> bool:
    def effect() -> bool:
        b = held_still(db, batch.id, batch.owner, batch.token)
        if b is None:
            return False
        b = replace(b, owner=None, claimable_ms=db.now_ms() if claimable_ms is None else claimable_ms)
        if nothing_sent:
            late = b.late or b.send_ms <= db.now_ms() - OVERDUE_MS
            b = replace(b, claims=max(0, batch.claims - 1), deferred=claimable_ms is not None, late=late)
            held_back = claimable_ms is not None and claimable_ms > batch.send_ms
            b = replace(b, unclaimed=True if batch.unclaimed else False if held_back else None)
        db.batches[b.id] = b
        return True

    return bool((await db.write(effect))[0])


async def finish(db: Store, done: Sequence[Batch]) -> set[str]:
    def effect(b: Batch) -> bool:
        there = held_still(db, b.id, b.owner, b.token)
        if there is not None and len(there.ids) == len(b.ids):
            del db.batches[b.id]
        return b.id not in db.batches

    if not done:
        return set()
    gone = await db.write(*(lambda b=b: effect(b) for b in done))
    return {b.id for b, left in zip(done, gone, strict=True) if not left}


async def listed(db: Store, ids: Sequence[str]) -> dict[str, set[str]]:
    wanted = list(ids)
    found: dict[str, set[str]] = await db.read(lambda: {i: set(db.batches[i].ids) for i in wanted if i in db.batches})
    return found


# -- history -------------------------------------------------------------------------------------------------------


def _same(a: Attempt, b: Attempt) -> bool:
    return (a.number, a.node, a.token, a.sent_ms) == (b.number, b.node, b.token, b.sent_ms)


async def record(db: Store, endings: Sequence[Ending], _retention_days: float) -> Recorded:
    def effect(e: Ending) -> int:
        old = db.history.get(e.execution.id)
        x = e.execution
        ended_ms = max([e.ended_ms, *(a.sent_ms + int(a.duration_ms) for a in e.attempts)])
        if old is None:
            asked_ms = x.replayed_ms or 0
            db.history[x.id] = Final(
                e.state, x.schedule_version, list(e.attempts), e.reason, ended_ms=ended_ms, asked_ms=asked_ms
            )
            return 0
        extra = [a for a in e.attempts if not any(_same(a, b) for b in old.attempts)]
        merged = sorted([*old.attempts, *extra], key=lambda a: a.sent_ms)
        first = FinalResult(old.state, old.version, old.ended_ms)
        repeated = not extra and ended_ms == old.ended_ms
        again = FinalResult(e.state, x.schedule_version, ended_ms)
        better = not repeated and (old.reopened or replaces(again, first))
        state, version, reason = e.state, x.schedule_version, e.reason
        if not better:
            state, version, reason, ended_ms = old.state, old.version, old.reason, old.ended_ms
        unfollowed = old.unfollowed or (better and e.followed)
        asked_ms = max(old.asked_ms, x.replayed_ms or 0) if extra or better else old.asked_ms
        db.history[x.id] = Final(state, version, merged, reason, unfollowed, ended_ms, asked_ms=asked_ms)
        if better and e.followed:
            improved.append(x.id)
        return 1 if extra and old.is_sent else 0

    improved: list[str] = []
    if not endings:
        return Recorded()
    again = sum(await db.write(*(lambda e=e: effect(e) for e in endings)))
    return Recorded(again, tuple(improved))


async def settled(db: Store, versions: dict[str, str]) -> set[str]:
    def final(i: str) -> bool:
        there = db.history.get(i)
        return there is not None and (there.is_sent or (not there.reopened and there.version == versions[i]))

    found: set[str] = await db.read(lambda: set(filter(final, versions)))
    return found


async def recorded_ids(db: Store, versions: dict[str, str]) -> set[str]:
    def told(i: str) -> bool:
        there = db.history.get(i)
        return there is not None and (there.state in SENT_FINAL or there.reopened or there.version == versions[i])

    found: set[str] = await db.read(lambda: set(filter(told, versions)))
    return found


# -- schedules and jobs --------------------------------------------------------------------------------------------


async def due(
    db: Store, before_ms: int, limit: int, exclude: Sequence[str] = ()
) -> tuple[list[ScheduleRow], dict[str, str]]:
    def effect() -> list[ScheduleRow]:
        fit = [r for r in db.rows.values() if r.next_ms <= before_ms and r.key not in exclude]
        return sorted(fit, key=lambda r: r.next_ms)[:limit]

    return await db.read(effect), {}


async def stamp_rows(db: Store, keys: Sequence[str], term: Any) -> dict[str, ScheduleRow]:
    def effect(key: str) -> None:
        if key in db.rows and db.rows[key].term < term.number:
            db.rows[key] = replace(db.rows[key], term=term.number)

    await db.write(*(lambda k=k: effect(k) for k in keys))
    found: dict[str, ScheduleRow] = await db.read(lambda: {k: db.rows[k] for k in keys if k in db.rows})
    return found


async def advance(db: Store, moves: Sequence[tuple[ScheduleRow, int | None]], term: Any) -> int:
    def effect(row: ScheduleRow, next_ms: int | None) -> bool:
        there = db.rows.get(row.key)
        if there is None or (there.term, there.next_ms) != (term.number, row.next_ms):
            return False
        if next_ms is None:
            del db.rows[row.key]
        else:
            db.rows[row.key] = replace(there, next_ms=next_ms, unfinished=None)
        return True

    return sum(await db.write(*(lambda m=m: effect(*m) for m in moves))) if moves else 0


def at_once(call: Coroutine[Any, Any, Any]) -> Any:
    """The answer of a twin without other actors."""
    try:
        while True:
            call.send(None)
    except StopIteration as end:
        return end.value
