"""Users change jobs while leaders start, die and are absent: settling, the main pass and catching up, as they are.

The leader's step is `cluster.leader.Leader.step`, the changes are `cluster.usecases.jobs`; a short driver stands for the
worker (claim, last check, record; some attempts fail and are retried). The occurrences owed are those of the oracle of
`horae verify`, not those of the engine's schedules.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

from cluster.core.errors import CallerError, StoreUnavailable, TermLost
from cluster.core.execution import outcome
from cluster.core.execution.model import Attempt, Ending, Rescheduled, Term
from cluster.core.execution.outcome import next_attempt_number
from cluster.core.ids import execution_id
from cluster.core.job import changes
from cluster.core.job.definition import PAUSE_AS_IT_IS, Definition, WantedPause
from cluster.core.lifecycle import JobState, State
from cluster.core.timings import Timings
from cluster.core.verify.calendars import calendar_in, occurrences_with
from cluster.leader.leader import Leader
from cluster.store import engine_jobs, paused_batches
from cluster.store.batches import ClaimFilter
from cluster.store.enqueue import repair_batches
from cluster.usecases import jobs
from cluster.worker.claim import Claimer
from cluster.worker.dispatch import STALE_SECONDS
from cluster.worker.record import MoveOptions, Recorder
from tests.simulation.crowding import AnyCrowds
from tests.simulation.model import turn
from tests.simulation.world import START_MS, Broken, World
from tests.support.engine import leader_context

if TYPE_CHECKING:
    from cluster.core.execution.model import Execution
    from cluster.store.mongo.client import Document
    from cluster.worker.claim import ClaimedBatch

TIMINGS = Timings()
SCHEDULES = ("@every 5s", "@every 8s", "*/4 * * * * *", "7-59/10 * * * * *")
LAST_MS = START_MS + 400_000
NAMES = ("j0", "j1")
FAILING, FAILURES = 0.2, 2
"""How often an attempt fails, and after how many of them none does any more."""
PAUSED_MS = 20_000
"""So long an execution of a paused job waits until it is looked at again, if nothing wakes it."""
Period = tuple[str | None, str, str, int, int, int]
"""Calendar, schedule, time zone, anchor, from and to (ms; to is included)."""


class Trusting:
    """Trusts its term, old or new, for as long after each step's beginning as a holder may: it never learns better."""

    def __init__(self, number: int, world: World) -> None:
        self.term = Term(number, "x", 0.0)
        self._world = world
        self.until = 0.0

    def trusted_term(self) -> Term:
        if self._world.now >= self.until:
            raise TermLost("not trusted any more")
        return self.term


class Census:
    """How many nodes there are."""

    def live_count(self, *_: Any) -> int:
        return 2


