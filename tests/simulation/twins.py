"""Which function of the store each twin stands for, and how they take its place."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from cluster.core.errors import StoreUnavailable
from cluster.core.limits.circuit_breaker import Admission
from tests.simulation import model, model_jobs, model_messages

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
        "read_owed": model.read_executions,
        "owed": model.owed,
        "stamp": model.stamp,
        "delete_final": model.remove,
        "fence_endings": model.fence_endings,
        "move": model.move,
        "add_attempts": model.add_attempt,
        "any_limited": model_jobs.any_limited,
        "adopt": model_jobs.reown,
        "take_unsent": model_messages.take_unsent,
        "delete_cancelled": model_messages.delete_cancelled,
        "with_large_bodies": model_messages.with_large_bodies,
        "delete_unclaimed": model_messages.delete_unclaimed,
    },
    "followed": {
        "results": model_messages.results,
        "jobs": model_messages.followed_jobs,
        "chained": model_messages.chained,
        "recorded": model_messages.recorded_ids,
        "unfollowed": model_messages.unfollowed,
        "mark_followed": model_messages.mark_followed,
        "left_to_follow": model_messages.left_to_follow,
    },
    "chain_links": {"chained_ids": model_messages.no_chained_ids},
    "messages": {
        "execution_of": model_messages.execution_of,
        "insert": model_messages.insert,
        "due": model_messages.due,
        "delete": model_messages.delete,
    },
    "dedups": {"reserve": model_messages.reserve},
    "queries.message_states": {
        "known_ids": model_messages.known_ids,
        "waiting": model_messages.waiting,
        "owed": model_messages.owed,
        "recorded": model_messages.recorded,
        "final_state": model_messages.final_state,
    },
    "batches": {
        "insert": model.insert_batches,
        "claim": model.claim,
        "renew": model.renew_batches,
        "release": model.release,
        "delete_finished": model.finish,
        "executions_listed": model.listed,
        "owned_by": model_jobs.strays,
        "count_late": model_jobs.count_late,
    },
    "claimable_batches": {
        "never_claimed": model_jobs.never_claimed,
        "next_claimable": model_jobs.next_claimable,
    },
    "deferred_batches": {
        "note_held_back": model.note_held_back,
        "spread_late": model.spread_late,
        "bring_forward": model.bring_forward,
    },
    "history": {
        "record": model.record,
        "final_ids": model.settled,
        "recorded_ids": model.recorded_ids,
    },
    "missed_ranges": {"record": model_jobs.record_missed, "between": model_jobs.missed},
    "schedules": {
        "due": model.due,
        "stamp": model.stamp_rows,
        "advance": model.advance,
        "insert_missing": model_jobs.rows_create,
        "get_many": model_jobs.rows_known,
    },
    "jobs": {"get": model_jobs.job_one, "insert": model_jobs.job_insert, "update": model_jobs.job_update},
    "engine_jobs": {
        "by_id": model_jobs.by_id,
        "of_schedules": model_jobs.owing,
        "get_schedule": model_jobs.owing_one,
        "get_schedules": model_jobs.owing_some,
        "unsettled": model_jobs.unsettled,
        "mark_settled": model_jobs.settle,
        "with_pending_change": model_jobs.changing,
        "pending": model_jobs.pending,
        "not_paused": model_jobs.not_paused,
        "schedule_versions": model_jobs.versions,
        "begin_exclusive": model_jobs.begin_exclusive,
        "end_exclusive": model_jobs.end_exclusive,
    },
    "backfills": {
        "open_ranges": model_jobs.backfills_open,
        "oldest": model_jobs.backfills_oldest,
        "save_progress": model_jobs.backfills_progress,
        "close": model_jobs.backfills_close,
        "reached": model_jobs.backfills_reached,
    },
    "pauses": {"any_waiting": model_jobs.any_waiting, "over": model_jobs.pauses_over, "end": model_jobs.pauses_end},
    "paused_batches": {"wake": model_jobs.wake},
    "permits": {
        "read": model_jobs.permits_read,
        "write": model_jobs.permits_write,
        "release": model_jobs.permits_give_back,
    },
    "calendars": {"versions": model_jobs.calendar_versions, "get": model_jobs.calendar_one},
    "job_calendars": {"behind": model_jobs.behind_calendar, "write_timing": model_jobs.write_timing},
    "windows": {"present": model_jobs.windows_present, "periods": model_jobs.windows_periods},
    "queues": {"limits_of": model_jobs.queue_limits},
    "queries.leased_executions": {
        "leased_ids": model_jobs.permits_live,
        "may_be_sent": model_messages.may_be_sent,
    },
}
LOGGING = (
    "leader.due_messages leader.elector leader.end_pauses leader.follow_calendars leader.materialise leader.quarantine leader.settle leader.catch_up "
    "leader.leader "
    "worker.claim worker.claiming worker.unclaimed worker.record worker.worker worker.lease_keeper worker.results worker.effects "
    "worker.release worker.dispatch worker.prepare worker.probe_lottery worker.tasks "
    "worker.in_flight worker.limit_queues worker.pending worker.rate_limiter worker.circuit_breakers siblings loops "
    "store.mongo.operation"
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
        self.hosts_blocked: Callable[[], list[str]] = list
        self.age = 0.0
        self.any_open = False

    def admission(self, _: str) -> Admission:
        return Admission.ALLOW

    def open_until_ms(self, _: str) -> None:
        """Until when it is open."""

    def record_attempt(self, *_: Any) -> None:
        """The result of a request."""

    async def synchronise(self) -> set[str]:
        return set()


class Silent:
    """A log that says nothing."""

    def __getattr__(self, _: str) -> Any:
        return lambda *_, **__: None


async def _retry_while_unavailable(write: Callable[[], Any], **_: Any) -> Any:
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
    for step in ("worker.record", "worker.effects"):
        patch.setattr(f"cluster.{step}.retry_while_unavailable", _retry_while_unavailable)
    for step in ("worker.claiming", "worker.claim_pauses", "worker.results", "worker.rate_limiter"):
        patch.setattr(f"cluster.{step}.random", LUCK)
    patch.setattr("cluster.worker.worker.CircuitBreakers", NoBreakers)
    patch.setattr("cluster.worker.claiming.MIN_IDLE", 0.4)  # fewer polls make more runs
    patch.setattr("cluster.worker.claiming.MAX_IDLE", 1.6)
