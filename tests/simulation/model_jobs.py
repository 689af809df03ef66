"""The rest of the store's functions in memory: jobs as documents, ranges to catch up, missed ranges, permits.

Jobs are kept as the very documents that the product writes and are read through its own codec, so that only the
database itself is modelled: filters, order, and what a write of many documents may leave undone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cluster.core.lifecycle import JobState, State
from cluster.core.limits.permits import Limits, Permits
from cluster.core.timings import ASKED_BY_ALL_MS, PREFETCH_MS
from cluster.core.windows import WindowPeriod
from cluster.store import jobs, pauses
from cluster.store.claimable_batches import NextClaimable
from cluster.store.engine_jobs import JobsById, JobSchedulePage
from cluster.store.job_calendars import TIMING_FIELDS
from cluster.store.mongo.codec import job_from_document
from cluster.store.mongo.encryption import NO_KEYS
from cluster.store.mongo.job_schedule_codec import job_schedule_from_document

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from cluster.core.execution.model import Batch, Execution, Job, JobSchedule
    from cluster.core.job.definition import JobChange, StoredJob
    from cluster.core.limits.permits import Permit
    from cluster.core.windows import Window
    from cluster.store.backfills import Backfill
    from cluster.store.calendars import Calendar
    from cluster.store.missed_ranges import MissedRange
    from cluster.store.mongo.client import Document
    from cluster.store.schedules import ScheduleRow
    from tests.simulation.model import Store

QUEUE_LIMITS = Limits(per_second=0.05)
"""Of every queue."""

# -- jobs, as they are defined -------------------------------------------------------------------------------------


async def job_one(db: Store, job_id: str) -> StoredJob | None:
    d: Document | None = await db.read(lambda: db.documents.get(job_id))
    return None if d is None else jobs.stored_job(d)


async def job_insert(db: Store, change: JobChange, links: Document | None = None) -> bool:
    def effect() -> bool:
        fresh = change.job.id not in db.documents
        db.documents.setdefault(change.job.id, jobs.new_document(change) | (links or {}))
        return fresh

    return bool((await db.write(effect))[0])


async def job_update(db: Store, change: JobChange, only: Sequence[str] | None = None) -> bool:
    query, operations = jobs.update_of(change, NO_KEYS, only)

    def effect() -> bool:
        d = db.documents.get(query["_id"])
        if d is None or d["revision"] != query["revision"]:
            return False
        past = operations.get("$push", {}).get("past", {"$each": []})["$each"]
        db.documents[d["_id"]] = {**d, **operations["$set"], "past": [*d["past"], *past][-jobs.MAX_PERIODS :]}
        return True

    return bool((await db.write(effect))[0])


def _pause_is_over(d: Document, now_ms: int) -> bool:
    until = (d.get("pause") or {}).get("until")
    return d["state"] == JobState.PAUSED and until is not None and int(until) <= now_ms


async def any_waiting(db: Store, now_ms: int) -> bool:
    return bool(
        await db.read(lambda: any("unsettled" in d or _pause_is_over(d, now_ms) for d in db.documents.values()))
    )


async def pauses_over(db: Store, now_ms: int, limit: int) -> list[StoredJob]:
    def over(d: Document) -> bool:
        return _pause_is_over(d, now_ms) and d["pause"]["version"] == d["schedule_version"]

    found: list[StoredJob] = await db.read(
        lambda: [jobs.stored_job(d) for _, d in sorted(db.documents.items()) if over(d)][:limit]
    )
    return found


async def pauses_end(db: Store, changes: Sequence[JobChange]) -> int:
    def effect(change: JobChange) -> bool:
        query, update = pauses._update(change)
        d = db.documents.get(query["_id"])
        if d is None or d["revision"] != query["revision"]:
            return False
        db.documents[d["_id"]] = {**d, **update["$set"]}
        return True

    return sum(await db.write(*(lambda c=c: effect(c) for c in changes)))


async def calendar_versions(db: Any) -> dict[str, str]:
    return dict(await db.read(lambda: {name: c.version for name, c in db.calendars.items()}))


async def calendar_one(db: Any, name: str) -> Calendar | None:
    found: Calendar | None = await db.read(lambda: db.calendars.get(name))
    return found


async def behind_calendar(
    db: Any, name: str, version: str, limit: int, exclude: Sequence[str] = ()
) -> tuple[list[StoredJob], dict[str, str]]:
    def effect() -> list[StoredJob]:
        named = [d for d in db.documents.values() if (d.get("calendar") or {}).get("name") == name]
        late = [d for d in named if d["calendar"]["version"] != version and d["state"] in ("active", "paused")]
        return [jobs.stored_job(d) for d in late if d["_id"] not in exclude][:limit]

    return list(await db.read(effect)), {}


async def write_timing(db: Any, written: Sequence[JobChange]) -> int:
    """Each is a write of its own, on the revision that was read."""
    count = 0
    for change in written:
        count += await job_update(db, change, TIMING_FIELDS)
    return count


async def windows_present(db: Store) -> list[Window]:
    found: list[Window] = await db.read(lambda: list(db.windows.values()))
    return found


async def windows_periods(db: Store, since_ms: int) -> list[WindowPeriod]:
    def found() -> list[WindowPeriod]:
        past = [p for p in db.past_windows if p.to_ms is None or p.to_ms >= since_ms]
        return [*past, *(WindowPeriod(w, 0, None) for w in db.windows.values())]

    periods: list[WindowPeriod] = await db.read(found)
    return periods


def put_window(db: Store, name: str, window: Window | None) -> None:
    """Create, replace or (None) delete a window: what it was is kept beside it."""
    before = db.windows.pop(name, None)
    if before is not None:
        db.past_windows.append(WindowPeriod(before, 0, db.now_ms()))
    if window is not None:
        db.windows[name] = window


# -- jobs, as the engine reads them --------------------------------------------------------------------------------


async def by_id(db: Store, ids: Iterable[str]) -> JobsById:
    wanted = sorted(ids)
    found: list[Job] = await db.read(lambda: [job_from_document(db.documents[i]) for i in wanted if i in db.documents])
    return JobsById({j.id: j for j in found})


async def _page(db: Store, fits: Callable[[Document], bool], limit: int, *, pasts: bool = False) -> JobSchedulePage:
    def effect() -> list[JobSchedule]:
        found = [d for _, d in sorted(db.documents.items()) if fits(d)][:limit]
        return [job_schedule_from_document(d if pasts else {**d, "past": []}) for d in found]

    page: list[JobSchedule] = await db.read(effect)
    return JobSchedulePage(page, page[-1].id if len(page) == limit else None)


async def owing(
    db: Store, keys: Sequence[str], limit: int, *, after: str | None = None, include_completed: bool = False
) -> JobSchedulePage:
    states = {JobState.ACTIVE, JobState.COMPLETED} if include_completed else {JobState.ACTIVE}
    if db.jobs:
        return JobSchedulePage(await db.read(lambda: [j for j in db.jobs if j.schedule_key in keys]))
    return await _page(
        db,
        lambda d: (
            d["schedule_key"] in keys
            and d["state"] in states
            and "unsettled" not in d
            and (after is None or d["_id"] > after)
        ),
        limit,
    )


async def owing_one(db: Store, job_id: str) -> JobSchedule | None:
    d: Document | None = await db.read(lambda: db.documents.get(job_id))
    return None if d is None else job_schedule_from_document({**d, "past": []})


async def owing_some(db: Store, job_ids: Collection[str]) -> dict[str, JobSchedule]:
    wanted = sorted(job_ids)
    found: dict[str, JobSchedule] = await db.read(
        lambda: {i: job_schedule_from_document(db.documents[i]) for i in wanted if i in db.documents}
    )
    return found


async def unsettled(db: Store, limit: int, exclude: Sequence[str] = ()) -> JobSchedulePage:
    return await _page(db, lambda d: "unsettled" in d and d["_id"] not in exclude, limit, pasts=True)


async def changing(db: Store, keys: Collection[str], since_ms: int, exclude: Sequence[str] = ()) -> list[str]:
    def fits(d: Document) -> bool:
        return any(p["key"] in keys and int(p["to"]) >= since_ms for p in d["past"])

    found: list[str] = await db.read(
        lambda: [i for i, d in db.documents.items() if "unsettled" in d and i not in exclude and fits(d)]
    )
    return found


async def pending(db: Store, ids: Collection[str]) -> list[JobSchedule]:
    return (await _page(db, lambda d: "unsettled" in d and d["_id"] in ids, len(ids) + 1, pasts=True)).jobs


async def not_paused(db: Store, ids: Collection[str]) -> set[str]:
    found: set[str] = await db.read(
        lambda: {i for i in ids if i in db.documents and db.documents[i]["state"] != JobState.PAUSED}
    )
    return found


async def wake(db: Store, job_ids: Sequence[str]) -> int:
    def effect(name: str) -> int:
        b, now = db.batches.get(name), db.now_ms()
        if b is None or b.owner is not None or not b.deferred or b.claimable_ms <= now or b.send_ms > now + PREFETCH_MS:
            return 0
        db.batches[name] = replace(b, claimable_ms=now, deferred=False)
        return 1

    names: list[str] = await db.read(lambda: sorted({e.batch for e in db.executions.values() if e.job_id in job_ids}))
    return sum(await db.write(*(lambda n=n: effect(n) for n in names))) if names else 0


async def versions(db: Store, ids: Collection[str]) -> dict[str, str]:
    wanted = sorted(ids)
    found: dict[str, str] = await db.read(
        lambda: {i: db.documents[i]["schedule_version"] for i in wanted if i in db.documents}
    )
    return found


async def settle(db: Store, changes: Sequence[str]) -> None:
    def effect(job_id: str) -> None:
        d = db.documents[job_id]
        if d.get("unsettled") in changes:
            db.documents[job_id] = {k: v for k, v in d.items() if k != "unsettled"}

    await db.write(*(lambda i=i: effect(i) for i in sorted(db.documents)))


async def begin_exclusive(db: Store, job_id: str, execution_id: str, instead_of: str | None) -> str | None:
    def effect() -> bool:
        d = db.documents.get(job_id)
        if d is None or d.get("running") not in (instead_of, execution_id):
            return False
        db.documents[job_id] = {**d, "running": execution_id}
        return True

    if (await db.write(effect))[0]:
        return execution_id
    found: str | None = await db.read(lambda: db.documents.get(job_id, {}).get("running"))
    return found


async def end_exclusive(db: Store, execution_ids: Sequence[str], job_ids: Sequence[str]) -> None:
    def effect(job_id: str) -> None:
        d = db.documents.get(job_id)
        if d is not None and d.get("running") in execution_ids:
            db.documents[job_id] = {**d, "running": None}

    await db.write(*(lambda i=i: effect(i) for i in sorted(set(job_ids))))


# -- ranges ----------------------------------------------------------------------------------------------------------


async def backfills_open(db: Store, *ranges: Backfill) -> None:
    def effect(b: Backfill) -> None:
        there = db.backfills.get(b.id)
        db.backfills[b.id] = b if there is None else replace(there, to_ms=max(there.to_ms, b.to_ms))

    await db.write(*(lambda b=b: effect(b) for b in ranges))


async def backfills_oldest(db: Store, exclude: Sequence[str] = ()) -> tuple[Backfill | None, dict[str, str]]:
    def effect() -> Backfill | None:
        fit = [b for b in db.backfills.values() if b.id not in exclude]
        uncounted = [b for b in fit if not b.missed_recorded]
        return uncounted[0] if uncounted else min(fit, key=lambda b: (b.cursor_ms, b.id), default=None)

    return await db.read(effect), {}


async def backfills_progress(db: Store, b: Backfill) -> None:
    def effect() -> None:
        there = db.backfills.get(b.id)
        if there is not None:
            db.backfills[b.id] = replace(b, to_ms=there.to_ms)

    await db.write(effect)


async def backfills_close(db: Store, b: Backfill) -> None:
    def effect() -> None:
        there = db.backfills.get(b.id)
        if there is not None and there.to_ms == b.to_ms:
            del db.backfills[b.id]

    await db.write(effect)


async def backfills_reached(db: Store, keys: Collection[str]) -> dict[tuple[str, str | None], int]:
    def effect() -> dict[tuple[str, str | None], int]:
        open_ = [b for b in db.backfills.values() if b.key in keys]
        of = {(b.key, b.job_id) for b in open_}
        return {o: min(b.cursor_ms for b in open_ if (b.key, b.job_id) == o) for o in of}

    found: dict[tuple[str, str | None], int] = await db.read(effect)
    return found


async def record_missed(db: Store, ranges: Iterable[MissedRange], _now_ms: int, _retention_days: float) -> None:
    def effect(r: MissedRange) -> None:
        there = db.missed.setdefault(f"{r.job_id}:{r.first_ms:013d}:missed", r)
        if there.last_ms < r.last_ms:
            longer = replace(there, last_ms=r.last_ms, count=max(there.count, r.count))
            db.missed[f"{r.job_id}:{r.first_ms:013d}:missed"] = longer

    some = list(ranges)
    if some:
        await db.write(*(lambda r=r: effect(r) for r in some))


async def missed(db: Store, job_ids: Collection[str], start_ms: int, end_ms: int) -> dict[str, list[tuple[int, int]]]:
    def effect() -> dict[str, list[tuple[int, int]]]:
        found: dict[str, list[tuple[int, int]]] = {}
        for m in db.missed.values():
            if m.job_id in job_ids and start_ms <= m.first_ms <= end_ms:
                found.setdefault(m.job_id, []).append((m.first_ms, m.last_ms))
        return found

    found: dict[str, list[tuple[int, int]]] = await db.read(effect)
    return found


async def rows_create(db: Store, rows: Iterable[ScheduleRow]) -> None:
    some = list(rows)
    if some:
        await db.write(*(lambda r=r: db.rows.setdefault(r.key, r) for r in some))


async def rows_known(db: Store, keys: Collection[str]) -> dict[str, ScheduleRow]:
    found: dict[str, ScheduleRow] = await db.read(lambda: {k: db.rows[k] for k in keys if k in db.rows})
    return found


async def reown(
    db: Store, stale: Sequence[Execution], wanted: Mapping[str, Execution], to: Mapping[str, str]
) -> set[str]:
    def effect(e: Execution) -> bool:
        now = db.executions.get(e.id)
        seen = (e.batch, e.token, e.schedule_version, len(e.attempts))
        if now is None or (now.batch, now.token, now.schedule_version, len(now.attempts)) != seen:
            return False
        version, state = wanted[e.id].schedule_version, State.RETRYING if e.attempts else State.PENDING
        send_ms = now.send_ms if e.attempts else wanted[e.id].send_ms
        changed = replace(now, schedule_version=version, batch=to[e.id], owner=None, state=state, send_ms=send_ms)
        db.executions[e.id] = changed
        db.endings.pop(e.id, None)
        return True

    if not stale:
        return set()
    matched = await db.write(*(lambda e=e: effect(e) for e in stale))
    ids = [e.id for e in stale]
    if all(matched):
        return set(ids)
    found: set[str] = await db.read(lambda: {i for i in ids if i in db.executions and db.executions[i].batch == to[i]})
    return found


# -- batches and permits ---------------------------------------------------------------------------------------------


async def strays(db: Store, owner: str) -> list[Batch]:
    found: list[Batch] = await db.read(lambda: [b for b in db.batches.values() if b.owner == owner])
    return found


async def never_claimed(db: Store, ids: Collection[str]) -> set[str]:
    wanted = list(ids)
    found: set[str] = await db.read(lambda: {i for i in wanted if i in db.batches and not db.batches[i].claims})
    return found


async def next_claimable(db: Store, patience_ms: int = 0) -> NextClaimable | None:
    def found() -> NextClaimable | None:
        held = db.batches.values()
        first = min(held, key=lambda b: b.claimable_ms, default=None)
        if first is None:
            return None
        if not patience_ms or first.send_ms <= first.claimable_ms:
            return NextClaimable(first.claimable_ms, db.now_ms())
        until = min(first.claimable_ms + patience_ms, max(first.claimable_ms, first.send_ms - ASKED_BY_ALL_MS))
        soon = min((max(b.claimable_ms, b.send_ms - ASKED_BY_ALL_MS) for b in held), default=until)
        if until > db.now_ms() and soon < until:
            return NextClaimable(soon, db.now_ms())
        return NextClaimable(until, db.now_ms(), until < first.send_ms - ASKED_BY_ALL_MS)

    seen: NextClaimable | None = await db.read(found)
    return seen


async def any_limited(db: Store, ids: Sequence[str]) -> bool:
    found: bool = await db.read(lambda: any(e.limit_key for i in ids if (e := db.executions.get(i)) is not None))
    return found


async def count_late(db: Store, limit: int) -> int:
    found: int = await db.read(lambda: sum(b.late and not b.deferred for b in db.batches.values()))
    return min(found, limit)


async def queue_limits(db: Store, _queue: str) -> Limits:
    limits: Limits = await db.read(lambda: QUEUE_LIMITS)
    return limits


async def permits_read(db: Store, gate: str) -> Permits:
    found: Permits = await db.read(lambda: db.permits.get(gate, Permits()))
    return found


async def permits_write(db: Store, gate: str, seen: Permits, then: Permits) -> bool:
    def effect() -> bool:
        if db.permits.get(gate, Permits()).rev != seen.rev:
            return False
        db.permits[gate] = replace(then, rev=seen.rev + 1)
        return True

    return bool((await db.write(effect))[0])


async def permits_give_back(db: Store, back: Iterable[Permit]) -> None:
    def effect(gate: str, mine: set[tuple[str, str | None]]) -> None:
        there = db.permits.get(gate, Permits())
        left = {i: mark for i, mark in there.granted.items() if not mark or (i, mark) not in mine}
        if len(left) < len(there.granted):
            db.permits[gate] = replace(there, granted=left, rev=there.rev + 1)

    by_gate: dict[str, set[tuple[str, str | None]]] = {}
    for p in back:
        if p.permit_id is not None:
            by_gate.setdefault(p.limit_key, set()).add((p.execution, p.permit_id))
    if by_gate:
        await db.write(*(lambda g=g, mine=mine: effect(g, mine) for g, mine in by_gate.items()))


async def permits_live(db: Store, ids: Collection[str]) -> set[str]:
    def leased(i: str) -> bool:
        e = db.executions.get(i)
        b = None if e is None else db.batches.get(e.batch)
        if e is None or b is None:
            return False
        return b.owner is not None and b.token == e.token and b.claimable_ms > db.now_ms()

    wanted = list(ids)
    found: set[str] = await db.read(lambda: {i for i in wanted if leased(i)})
    return found