class Changing:
    """Two jobs are made, changed, paused, resumed and deleted; after each step what they owed is owed, final or missed.

    What came due before a change is not cancelled by it, and nothing is sent a second after a pause or a deletion.
    `paused_ms`: see `PAUSED_MS`.
    """

    def __init__(self, seed: int, trouble: float = 0.04, paused_ms: int = PAUSED_MS) -> None:
        self.world = World(seed, trouble)
        self._paused_ms = paused_ms
        self._paused_at: dict[str, float] = {}
        """When a pause was answered, of jobs that nobody resumes since."""
        self._promised: dict[str, tuple[int, int]] = {}
        """The revision of an answered pause and its end (ms), of jobs that nobody changes since."""
        self._over: dict[str, float] = {}
        """When a deletion was answered, by each schedule version that the job had then."""
        self._terms = count(1)
        self._seen = -1
        self._recorded: set[tuple[str, int, str]] = set()
        self._dues: dict[Period, list[int]] = {}

    def run(self) -> World:
        w = self.world
        random = w.random.random
        for name in NAMES:
            w.spawn("user", self._use(name))
        w.spawn("worker", self._work("worker@0"))
        self._begin_others()
        absence = random() * 30 if random() < 0.5 else 0.0
        gone = random() * 20
        w.spawn("leader", self._lead(0.0, gone if absence else 60.0))
        w.spawn("leader", self._lead(gone + absence, 60.0))
        w.run(50.0, self._check, self._again)
        self._repaired_and_complete()
        return w

    def _again(self, name: str) -> None:
        w = self.world
        if name == "leader":
            w.spawn(name, self._lead(w.random.random() * 6, 60.0))
        elif name == "worker":
            w.spawn(name, self._work(f"worker@{w.steps}"))

    # -- actors --------------------------------------------------------------------------------------------------

    async def _use(self, name: str) -> None:
        """One user of one job; he gives up when the database does not answer, and does not know what became of it."""
        db: Any = self.world.store
        random = self.world.random
        await turn(random.random() * 6)
        for _ in range(5):
            now = self.world.clock().now_ms()
            wanted = self._definition()
            act: Any = random.choice(
                (
                    lambda n, wanted=wanted, now=now: jobs.change_job(
                        db, n, lambda old, at: changes.define(old, n, wanted, at), now, jobs.NO_PRECONDITION
                    ),
                    lambda n, now=now: jobs.pause(db, n, now, wanted=self._terms_of_pause(now)),
                    lambda n, now=now: jobs.resume(db, n, now),
                    lambda n, now=now: jobs.delete(db, n, now),
                )
            )
            known = self.world.store.documents.get(name)
            self._paused_at.pop(name, None)
            self._promised.pop(name, None)
            with suppress(StoreUnavailable, CallerError):
                await (act if known is not None else self._create(wanted))(name)
                self._answered(name)
            await turn(random.random() * random.choice((0.3, 5, 20)))

    def _begin_others(self) -> None:
        """For scenarios with more actors than these."""

    def _answered(self, name: str) -> None:
        """Nobody else changes this job, so it is as the answer says."""
        d = self.world.store.documents[name]
        if d["state"] == JobState.PAUSED:
            self._paused_at[name] = self.world.now
            until = (d["pause"] or {}).get("until")
            if until is not None:
                self._promised[name] = d["revision"], int(until)
        elif d["state"] == JobState.DELETED:
            for version in (d["schedule_version"], *(p["schedule_version"] for p in d["past"])):
                self._over.setdefault(version, self.world.now)

    def _terms_of_pause(self, now: int) -> WantedPause:
        """Half of the pauses end by themselves, some of them while no leader is there."""
        if self.world.random.random() < 0.5:
            return PAUSE_AS_IT_IS
        return WantedPause(now + 1 + int(self.world.random.random() * 15_000))

    def _create(self, wanted: Definition) -> Any:
        db: Any = self.world.store
        now = self.world.clock().now_ms()
        return lambda n: jobs.change_job(
            db, n, lambda old, at: changes.define(old, n, wanted, at), now, jobs.NO_PRECONDITION
        )

    def _definition(self) -> Definition:
        choice = self.world.random.choice
        return Definition(
            choice(SCHEDULES),
            "http://t/",
            0,
            catch_up=choice(("all", "all", "latest", "none")),
            catch_up_window_seconds=choice((3600, 15)),
            spread_seconds=choice((0, 0, 3)),
        )

    async def _lead(self, after: float, until: float) -> None:
        w = self.world
        await turn(after)
        store, elector, census, clock = w.store, Trusting(next(self._terms), w), Census(), w.clock()
        context = leader_context(_any(store), _any(clock), elector.trusted_term, TIMINGS, crowds=AnyCrowds(w.seed))
        leader = Leader(context, _any(elector), _any(census))
        leader._next_run.update(replay=float("inf"), backfill=float("inf"), sweep=float("inf"))
        while w.now < until:
            elector.until = w.now + TIMINGS.leader_lease - TIMINGS.margin
            try:
                more = await leader.step()
            except (TermLost, StoreUnavailable):
                more = False
            if not more:
                await turn(1.0)

    async def _work(self, owner: str) -> None:
        w = self.world
        clock = w.clock()
        claimer = Claimer(_any(w.store), _any(clock), TIMINGS, owner)
        recorder = Recorder(_any(w.store), 7.0)
        late = False
        while True:
            late = not late
            try:
                claimed = await claimer.step(ClaimFilter(late=late))
                if claimed is None:
                    await turn(0.7)
                    continue
                await turn(clock.seconds_until(claimed.batch.send_ms) - w.random.random() * STALE_SECONDS)
                jobs_now, read_at = await self._jobs(claimed)
                cancelled = self._cancelled(claimed, jobs_now)
                await turn(clock.seconds_until(claimed.batch.send_ms))
                if w.now - read_at > STALE_SECONDS:
                    jobs_now, _ = await self._jobs(claimed)
            except StoreUnavailable:
                await turn(1.0)
                continue
            endings, moves, paused = [], [], []
            for e in claimed.executions:
                now, job = clock.now_ms(), jobs_now.get(e.job_id)
                why = cancelled.get(e.id) or outcome.cancellation_reason(e, job)
                if why is None and outcome.waits_for_resume(e, job):
                    paused.append(Rescheduled(e, e.attempts, e.send_ms))
                    continue
                fails = not why and len(e.attempts) < FAILURES and w.random.random() < FAILING
                made = Attempt(next_attempt_number(e.attempts), now, owner, e.token, 1.0, 503 if fails else 200)
                if not why:
                    self._may_be_sent(e)
                if fails:
                    moves.append(Rescheduled(e, (*e.attempts, made), now + 2000))
                else:
                    kept = e.attempts if why else (*e.attempts, made)
                    endings.append(Ending(e, State.CANCELLED if why else State.SUCCEEDED, now, kept, why))
            await recorder.reschedule(moves)
            await recorder.record_final(endings)
            await self._release_paused(recorder, claimed, paused)
            await recorder.delete_finished([claimed.batch])

    async def _jobs(self, claimed: ClaimedBatch) -> tuple[Any, float]:
        """The jobs, read a moment ago, and when their reading began."""
        while True:
            before = self.world.now
            read = await engine_jobs.by_id(_any(self.world.store), {e.job_id for e in claimed.executions})
            if self.world.now - before <= STALE_SECONDS:
                return read.jobs, before

    def _cancelled(self, claimed: ClaimedBatch, jobs: Any) -> dict[str, str]:
        """What a node cancels when it prepares the batch, which is a little before its send time."""
        reasons = {e.id: outcome.cancellation_reason(e, jobs.get(e.job_id)) for e in claimed.executions}
        return {i: why for i, why in reasons.items() if why is not None}

    async def _release_paused(self, recorder: Recorder, claimed: ClaimedBatch, paused: list[Rescheduled]) -> None:
        """As `Releaser` does: when they are released, the jobs are looked at again."""
        w = self.world
        options = MoveOptions(late=claimed.batch.late, claimable_ms=w.clock().now_ms() + self._paused_ms)
        await recorder.reschedule(paused, options)
        with suppress(StoreUnavailable):  # then they wait until they are looked at again
            resumed = await engine_jobs.not_paused(_any(w.store), {m.execution.job_id for m in paused})
            await paused_batches.wake(_any(w.store), sorted(resumed))

    def _may_be_sent(self, e: Execution) -> None:
        a_second_ago = self.world.now - 1.0
        revision, until = self._promised.get(e.job_id, (0, 0))
        ended = bool(revision) and self.world.clock().now_ms() >= until
        if self._paused_at.get(e.job_id, a_second_ago) < a_second_ago and not ended:
            raise Broken(f"{e.id} is sent while its job is paused")
        if self._over.get(e.schedule_version, a_second_ago) < a_second_ago:
            raise Broken(f"{e.id} is sent after its job was deleted")

    # -- what must hold ------------------------------------------------------------------------------------------

    def _check(self) -> None:
        store = self.world.store
        if store.writes == self._seen:
            return
        self._seen = store.writes
        for name, (revision, until) in self._promised.items():
            self._resumed_as_promised(store.documents[name], revision, until)
        for d in store.documents.values():
            if "unsettled" not in d:
                for p, version in self._periods(d):
                    self._all_known(d["_id"], p, version)
        for i, f in store.history.items():
            if f.state is not State.SUCCEEDED and not f.reason:
                raise Broken(f"{i} is {f.state} without a reason")
            if f.state is State.CANCELLED and not self._may_be_cancelled(i, f.version):
                raise Broken(f"{i} is cancelled, and it came due before its job was changed")

    def _resumed_as_promised(self, d: Document, revision: int, until: int) -> None:
        """Nobody else changes the job: at the end of its pause it is resumed, once, and owes what is due from then on."""
        if d["revision"] == revision and d["state"] == JobState.PAUSED:
            return
        # An interval begins on a whole second, which a short pause may end before.
        end = max(until, int(d["past"][-1]["from"])) if d["past"] else until
        if (d["revision"], d["state"], int(d["active_from"])) != (revision + 1, JobState.ACTIVE, end):
            raise Broken(f"{d['_id']} was not resumed once, as of the end of its pause")
        if self.world.clock().now_ms() < until:
            raise Broken(f"{d['_id']} was resumed before the end of its pause")

    def _may_be_cancelled(self, name: str, version: str) -> bool:
        """Only a deletion cancels what came due while its version of the schedule was in effect."""
        job, _, due = name.partition(":")
        d = self.world.store.documents[job]
        ended = [int(p["to"]) for p in d["past"] if p["schedule_version"] == version]
        if d["state"] == JobState.DELETED or (ended and ended[0] <= int(d["created_at"])):
            return True
        return bool(ended) and int(due) > ended[0]

    def _periods(self, d: Document) -> list[tuple[Period, str]]:
        """The periods that a settled job owes, with their schedule versions, the last one up to the cursor of its row."""
        found = [(_period(p, int(p["from"]), int(p["to"])), p["schedule_version"]) for p in d["past"]]
        row = self.world.store.rows.get(d["schedule_key"])
        if d["state"] == JobState.ACTIVE and row is not None:
            found.append((_period(d, int(d["active_from"]), row.next_ms - 1), d["schedule_version"]))
        return found

    def _all_known(self, job: str, p: Period, version: str) -> None:
        for t in self._owed(p):
            if (job, t, version) not in self._recorded and not self._known(job, t, version):
                raise Broken(f"{job} owed {t}, of which there is no record")

    def _owed(self, p: Period) -> list[int]:
        """By the oracle."""
        calendar, text, zone, anchor, start, end = p
        known = self._dues.get((calendar, text, zone, anchor, 0, 0))
        if known is None:
            known = list(occurrences_with(calendar, text, zone, anchor, START_MS, LAST_MS))
            self._dues[calendar, text, zone, anchor, 0, 0] = known
        return [t for t in known if start <= t <= end]

    def _known(self, job: str, t: int, version: str) -> bool:
        """A record that it was cancelled for another schedule version says nothing about this one."""
        store = self.world.store
        name = execution_id(job, t)
        there = store.history.get(name)
        told = there is not None and (there.state is State.SUCCEEDED or there.version == version)
        if told or any(m.job_id == job and m.first_ms <= t <= m.last_ms for m in store.missed.values()):
            self._recorded.add((job, t, version))
            return True
        ranges = store.backfills.values()
        return name in store.executions or any(b.job_id in (None, job) and b.from_ms <= t < b.to_ms for b in ranges)

    def _repaired_and_complete(self) -> None:
        """Without further faults, the past is recorded, and everything that the current schedules owe is sent."""
        w = self.world
        w.trouble = 0.0
        while w.store.postponed:
            w.store.postponed.pop()()
        w.store.writes += 1
        self._check()
        w.spawn("sweep", repair_batches(_any(w.store), list(w.store.executions.values())))
        w.spawn("leader", self._lead(0.0, 600.0))
        w.spawn("worker", self._work("worker@last"))
        self._begin_others()
        w.run(w.now + 60, self._check)
        now = w.clock().now_ms()
        for i, e in w.store.executions.items():
            if e.send_ms < now - 15_000 and w.store.documents[e.job_id]["state"] != JobState.PAUSED:
                raise Broken(f"{i} is still owed")
        for name, (revision, until) in self._promised.items():
            if until < now - 15_000 and w.store.documents[name]["revision"] == revision:
                raise Broken(f"{name} is still paused after the end of its pause")
        if w.store.backfills:
            raise Broken("the past is never caught up")
        for d in w.store.documents.values():
            if d["state"] == JobState.ACTIVE:
                self._sent(d, now)

    def _sent(self, d: Document, now: int) -> None:
        job = d["_id"]
        for t in self._owed(_period(d, int(d["active_from"]), now - 15_000)):
            f = self.world.store.history.get(execution_id(job, t))
            missed = any(m.job_id == job and m.first_ms <= t <= m.last_ms for m in self.world.store.missed.values())
            if not missed and (f is None or f.state is not State.SUCCEEDED):
                raise Broken(f"{job} owes {t} as it is now, and it was not sent")


def _any(value: Any) -> Any:
    return value


def _period(d: Document, start: int, end: int) -> Period:
    return (
        calendar_in(d.get("schedule_key") or d["key"]),
        d["schedule"],
        d["timezone"],
        int(d["anchor"] or 0),
        start,
        end,
    )
