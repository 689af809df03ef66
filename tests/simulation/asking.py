"""Actions on many jobs and requested backfills, while leaders freeze, die and overlap, and users change the same jobs.

`JobActions` and `Backfiller` as they are; the worker is that of `changing.py`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import suppress
from itertools import count
from typing import Any

from cluster.core.errors import CallerError, StoreUnavailable, TermLost
from cluster.core.execution.model import Attempt
from cluster.core.ids import execution_id
from cluster.core.job import changes
from cluster.core.job.changes import ChangeStamp
from cluster.core.job.definition import Definition
from cluster.core.lifecycle import JobState, State
from cluster.leader.act import JobActions
from cluster.leader.backfill import Backfiller
from cluster.store.actions import Action
from cluster.store.enqueue import repair_batches
from cluster.store.jobs import new_document
from cluster.store.missed_ranges import MissedRange
from cluster.store.progress import DONE
from cluster.store.requested_backfills import RequestedBackfill
from cluster.usecases import jobs
from tests.simulation.changing import TIMINGS, Changing, Trusting
from tests.simulation.model import Final, turn
from tests.simulation.model_requests import AskedStore
from tests.simulation.world import START_MS, Broken
from tests.support.engine import leader_context

NAMES = [f"a{i}" for i in range(6)]
BEFORE_MS = START_MS - 100_000
DUES = [BEFORE_MS + i * 5000 for i in range(9)]
PAUSE, RUN, FILL = "pause", "run", "f" * 32


def _any(value: Any) -> Any:
    return value


class Asking(Changing):
    """Each job is paused by the action once and run by the other once; each occurrence of the backfill ends once."""

    def __init__(self, seed: int, trouble: float = 0.05) -> None:
        super().__init__(seed, trouble)
        w = self.world
        w.store = AskedStore(w.db_ms, w._fault)
        self._store: AskedStore = w.store
        self._numbers = count(1)
        self._runs: defaultdict[str, set[str]] = defaultdict(set)
        self._resumed: set[str] = set()
        self._fill()

    def _fill(self) -> None:
        store = self._store
        for name in NAMES:
            wanted = Definition("@every 5s", "http://t/", 0)
            made = changes.define(None, name, wanted, ChangeStamp(START_MS - 10_000, f"v{name}", f"c{name}"))
            assert made is not None
            d = new_document(made)
            d.pop("unsettled")
            store.documents[name] = d
        for name, kind in ((PAUSE, "pause"), (RUN, "trigger")):
            states = [s.value for s in JobState if s is not JobState.DELETED]
            store.actions[name] = Action(name, kind, {"states": states, "asked": {}}, 1000, START_MS, len(NAMES), name)
            for page in range(3):
                store.pages[f"{name}:{page:08d}"] = NAMES[2 * page : 2 * page + 2]
        version = store.documents["a0"]["schedule_version"]
        store.asked[FILL] = RequestedBackfill(
            id=FILL,
            job_id="a0",
            key=store.documents["a0"]["schedule_key"],
            schedule_version=version,
            from_ms=DUES[0],
            until_ms=DUES[-1] + 1,
            again=False,
            per_second=3,
            created_ms=START_MS,
            known_ms=0,
            count=len(DUES),
            cursor_ms=DUES[0],
        )
        sent = [Attempt(1, DUES[1], "n", 1, 1.0, 200)]
        store.history[execution_id("a0", DUES[1])] = Final(State.SUCCEEDED, version, sent)
        store.history[execution_id("a0", DUES[2])] = Final(State.MISSED, version, [], "why")
        store.missed["range"] = MissedRange("a0", version, DUES[4], DUES[6], 3, "why")

    def run(self) -> Any:
        w = self.world
        for name in NAMES[1:]:
            w.spawn("user", self._resume(name))
        w.spawn("worker", self._work("worker@0"))
        w.spawn("leader", self._ask(0.0, 40.0))
        w.spawn("leader", self._ask(w.random.random() * 8, 40.0))
        w.run(40.0, self._check, self._again)
        self._all_done()
        return w

    def _again(self, name: str) -> None:
        if name == "leader":
            self.world.spawn(name, self._ask(self.world.random.random() * 6, 40.0))
        elif name == "worker":
            self.world.spawn(name, self._work(f"worker@{self.world.steps}"))

    async def _resume(self, name: str) -> None:
        """A user resumes the job once, some time after the action has paused it."""
        w = self.world
        while w.store.documents[name]["state"] != JobState.PAUSED:
            await turn(0.3)
            if w.now > 35:
                return
        await turn(w.random.random() * 4)
        db: Any = w.store
        with suppress(StoreUnavailable, CallerError):
            await jobs.resume(db, name, w.clock().now_ms())
            self._resumed.add(name)

    async def _ask(self, after: float, until: float) -> None:
        w = self.world
        await turn(after)
        elector, clock = Trusting(next(self._numbers), w), w.clock()
        context = leader_context(_any(w.store), _any(clock), elector.trusted_term, TIMINGS)
        acting, filling = JobActions(context), Backfiller(context)
        while w.now < until:
            elector.until = w.now + TIMINGS.leader_lease - TIMINGS.margin
            for step in (acting.step, lambda: filling.step(clock.now_ms())):
                with suppress(TermLost, StoreUnavailable):
                    await step()
            await turn(0.5)

    def _check(self) -> None:
        store = self._store
        if store.writes == self._seen:
            return
        self._seen = store.writes
        twice = [c for c, n in Counter(store.changed).items() if n > 1]
        if twice:
            raise Broken(f"{twice[0]} was changed twice by one action")
        for e in store.executions.values():
            if e.request_id == RUN:
                self._runs[e.job_id].add(e.id)
                if len(self._runs[e.job_id]) > 1:
                    raise Broken(f"{e.job_id} runs twice for one action")
        if len(store.history[execution_id("a0", DUES[1])].attempts) > 1:
            raise Broken("what had run was sent again")
        self._nothing_silent()

    def _nothing_silent(self) -> None:
        """What was missed is missed, owed or final."""
        store = self._store
        for due in (DUES[2], *DUES[4:7]):
            name = execution_id("a0", due)
            covered = any(m.first_ms <= due <= m.last_ms for m in store.missed.values())
            asked = due in store.asked[FILL].page  # reopened, and about to be owed
            if not (covered or asked or name in store.history or name in store.executions):
                raise Broken(f"{name} was missed, and nothing says so any more")

    def _all_done(self) -> None:
        w, store = self.world, self._store
        w.trouble = 0.0
        while store.postponed:
            store.postponed.pop()()
        store.writes += 1
        self._check()
        w.spawn("sweep", repair_batches(_any(store), list(store.executions.values())))
        w.spawn("leader", self._ask(0.0, 200.0))
        w.spawn("worker", self._work("worker@last"))
        w.run(w.now + 60, self._check)
        for action in store.actions.values():
            if (action.state, action.done, action.left_out, action.failed) != (DONE, len(NAMES), 0, 0):
                raise Broken(f"the action is {action}")
        for name in NAMES:
            d = store.documents[name]
            if ("pause" not in [p["ended_by"] for p in d["past"]]) or not self._runs[name]:
                raise Broken(f"{name} got no pause or no run")
            if name in self._resumed and d["state"] != JobState.ACTIVE:
                raise Broken(f"{name} was paused again after its user had resumed it")
        self._backfilled()

    def _backfilled(self) -> None:
        asked = self._store.asked[FILL]
        if self._store.documents["a0"]["state"] == JobState.PAUSED:
            return  # it waits for the resume
        if (asked.state, asked.sent, asked.already) != (DONE, len(DUES) - 1, 1):
            raise Broken(f"the backfill is {asked}")
