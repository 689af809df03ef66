"""The model is kept honest: the same random calls to it and to a real MongoDB get the same answers.

Jobs are made and changed by the product's own `jobchange`, so they are such as it writes.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cluster.core.election import LeaderLease
from cluster.core.errors import OutcomeUnknown, StoreUnavailable
from cluster.core.execution.model import (
    FIRST_CLAIM,
    FIRST_TOKEN,
    Attempt,
    Batch,
    Ending,
    Execution,
    JobSchedule,
    Rescheduled,
    Term,
)
from cluster.core.ids import execution_id
from cluster.core.job import changes
from cluster.core.job.changes import ChangeStamp
from cluster.core.job.definition import Definition, JobChange, StoredJob
from cluster.core.lifecycle import JobState, State
from cluster.core.limits.permits import Limits, Permit, Permits
from cluster.store import (
    backfills,
    batches,
    claimable_batches,
    deferred_batches,
    engine_jobs,
    executions,
    history,
    jobs,
    leases,
    missed_ranges,
    paused_batches,
    permits,
    schedules,
)
from cluster.store.backfills import Backfill
from cluster.store.batches import ClaimFilter
from cluster.store.claimable_batches import NextClaimable
from cluster.store.deferred_batches import Pace
from cluster.store.engine_jobs import JobSchedulePage
from cluster.store.missed_ranges import MissedRange
from cluster.store.queries import leased_executions
from cluster.store.schedules import ScheduleRow
from tests.simulation.model import Store, at_once
from tests.simulation.twins import TWINS

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

MODULES: dict[str, Any] = {
    "leases": leases,
    "executions": executions,
    "batches": batches,
    "claimable_batches": claimable_batches,
    "deferred_batches": deferred_batches,
    "history": history,
    "missed_ranges": missed_ranges,
    "schedules": schedules,
    "jobs": jobs,
    "engine_jobs": engine_jobs,
    "backfills": backfills,
    "paused_batches": paused_batches,
    "permits": permits,
    "queries.leased_executions": leased_executions,
}
OFTEN = ["executions"] * 3 + ["batches"] * 3 + ["history"] * 2 + ["jobs"] * 3 + ["engine_jobs"] * 2
CALLS = 900
IDS = [execution_id("j", 1000 * n) for n in range(4)]
NAMES = ["b0", "b1", "b2"]
KEYS = ["@every|10|", "@every|20|"]
LONG_AGO = 1_000_000
FAR_OFF = 4_000_000_000_000
FINAL = [State.SUCCEEDED, State.FAILED, State.DEAD, State.CANCELLED, State.CANCELLED, State.SKIPPED]


class Caller:
    """Makes up calls from few names, so that they meet; some as a stale owner would make them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.at = LONG_AGO
        self.seen: list[Execution] = []
        self.claimed: list[Batch] = []
        self.leases = [LeaderLease(None, 0, 0)]
        self.jobs: list[StoredJob] = []
        self.permits = [Permits()]

    def _execution(self) -> Execution:
        r = self.random
        if self.seen and r.random() < 0.8:
            return r.choice(self.seen)
        owner, token = r.choice([(None, 0), (FIRST_CLAIM, FIRST_TOKEN)])
        name, version, batch = r.choice(IDS), r.choice(["v1", "v2"]), r.choice(NAMES)
        return Execution(name, "j", 1000, 1000, version, batch, 0, owner=owner, token=token)

    def _attempt(self) -> Attempt:
        r = self.random
        return Attempt(r.randint(1, 2), r.randint(1, 3) * 1000, r.choice("ab"), r.randint(1, 2), 1.0, 500)

    def _batch(self) -> Batch:
        self.at += 1
        some = tuple(self.random.sample(IDS, 2))
        host, late = self.random.choice(["", "h"]), self.random.random() < 0.3
        deferred = self.random.random() < 0.1
        at = FAR_OFF if deferred else self.at
        due = FAR_OFF if self.at % 4 == 0 else 1000
        return Batch(self.random.choice(NAMES), some, 0, 0, due, at, late=late, host=host, deferred=deferred)

    def _held(self) -> Batch:
        return self.random.choice(self.claimed) if self.claimed else replace(self._batch(), owner="a", token=1)

    def call(self) -> tuple[str, str, tuple[Any, ...]]:
        """Module, function and arguments, the database left out."""
        module = self.random.choice(
            [
                *OFTEN,
                "leases",
                "schedules",
                "claimable_batches",
                "deferred_batches",
                "missed_ranges",
                "backfills",
                "paused_batches",
                "permits",
                "queries.leased_executions",
            ]
        )
        name, args = getattr(self, f"_{module.rpartition('.')[2]}")()
        return module, name, args

    def _executions(self) -> tuple[str, tuple[Any, ...]]:
        r, e = self.random, self._execution()
        few = list({x.id: x for x in (e, self._execution())}.values())
        made = (self._attempt(),) if r.random() < 0.7 else ()
        return r.choice(
            [
                ("insert", (few,)),
                ("read_owed", (IDS,)),
                ("owed", (IDS[:2],)),
                ("any_limited", (IDS[:2],)),
                ("take_unsent", (e, f"taken{r.random()}")),
                ("delete_cancelled", (e.id,)),
                ("delete_unclaimed", (e,)),
                ("with_large_bodies", ([e],)),
                ("stamp", (IDS, r.choice(NAMES), r.choice("ab"), r.randint(1, 3))),
                ("delete_final", ({(e.batch, e.token): [e.id]},)),
                ("fence_endings", (few, f"n{r.random()}")),
                (
                    "move",
                    ([Rescheduled(x, (*x.attempts, *made), 2000) for x in few], {x.id: r.choice(NAMES) for x in few}),
                ),
                ("add_attempts", (replace(e, attempts=(self._attempt(),)),)),
                (
                    "adopt",
                    (
                        [e],
                        {e.id: replace(e, schedule_version=r.choice(["v1", "v2"]), send_ms=3000)},
                        {e.id: r.choice(NAMES)},
                    ),
                ),
            ]
        )

    def _batches(self) -> tuple[str, tuple[Any, ...]]:
        r, b = self.random, self._held()
        self.at += 1
        return r.choice(
            [
                ("insert", ([self._batch()],)),
                ("claim", (r.choice("ab"), 100.0, self._filter(), 5.0)),
                ("renew", (b.owner or "a", [(b.id, b.token)], 100.0)),
                ("release", (b, r.choice([self.at, None]))),
                ("delete_finished", ([b],)),
                ("executions_listed", (NAMES,)),
                ("owned_by", (r.choice("ab"),)),
                ("count_late", (r.randint(1, 2),)),
            ]
        )

    def _filter(self) -> ClaimFilter:
        r = self.random
        most = 1 if r.random() < 0.2 else None
        unclaimed_ms = r.choice([None, 12_000, 10**13])
        blocked = ("h",) if r.random() < 0.2 else ()
        patience_ms = (
            10**13 if self.at % 5 == 0 else 0
        )  # no further draw: the seeds are known to make calls without ties
        return ClaimFilter(
            r.random() < 0.3, blocked, (), r.random() < 0.3, most, unclaimed_ms=unclaimed_ms, patience_ms=patience_ms
        )

    def _claimable_batches(self) -> tuple[str, tuple[Any, ...]]:
        patience_ms = self.at % 3 * 10**13  # no further draw, as in `_filter`
        return self.random.choice([("never_claimed", (NAMES,)), ("next_claimable", (patience_ms,))])

    def _deferred_batches(self) -> tuple[str, tuple[Any, ...]]:
        r = self.random
        return r.choice(
            [
                ("note_held_back", (r.choice([["h"], ["h", ""], []]), ["g"], r.choice([-1, 10**13]), 0)),
                ("spread_late", ("host", ["h"], Pace(500), r.choice([None, 12_000]))),
                ("bring_forward", ("host", "h", 256, 512)),
            ]
        )

    def _history(self) -> tuple[str, tuple[Any, ...]]:
        r, e = self.random, self._execution()
        ended_ms, reason = r.choice([5000, 6000]), r.choice(["x", "y"])
        ending = Ending(e, r.choice(FINAL), ended_ms, (self._attempt(),), reason, followed=r.random() < 0.5)
        return r.choice(
            [
                ("record", ([ending], 1e6)),
                ("final_ids", (dict.fromkeys(IDS, r.choice(["v1", "v2"])),)),
                ("recorded_ids", (dict.fromkeys(IDS, r.choice(["v1", "v2"])),)),
            ]
        )

    def _missed_ranges(self) -> tuple[str, tuple[Any, ...]]:
        r = self.random
        first = r.choice([1000, 2000])
        missed = MissedRange("m", "v1", first, first + 1000 * r.randint(1, 3), r.randint(2, 4), "why")
        return r.choice(
            [
                ("record", ([missed], 5000, 1e6)),
                ("between", (["m"], r.choice([0, 1500]), r.choice([1500, 9000]))),
            ]
        )

    def _leases(self) -> tuple[str, tuple[Any, ...]]:
        r, seen = self.random, self.random.choice(self.leases[-3:])
        return r.choice(
            [
                ("read", ()),
                ("read_linearizable", ()),
                ("take_over", (seen, r.choice("ab"), "n")),
                ("renew", (r.choice("ab"), seen.term)),
                ("resign", (r.choice("ab"), seen.term)),
            ]
        )

    def _schedules(self) -> tuple[str, tuple[Any, ...]]:
        r = self.random
        term = Term(r.randint(1, 4), "a", 0.0)
        row = ScheduleRow(r.choice(KEYS), r.choice([10_000, 20_000]), 0)
        return r.choice(
            [
                ("due", (r.choice([10_000, 30_000]), 5)),
                ("stamp", (KEYS, term)),
                ("advance", ([(row, r.choice([10_000, 20_000, 20_000, None]))], term)),
                ("insert_missing", ([row],)),
                ("get_many", (KEYS,)),
            ]
        )

    def _jobs(self) -> tuple[str, tuple[Any, ...]]:
        r = self.random
        self.at += 1
        at = ChangeStamp(self.at, f"v{self.at}", f"m{self.at}")
        if not self.jobs or r.random() < 0.3:
            return "get", (r.choice(["j0", "j1"]),)
        old = r.choice(self.jobs[-3:])
        overlap = r.choice(["allow", "skip"])
        wanted = Definition(r.choice(["@every 10s", "@every 20s"]), "http://t/", 0, overlap=overlap, limits=Limits(5.0))
        change = self._change(old, wanted, at)
        return ("get", (old.id,)) if change is None else ("update", (change,))

    def _change(self, old: StoredJob, wanted: Definition, at: ChangeStamp) -> JobChange | None:
        r = self.random
        if old.state is JobState.DELETED or r.random() < 0.4:
            return changes.define(old, old.id, wanted, at)
        if old.state is JobState.PAUSED:
            return changes.resume(old, at)
        return r.choice([changes.pause, changes.delete])(old, at)

    def _engine_jobs(self) -> tuple[str, tuple[Any, ...]]:
        r = self.random
        keys = sorted({j.schedule_key for j in self.jobs})
        names, runs = ["j0", "j1"], ["e0", "e1"]
        return r.choice(
            [
                ("by_id", (names,)),
                ("of_schedules", (keys[:1], r.randint(1, 3))),
                ("get_schedule", (r.choice(names),)),
                ("get_schedules", (names,)),
                ("unsettled", (3, r.choice([[], ["j0"]]))),
                ("with_pending_change", (keys, r.choice([0, 5000]), r.choice([[], ["j0"]]))),
                ("pending", (names,)),
                ("not_paused", ([*names, "gone"],)),
                ("schedule_versions", ([*names, "gone"],)),
                ("mark_settled", ([j.change_id for j in self.jobs[-2:] if j.change_id is not None],)),
                ("begin_exclusive", (r.choice(names), r.choice(runs), r.choice([None, *runs]))),
                ("end_exclusive", ([r.choice(runs)], names)),
            ]
        )

    def _backfills(self) -> tuple[str, tuple[Any, ...]]:
        r = self.random
        start = r.choice([1000, 2000])
        b = Backfill(f"b{start}", KEYS[0], None, start, start + r.choice([5000, 9000]), 9000, start)
        further = replace(
            b, cursor_ms=r.choice([3000, 4000]), missed_recorded=r.random() < 0.7, after=r.choice([None, "x"])
        )
        return r.choice(
            [
                ("open_ranges", (b,)),
                ("oldest", ()),
                ("save_progress", (further,)),
                ("close", (b,)),
                ("reached", (KEYS,)),
            ]
        )

    def _paused_batches(self) -> tuple[str, tuple[Any, ...]]:
        return "wake", (["j", "gone"],)

    def _permits(self) -> tuple[str, tuple[Any, ...]]:
        r = self.random
        seen = r.choice(self.permits[-2:])
        then = Permits(seen.next_ms + 100, {i: r.choice(["", "x", "y"]) for i in r.sample(IDS, 2)})
        back = [Permit("g", i, 0, r.choice(["x", "y", None])) for i in r.sample(IDS, 2)]
        return r.choice(
            [
                ("read", ("g",)),
                ("write", ("g", seen, then)),
                ("release", (back,)),
            ]
        )

    def _leased_executions(self) -> tuple[str, tuple[Any, ...]]:
        if self.random.random() < 0.5:
            return "may_be_sent", (self._execution(),)
        return "leased_ids", (IDS,)

    def learn(self, answer: Any) -> None:
        if isinstance(answer, Batch):
            self.claimed = [*self.claimed[-3:], answer]
        elif isinstance(answer, LeaderLease):
            self.leases.append(answer)
        elif isinstance(answer, StoredJob):
            self.jobs.append(answer)
        elif isinstance(answer, Permits):
            self.permits.append(answer)
        elif isinstance(answer, tuple) and answer and isinstance(answer[0], dict):
            self.seen = [*self.seen[-3:], *answer[0].values()]


