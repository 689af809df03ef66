"""A leader cranked through time, and one that dies at a write."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tests.support.engine import T0, Crank, rows, settle_all

if TYPE_CHECKING:
    import pytest

    from cluster.leader.leader import Leader
    from cluster.store.mongo.client import Database


async def due_of(db: Database, job_id: str) -> list[int]:
    """The due times owed by one job, in s after T0."""
    return [(int(e["due_at"]) - T0) // 1000 for e in await rows(db, "executions") if e["job_id"] == job_id]


async def crank(leader: Leader, clock: Crank, seconds: int) -> None:
    for _ in range(seconds * 2):
        clock.now += 500
        await settle_all(leader, clock)


class Crashed(BaseException):
    pass


def crash_after(monkeypatch: pytest.MonkeyPatch, module: str, name: str, nth: int) -> list[int]:
    """Make the nth call of a store function do its work and then never return: the process died there."""
    owner = importlib.import_module(f"cluster.store.{module}")
    real = getattr(owner, name)
    calls = [0]

    async def dying(*args: Any, **kwargs: Any) -> Any:
        result = await real(*args, **kwargs)
        calls[0] += 1
        if calls[0] == nth:
            raise Crashed
        return result

    monkeypatch.setattr(owner, name, dying)
    return calls
