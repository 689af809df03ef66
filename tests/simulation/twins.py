"""Which function of the store each twin stands for, and how they take its place."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from cluster.core.errors import StoreUnavailable
from cluster.core.limits.circuit_breaker import Gate
from tests.simulation import model as m
from tests.simulation import model_jobs as j

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

TWINS: dict[str, dict[str, Any]] = {
    "leases": {
        "read": m.lease_read,
        "read_linearizable": m.lease_read,
        "take_over": m.take_over,
        "renew": m.lease_renew,
        "resign": m.resign,
    },
    "executions": {
        "insert": m.insert_executions,
        "read": m.read_executions,
        "owed": m.owed,
        "stamp": m.stamp,
        "remove": m.remove,
        "fence_endings": m.fence_endings,
        "move": m.move,
        "add_attempt": m.add_attempt,
        "reown": j.reown,
    },
    "batches": {
        "insert": m.insert_batches,
        "claim": m.claim,
        "renew": m.renew_batches,
        "release": m.release,
        "finish": m.finish,
        "listed": m.listed,
        "strays": j.strays,
        "count_late": j.count_late,
    },
    "history": {
        "record": m.record,
        "settled": m.settled,
        "known": j.known,
        "record_missed": j.record_missed,
        "missed": j.missed,
    },
    "schedules": {
        "due": m.due,
        "stamp": m.stamp_rows,
        "advance": m.advance,
        "create": j.rows_create,
        "known": j.rows_known,
    },
    "jobs": {"one": j.job_one, "insert": j.job_insert, "update": j.job_update},
    "definitions": {
        "by_id": j.by_id,
        "owing": j.owing,
        "owing_one": j.owing_one,
        "unsettled": j.unsettled,
        "settle": j.settle,
        "changing": j.changing,
        "versions": j.versions,
        "begin_exclusive": j.begin_exclusive,
        "end_exclusive": j.end_exclusive,
    },
    "backfills": {
        "open_": j.backfills_open,
        "oldest": j.backfills_oldest,
        "progress": j.backfills_progress,
        "close": j.backfills_close,
        "reached": j.backfills_reached,
    },
    "permits": {
        "read": j.permits_read,
        "write": j.permits_write,
        "give_back": j.permits_give_back,
        "live": j.permits_live,
    },
}
LOGGING = (
    "elect claim record materialise quarantine settle catchup leader worker results handback dispatch prepare lines "
    "unsent gates breakers tasks store.door"
)


class Luck:
    """Stands for the module `random`: each run draws from its own seed."""

    def __init__(self) -> None:
        self.source = Random(0)

    def random(self) -> float:
        return self.source.random()

    def uniform(self, low: float, high: float) -> float:
        return self.source.uniform(low, high)


LUCK = Luck()


class NoBreakers:
    """Breakers are not modelled: none ever opens."""

    def __init__(self, *_: Any) -> None:
        self.held: Callable[[], list[str]] = list

    def gate(self, _: str) -> Gate:
        return Gate.PASS

    def until_ms(self, _: str) -> None:
        """Until when it is open."""

    def note(self, *_: Any) -> None:
        """What came of a request."""

    async def step(self) -> set[str]:
        return set()


class Silent:
    """A log that says nothing."""

    def __getattr__(self, _: str) -> Any:
        return lambda *_, **__: None


async def _insist(write: Callable[[], Any], **_: Any) -> Any:
    while True:
        try:
            return await write()
        except StoreUnavailable:
            await m.turn(0.1)


def install(patch: pytest.MonkeyPatch) -> None:
    """Put the twins in the place of the store's functions, for the steps of this process."""
    for module, functions in TWINS.items():
        for name, function in functions.items():
            patch.setattr(f"cluster.store.{module}.{name}", function)
    for step in LOGGING.split():
        patch.setattr(f"cluster.{step}.log", Silent())
    for step in ("record", "results"):
        patch.setattr(f"cluster.{step}.insist", _insist)
    for step in ("worker", "results", "gates"):
        patch.setattr(f"cluster.{step}.random", LUCK)
    patch.setattr("cluster.worker.worker.Breakers", NoBreakers)
    patch.setattr("cluster.worker.worker.IDLE_LEAST", 0.4)  # fewer polls make more runs
    patch.setattr("cluster.worker.worker.IDLE_MOST", 1.6)
