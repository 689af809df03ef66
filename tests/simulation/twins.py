"""Which function of the store each twin stands for, and how they take its place."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from cluster.core.errors import StoreUnavailable
from cluster.core.limits.circuit_breaker import Gate
from tests.simulation import model, model_jobs

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

TWINS: dict[str, dict[str, Any]] = {
    "leases": {
        "read": model.lease_read,
        "read_linearizable": model.lease_read,
        "take_over": model.take_over,
        "renew": model.lease_renew,
        "resign": model.resign,
    },
    "executions": {
        "insert": model.insert_executions,
        "read": model.read_executions,
        "owed": model.owed,
        "stamp": model.stamp,
        "remove": model.remove,
        "fence_endings": model.fence_endings,
        "move": model.move,
        "add_attempt": model.add_attempt,
        "reown": model_jobs.reown,
    },
    "batches": {
        "insert": model.insert_batches,
        "claim": model.claim,
        "renew": model.renew_batches,
        "release": model.release,
        "finish": model.finish,
        "listed": model.listed,
        "strays": model_jobs.strays,
        "count_late": model_jobs.count_late,
    },
    "history": {
        "record": model.record,
        "settled": model.settled,
        "known": model_jobs.known,
        "record_missed": model_jobs.record_missed,
        "missed": model_jobs.missed,
    },
    "schedules": {
        "due": model.due,
        "stamp": model.stamp_rows,
        "advance": model.advance,
        "create": model_jobs.rows_create,
        "known": model_jobs.rows_known,
    },
    "jobs": {"one": model_jobs.job_one, "insert": model_jobs.job_insert, "update": model_jobs.job_update},
    "engine_jobs": {
        "by_id": model_jobs.by_id,
        "owing": model_jobs.owing,
        "owing_one": model_jobs.owing_one,
        "unsettled": model_jobs.unsettled,
        "settle": model_jobs.settle,
        "changing": model_jobs.changing,
        "versions": model_jobs.versions,
        "begin_exclusive": model_jobs.begin_exclusive,
        "end_exclusive": model_jobs.end_exclusive,
    },
    "backfills": {
        "open_": model_jobs.backfills_open,
        "oldest": model_jobs.backfills_oldest,
        "progress": model_jobs.backfills_progress,
        "close": model_jobs.backfills_close,
        "reached": model_jobs.backfills_reached,
    },
    "permits": {
        "read": model_jobs.permits_read,
        "write": model_jobs.permits_write,
        "give_back": model_jobs.permits_give_back,
        "live": model_jobs.permits_live,
    },
}
LOGGING = (
    "leader.elector leader.materialise leader.quarantine leader.settle leader.catch_up leader.leader "
    "worker.claim worker.record worker.worker worker.results worker.release worker.dispatch worker.prepare "
    "worker.limit_queues worker.pending worker.rate_limiter worker.circuit_breakers loops store.mongo.operation"
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
            await model.turn(0.1)


def install(patch: pytest.MonkeyPatch) -> None:
    """Put the twins in the place of the store's functions, for the steps of this process."""
    for module, functions in TWINS.items():
        for name, function in functions.items():
            patch.setattr(f"cluster.store.{module}.{name}", function)
    for step in LOGGING.split():
        patch.setattr(f"cluster.{step}.log", Silent())
    for step in ("worker.record", "worker.results"):
        patch.setattr(f"cluster.{step}.insist", _insist)
    for step in ("worker.worker", "worker.results", "worker.rate_limiter"):
        patch.setattr(f"cluster.{step}.random", LUCK)
    patch.setattr("cluster.worker.worker.Breakers", NoBreakers)
    patch.setattr("cluster.worker.worker.IDLE_LEAST", 0.4)  # fewer polls make more runs
    patch.setattr("cluster.worker.worker.IDLE_MOST", 1.6)
