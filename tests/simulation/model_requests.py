"""The store's functions for actions and requested backfills, in memory. `test_asking_model.py` compares them with MongoDB."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cluster.core.lifecycle import State
from cluster.store import jobs
from cluster.store.mongo.encryption import NO_KEYS
from cluster.store.progress import RUNNING
from cluster.store.queries.action_targets import Targets
from tests.simulation.model import Store

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cluster.core.job.definition import JobChange
    from cluster.store.actions import Action
    from cluster.store.requested_backfills import RequestedBackfill


@dataclass
class AskedStore(Store):
    """The documents, and what was asked for."""

    actions: dict[str, Action] = field(default_factory=dict)
    pages: dict[str, list[str]] = field(default_factory=dict)
    asked: dict[str, RequestedBackfill] = field(default_factory=dict)
    changed: list[tuple[str, str]] = field(default_factory=list)
    """`(job, action)` of each change that an action has made."""


async def next_action(db: AskedStore) -> Action | None:
    def effect() -> Action | None:
        running = [a for a in db.actions.values() if a.state == RUNNING]
        return min(running, key=lambda a: (not a.page_ms, a.next_ms, a.created_ms), default=None)

    found: Action | None = await db.read(effect)
    return found


async def page_of(db: AskedStore, action: Action) -> list[str] | None:
    found: list[str] | None = await db.read(lambda: db.pages.get(f"{action.pages}:{action.page:08d}"))
    return found


async def save_action(db: AskedStore, action: Action) -> Action | None:
    saved = replace(action, rev=action.rev + 1)

    def effect() -> Action | None:
        if db.actions[action.id].rev != action.rev:
            return None
        db.actions[action.id] = saved
        return saved

    found: Action | None = (await db.write(effect))[0]
    return found


async def save_action_page(db: AskedStore, action: Action, done: Action) -> None:
    def effect() -> None:
        stored = db.actions[action.id]
        if (stored.page, stored.page_ms) == (action.page, action.page_ms):
            db.actions[action.id] = replace(
                done, rev=stored.rev + 1, state=stored.state, ended_ms=stored.ended_ms, patch=stored.patch
            )

    await db.write(effect)


async def delete_pages(db: AskedStore, pages: str) -> None:
    def effect() -> None:
        for name in [n for n in db.pages if n.startswith(f"{pages}:")]:
            del db.pages[name]

    await db.write(effect)


async def read_targets(db: AskedStore, action: Action, job_ids: Sequence[str]) -> Targets:
    def effect() -> Targets:
        there = {i: db.documents[i] for i in job_ids if i in db.documents}
        acted = {i for i, d in there.items() if d.get(jobs.ACTED_BY) == action.id}
        found = [
            jobs.stored_job(d)
            for i, d in there.items()
            if i not in acted and d["state"] in action.filter["states"] and int(d["created_at"]) <= action.created_ms
        ]
        return Targets(found, acted, set(job_ids) - acted - {j.id for j in found}, {}, [])

    targets: Targets = await db.read(effect)
    return targets


async def update_jobs(db: AskedStore, changes: Sequence[JobChange], *, action: str | None = None) -> bool:
    def effect(change: JobChange) -> bool:
        query, operations = jobs.update_of(change, NO_KEYS, action=action)
        d = db.documents.get(query["_id"])
        if d is None or d["revision"] != query["revision"]:
            return False
        past = operations.get("$push", {}).get("past", {"$each": []})["$each"]
        db.documents[d["_id"]] = {**d, **operations["$set"], "past": [*d["past"], *past]}
        if action is not None:
            db.changed.append((d["_id"], action))
        return True

    return all(await db.write(*(lambda c=c: effect(c) for c in changes))) if changes else True


async def recorded_requests(db: AskedStore, _ids: Sequence[str]) -> dict[str, str | None]:
    """The model's history does not keep who asked: nobody else triggers here."""
    found: dict[str, str | None] = await db.read(dict)
    return found


async def next_backfill(db: AskedStore) -> RequestedBackfill | None:
    def effect() -> RequestedBackfill | None:
        running = [b for b in db.asked.values() if b.state == RUNNING]
        return min(running, key=lambda b: (not b.page_ms, b.next_ms, b.created_ms), default=None)

    found: RequestedBackfill | None = await db.read(effect)
    return found


async def save_backfill(db: AskedStore, backfill: RequestedBackfill) -> RequestedBackfill | None:
    saved = replace(backfill, rev=backfill.rev + 1)

    def effect() -> RequestedBackfill | None:
        if db.asked[backfill.id].rev != backfill.rev:
            return None
        db.asked[backfill.id] = saved
        return saved

    found: RequestedBackfill | None = (await db.write(effect))[0]
    return found


async def save_backfill_page(db: AskedStore, backfill: RequestedBackfill) -> None:
    def effect() -> None:
        stored = db.asked[backfill.id]
        if stored.page_ms == backfill.page_ms and stored.page[:1] == backfill.page[:1]:
            sent = stored.sent + len(backfill.page)
            db.asked[backfill.id] = replace(stored, page=(), page_ms=0, sent=sent, rev=stored.rev + 1)

    await db.write(effect)


async def not_missed(db: AskedStore, ids: Sequence[str]) -> set[str]:
    found: set[str] = await db.read(
        lambda: {i for i in ids if i in db.history and db.history[i].state is not State.MISSED}
    )
    return found


async def reopen_missed(db: AskedStore, ids: Sequence[str], _asked_ms: int, _now_ms: int, _days: float) -> None:
    """What is reopened is open: the model keeps no record of it."""

    def effect(name: str) -> None:
        if name in db.history and db.history[name].state is State.MISSED:
            del db.history[name]

    await db.write(*(lambda i=i: effect(i) for i in ids))


async def delete_missed_ranges(db: AskedStore, backfill: RequestedBackfill, from_ms: int, until_ms: int) -> None:
    def effect() -> None:
        for name, m in list(db.missed.items()):
            within = from_ms <= m.first_ms and m.last_ms < until_ms
            if m.job_id == backfill.job_id and m.schedule_version == backfill.schedule_version and within:
                del db.missed[name]

    await db.write(effect)


async def owed_ids(db: AskedStore, ids: Collection[str]) -> set[str]:
    found: set[str] = await db.read(lambda: {i for i in ids if i in db.executions})
    return found


async def record_entry(db: AskedStore, _entry: Any) -> None:
    """The audit log is not modelled."""
    await db.write(lambda: None)


TWINS: dict[str, Any] = {
    "audit.record": record_entry,
    "actions.next_due": next_action,
    "actions.page_of": page_of,
    "actions.save": save_action,
    "actions.save_page": save_action_page,
    "actions.delete_pages": delete_pages,
    "queries.action_targets.read": read_targets,
    "queries.jobs_and_executions.recorded_requests": recorded_requests,
    "jobs.update_many": update_jobs,
    "requested_backfills.next_due": next_backfill,
    "requested_backfills.save": save_backfill,
    "requested_backfills.save_page": save_backfill_page,
    "requested_backfills.not_missed": not_missed,
    "requested_backfills.reopen_missed": reopen_missed,
    "requested_backfills.delete_missed_ranges": delete_missed_ranges,
    "executions.existing_ids": owed_ids,
}
