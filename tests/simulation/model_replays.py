"""The store's functions for replays, in memory: the twins that a replay by hand, and the leader's, call."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from cluster.core.execution.view import ExecutionView
from cluster.core.ids import parse_execution_id
from cluster.core.lifecycle import REPLAYABLE, JobState, State
from cluster.core.limits.permits import UNLIMITED
from tests.simulation.model import Final, Store

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cluster.store.replays import Replay


@dataclass
class ReplayStore(Store):
    """The documents, and a request to replay many."""

    replays: dict[str, Replay] = field(default_factory=dict)


async def get_execution(db: Store, name: str, _now_ms: int) -> ExecutionView | None:
    owed = await db.read(lambda: db.executions.get(name))
    final: Final | None = await db.read(lambda: db.history.get(name))
    parts = parse_execution_id(name)
    assert parts is not None
    view = ExecutionView(name, parts.job_id, "", parts.due_ms, parts.due_ms, (), trigger=True, schedule_version="")
    if final is not None and not final.reopened:
        ended_ms = final.ended_ms
        return replace(view, state=final.state.value, schedule_version=final.version, ended_ms=ended_ms)
    if owed is not None:
        return replace(view, state=owed.state.value, schedule_version=owed.schedule_version)
    return None if final is None else replace(view, state="retrying", ended_ms=final.ended_ms)


async def reopen(db: Store, name: str, now_ms: int, _retention_days: float) -> bool:
    return bool((await db.write(partial(_reopen, db, name, now_ms, again=True)))[0])


def _reopen(db: Store, name: str, now_ms: int, *, again: bool = False, before_ms: int | None = None) -> bool:
    f = db.history.get(name)
    if f is None or (before_ms is not None and f.ended_ms >= before_ms):
        return False
    if not (again if f.reopened else f.state in REPLAYABLE and not f.unfollowed):
        return False
    db.history[name] = replace(f, reopened=True, asked_ms=max(f.asked_ms, now_ms))
    return True


async def delete_ended(db: Store, ended: Mapping[str, tuple[int, str | None]]) -> int:
    def effect(name: str, ended_ms: int, version: str | None) -> bool:
        now = db.executions.get(name)
        if now is None or (now.replayed_ms is not None and now.replayed_ms >= ended_ms):
            return False
        if version is not None and now.schedule_version != version:
            return False
        del db.executions[name]
        return True

    return sum(await db.write(*(partial(effect, name, *ended[name]) for name in sorted(ended)))) if ended else 0


def _in_page(db: Store, replay: Replay, *, reopened: bool) -> dict[str, Final]:
    there = {i: db.history[i] for i in replay.page if i in db.history}
    return {
        i: f
        for i, f in there.items()
        if f.ended_ms < replay.created_ms and (f.reopened if reopened else not f.reopened and f.state in REPLAYABLE)
    }


async def ended_in_page(db: Store, replay: Replay) -> dict[str, tuple[int, str | None]]:
    found: dict[str, Final] = await db.read(lambda: _in_page(db, replay, reopened=False))
    return {i: (f.ended_ms, f.version if f.state is State.CANCELLED else None) for i, f in found.items()}


async def reopen_records(db: Store, replay: Replay, now_ms: int, _retention_days: float) -> None:
    await db.write(*(partial(_reopen, db, i, now_ms, before_ms=replay.created_ms) for i in replay.page))


async def reopened_in_page(db: Store, replay: Replay) -> list[tuple[str, str, int]]:
    found: dict[str, Final] = await db.read(lambda: _in_page(db, replay, reopened=True))
    return [(i, *_job_and_due(i)) for i in found]


def _job_and_due(name: str) -> tuple[str, int]:
    parts = parse_execution_id(name)
    assert parts is not None
    return parts.job_id, parts.due_ms


async def unfinished(db: Store, before_ms: int, limit: int) -> list[tuple[str, str, int, int]]:
    def effect() -> list[tuple[int, str]]:
        return sorted((f.asked_ms, i) for i, f in db.history.items() if f.reopened and f.asked_ms < before_ms)

    found = (await db.read(effect))[:limit]
    owed = await db.read(lambda: {i for _, i in found if i in db.executions})
    return [(i, *_job_and_due(i), asked_ms) for asked_ms, i in found if i not in owed]


async def next_due(db: ReplayStore) -> Replay | None:
    found: Replay | None = await db.read(lambda: next((r for r in db.replays.values() if not r.done), None))
    return found


async def save(db: ReplayStore, replay: Replay) -> Replay | None:
    saved = replace(replay, rev=replay.rev + 1, done=not replay.page)

    def effect() -> Replay | None:
        if db.replays[replay.id].rev != replay.rev:
            return None
        db.replays[replay.id] = saved
        return saved

    answer: Replay | None = (await db.write(effect))[0]
    return answer


async def requests_of(db: Store, ids: Collection[str]) -> dict[str, Mapping[str, Any]]:
    wanted = sorted(ids)
    found: dict[str, Mapping[str, Any]] = await db.read(
        lambda: {i: db.requests[i] for i in wanted if i in db.requests and i in db.history}
    )
    return found


async def request_of(db: Store, name: str) -> Mapping[str, Any] | None:
    return (await requests_of(db, [name])).get(name)


async def no_sizes(_db: Store, _ids: Collection[str]) -> dict[str, int]:
    """No body is large."""
    return {}


def _job(name: str) -> Any:
    """A job that does not change, as far as a replay reads it."""
    definition = SimpleNamespace(lane=0, host="t", queue=None, limits=UNLIMITED, retention_days=None)
    return SimpleNamespace(
        id=name, state=JobState.ACTIVE, created_ms=0, schedule_version="v1", definition=definition, anchor_ms=0
    )


async def get_job(db: Store, name: str) -> Any:
    return await db.read(lambda: _job(name))


async def get_jobs(db: Store, names: Collection[str], *, with_body: bool = True) -> dict[str, Any]:
    wanted = sorted(names)
    found: dict[str, Any] = await db.read(lambda: {name: _job(name) for name in wanted if with_body in (True, False)})
    return found


async def record_entry(db: Store, _entry: Any) -> None:
    """The audit log is not modelled."""
    await db.write(lambda: None)


def with_api_deadline(db: Store) -> Store:
    return db


COMPARED: dict[str, Any] = {
    "queries.jobs_and_executions.get_execution": get_execution,
    "history.reopen": reopen,
    "executions.delete_ended": delete_ended,
    "replayable.ended_in_page": ended_in_page,
    "replayable.reopen_records": reopen_records,
    "replayable.reopened_in_page": reopened_in_page,
    "replayable.unfinished": unfinished,
}
"""Those that `test_replaying_model.py` calls beside the real ones."""
TWINS: dict[str, Any] = COMPARED | {
    "queries.message_states.requests_of": requests_of,
    "queries.message_states.request_of": request_of,
    "queries.message_states.body_sizes": no_sizes,
    "replays.next_due": next_due,
    "replays.save": save,
    "jobs.get": get_job,
    "jobs.get_many": get_jobs,
    "audit.record": record_entry,
}