def comparable(answer: Any) -> Any:
    """Without the instants that the two clocks gave, and in an order of its own where the store promises none."""
    if isinstance(answer, Batch):
        return replace(answer, claimable_ms=0, ids=tuple(sorted(answer.ids)))
    if isinstance(answer, NextClaimable):
        return comparable(answer.at_ms), answer.left_to_others
    if isinstance(answer, JobSchedulePage):
        return sorted(answer.jobs, key=lambda j: j.id), answer.last if len(answer.jobs) == 1 else None
    if isinstance(answer, list) and answer and isinstance(answer[0], Batch):
        return sorted((comparable(b) for b in answer), key=lambda b: b.id)
    if isinstance(answer, list) and answer and isinstance(answer[0], JobSchedule):
        return sorted(answer, key=lambda j: j.id)
    if isinstance(answer, int) and 10**12 < answer < FAR_OFF:
        return "the end of a lease"
    return sorted(answer) if isinstance(answer, list) and answer and isinstance(answer[0], str) else answer


@pytest.mark.parametrize("seed", range(3))
async def test_the_model_answers_as_mongodb_does(database: Database, seed: int) -> None:
    """Call by call, each on what the calls before it left behind."""
    store, caller, met = Store(lambda: 2_000_000_000_000), Caller(seed), set()
    store.lease = await leases.read(database)
    rows = [ScheduleRow(k, 10_000, 0) for k in KEYS]
    await schedules.insert_missing(database, rows)
    store.rows = {r.key: r for r in rows}
    for n in range(2):
        made = changes.define(
            None, f"j{n}", Definition("@every 10s", "http://t/", 0), ChangeStamp(1000, f"v{n}", f"m{n}")
        )
        assert made is not None
        assert at_once(TWINS["jobs"]["insert"](store, made)) is await jobs.insert(database, made) is True
        assert at_once(TWINS["jobs"]["insert"](store, made)) is await jobs.insert(database, made) is False
        met.add(("jobs", "insert"))
    for n in range(CALLS):
        module, name, args = caller.call()
        real = await getattr(MODULES[module], name)(database, *args)
        ours = at_once(TWINS[module][name](store, *args))
        assert comparable(ours) == comparable(real), f"seed {seed}, call {n}: {module}.{name}{args}"
        caller.learn(real)
        met.add((module, name))
    documents = {d["_id"]: d async for d in database.api["history"].find()}
    missed = {i: documents.pop(i) for i in list(documents) if documents[i]["state"] == State.MISSED}
    assert {i: (r.last_ms, r.count) for i, r in store.missed.items()} == {
        i: (int(d["last_at"]), d["count"]) for i, d in missed.items()
    }
    assert {i: (f.state, f.version, len(f.attempts), f.reason, f.ended_ms) for i, f in store.history.items()} == {
        i: (d["state"], d["schedule_version"], len(d["attempts"]), d["reason"], int(d["ended_at"]))
        for i, d in documents.items()
    }
    assert met == {(m, f) for m in MODULES for f in TWINS[m]}


@pytest.mark.parametrize(
    ("fault", "then", "in_the_end"), [("lost", 0, 0), ("applied", 2, 2), ("later", 0, 2), ("half", 1, 1)]
)
def test_each_fault_of_the_store_has_its_effect(fault: str, then: int, in_the_end: int) -> None:
    """On documents: when the error is raised, and after a postponed write has been applied."""
    store = Store(lambda: 0, lambda: fault)
    two = [Execution(i, "j", 0, 0, "v1", "b", 0) for i in IDS[:2]]
    with pytest.raises(StoreUnavailable) as raised:
        at_once(TWINS["executions"]["insert"](store, two))
    assert isinstance(raised.value, OutcomeUnknown) is (fault != "lost")
    assert len(store.executions) == then
    for effect in store.postponed:
        effect()
    assert len(store.executions) == in_the_end
