"""Alerts of one job, by leaders that overlap, freeze and die, while windows mute it and its rules and channels change.

`Alerter` is the real one; the single reads and writes of the store are twins in memory, of which `test_muting.py` compares
those that decide something with MongoDB.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cluster.core.alerts import AlertRules, RecordedResult
from cluster.core.errors import StoreError
from cluster.core.windows import Subject, Window
from cluster.leader.alerting import Alerter
from cluster.store.alert_jobs import JobAlertRules
from cluster.store.channels import Channel
from tests.simulation.model import turn
from tests.simulation.world import START_MS, Broken, World

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import pytest

    from cluster.core.alerts import Incident, IncidentKind
    from tests.simulation.model import Store

JOB = "bad"
CHANNELS = ("ops", "chat", "desk")
TAGS = ("billing",)


@dataclass
class Alerts:
    """What the database holds of alerts."""

    rules: AlertRules
    results: dict[str, RecordedResult] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)
    incidents: dict[str, Incident] = field(default_factory=dict)
    channels: set[str] = field(default_factory=lambda: set(CHANNELS))
    locked: set[str] = field(default_factory=set)
    windows: list[Window] = field(default_factory=list)
    jobs: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    """Alert jobs: channel, since when the incident is, and what the notice says."""


ALERTS: dict[int, Alerts] = {}
"""By store: the twins are functions."""


def alerts_of(db: Store) -> Alerts:
    return ALERTS[id(db)]


# -- twins -----------------------------------------------------------------------------------------------------------


async def pending(db: Store, limit: int) -> tuple[list[RecordedResult], list[str]]:
    def effect() -> list[str]:
        return sorted(alerts_of(db).pending)[:limit]

    ids: list[str] = await db.read(effect)
    return [alerts_of(db).results[i] for i in ids], ids


async def clear_pending(db: Store, ids: Iterable[str]) -> None:
    await db.write(lambda: alerts_of(db).pending.difference_update(ids))


async def latest(db: Store, _job: str, count: int) -> list[RecordedResult]:
    def effect() -> list[RecordedResult]:
        found = alerts_of(db).results
        return [found[i] for i in sorted(found, reverse=True)[:count]]

    answer: list[RecordedResult] = await db.read(effect)
    return answer


async def alert_rules_of(db: Store, ids: Iterable[str], _default: Any) -> dict[str, JobAlertRules]:
    rules = await db.read(lambda: alerts_of(db).rules)
    return {i: JobAlertRules(i, None, active=True, ended=False, active_from_ms=0, rules=rules) for i in ids}


async def insert_alert_job(db: Store, job_id: str, channel: Channel, content: dict[str, Any], _at: int) -> bool:
    def effect() -> bool:
        there = job_id in alerts_of(db).jobs
        alerts_of(db).jobs.setdefault(job_id, (channel.name, content["since"], content["said"]))
        return not there

    return bool((await db.write(effect))[0])


async def for_sending(db: Store, names: Collection[str]) -> tuple[dict[str, Channel], dict[str, str]]:
    def effect() -> tuple[set[str], set[str]]:
        there = alerts_of(db).channels & set(names)
        return there - alerts_of(db).locked, there & alerts_of(db).locked

    usable, locked = await db.read(effect)
    return {n: Channel(n, "webhook", "http://x.example") for n in usable}, dict.fromkeys(locked, "no key")


async def write_incident(db: Store, incident: Incident) -> bool:
    def effect() -> bool:
        there = alerts_of(db).incidents.get(incident.id)
        if (0 if there is None else there.rev) != incident.rev:
            return False
        alerts_of(db).incidents[incident.id] = replace(incident, rev=incident.rev + 1)
        return True

    return bool((await db.write(effect))[0])


async def get_incident(db: Store, job_id: str, kind: IncidentKind) -> Incident | None:
    found: Incident | None = await db.read(lambda: alerts_of(db).incidents.get(f"{job_id}:{kind.value}"))
    return found


async def due_for_check(db: Store, before_ms: int, limit: int) -> list[Incident]:
    def effect() -> list[Incident]:
        return [i for i in alerts_of(db).incidents.values() if i.open and i.checked_ms < before_ms][:limit]

    found: list[Incident] = await db.read(effect)
    return found


async def with_unsent_notices(db: Store, after: str, limit: int) -> list[Incident]:
    def effect() -> list[Incident]:
        return [i for i in alerts_of(db).incidents.values() if i.pending_notices and i.id > after][:limit]

    found: list[Incident] = await db.read(effect)
    return found


async def present_windows(db: Store) -> list[Window]:
    found: list[Window] = await db.read(lambda: list(alerts_of(db).windows))
    return found


async def subjects(db: Store, ids: Collection[str]) -> dict[str, Subject]:
    return await db.read(lambda: {i: Subject(TAGS, "x.example:80", None) for i in ids}) or {}


async def nothing(*_: Any) -> None:
    """No default rules."""


async def none_silent(*_: Any) -> list[Any]:
    return []


async def none_deleted(*_: Any) -> int:
    return 0


def install(patch: pytest.MonkeyPatch) -> None:
    """Put the twins in the place of the store's functions."""
    for name, twin in {
        "alert_results.pending": pending,
        "alert_results.clear_pending": clear_pending,
        "alert_results.latest": latest,
        "alert_jobs.alert_rules_of": alert_rules_of,
        "alert_jobs.insert": insert_alert_job,
        "alert_jobs.silence_candidates": none_silent,
        "alert_jobs.delete_ended": none_deleted,
        "channels.for_sending": for_sending,
        "incidents.write": write_incident,
        "incidents.get": get_incident,
        "incidents.due_for_check": due_for_check,
        "incidents.with_unsent_notices": with_unsent_notices,
        "windows.present": present_windows,
        "windows.subjects": subjects,
        "meta.default_rules": nothing,
    }.items():
        patch.setattr(f"cluster.store.{name}", twin)


# -- the scenario ----------------------------------------------------------------------------------------------------


class Muting:
    """Two leaders that trust their terms for ever, a job that fails and recovers, an operator.

    After each write: nobody was notified of the end of an incident that he does not know, and of nothing twice. In the end:
    whoever was notified that one began was notified that it is over, and nothing waits.
    """

    always_muted = False

    def __init__(self, seed: int, trouble: float = 0.08) -> None:
        self.world = World(seed, trouble)
        self._db: Any = self.world.store
        self._seen = -1
        self._number = 0
        remind = self.world.random.choice((None, 4000))
        self._alerts = ALERTS[id(self.world.store)] = Alerts(AlertRules(CHANNELS[:2], on_dead=True, remind_ms=remind))

    def run(self) -> World:
        w = self.world
        try:
            self._mute(on=self.always_muted)
            for _ in range(2):
                w.spawn("leader", self._lead(60.0))
            w.spawn("job", self._fail_and_recover())
            w.spawn("operator", self._operate())
            w.run(60.0, self._check, self._again)
            w.trouble = 0.0
            while w.store.postponed:
                w.store.postponed.pop()()
            w.store.writes += 1
            self._alerts.locked.clear()
            self._mute(on=self.always_muted)
            self._record("succeeded")
            w.spawn("leader", self._lead(w.now + 8))
            w.run(w.now + 9, self._check)
            self._complete()
        finally:
            ALERTS.pop(id(w.store), None)
        return w

    def _again(self, name: str) -> None:
        if name == "leader":
            self.world.spawn(name, self._lead(60.0))

    async def _lead(self, until: float) -> None:
        clock: Any = self.world.clock()
        alerter = Alerter(self._db, clock, 7)
        while self.world.now < until:
            try:
                await alerter.step()
            except StoreError:
                await turn(1.0)
            await turn(1.0)

    def _record(self, state: str) -> None:
        self._number += 1
        name = f"{JOB}:{self._number:013d}"
        ended = START_MS + int(self.world.now * 1000) + 1
        self._alerts.results[name] = RecordedResult(name, JOB, state, ended)
        if state == "dead":
            self._alerts.pending.add(name)

    async def _fail_and_recover(self) -> None:
        random = self.world.random
        while self.world.now < 50.0:
            await turn(random.random() * random.choice((2, 12)))
            self._record(random.choice(("dead", "succeeded")))

    def _mute(self, *, on: bool) -> None:
        end = START_MS + 10_000_000
        self._alerts.windows = [Window("quiet", "mute", tags=TAGS, from_ms=0, until_ms=end)] if on else []

    async def _operate(self) -> None:
        random, alerts = self.world.random, self._alerts
        while self.world.now < 50.0:
            await turn(random.random() * 8)
            what = random.random()
            if what < 0.6:
                self._mute(on=self.always_muted or random.random() < 0.5)
            elif what < 0.75:
                alerts.locked = {c for c in CHANNELS if random.random() < 0.3}
            elif what < 0.9:
                alerts.rules = replace(alerts.rules, channels=tuple(random.sample(CHANNELS, 2)))
            else:
                alerts.channels ^= {"desk"}

    def _check(self) -> None:
        store = self.world.store
        if store.writes == self._seen:
            return
        self._seen = store.writes
        heard = sorted(self._alerts.jobs.values())
        known = {(channel, since) for channel, since, said in heard if said != "over"}
        for channel, since, said in heard:
            if self.always_muted:
                raise Broken(f"{channel} was notified of {said}, and all was muted")
            if said == "over" and (channel, since) not in known:
                raise Broken(f"{channel} was notified of the end of what it was never notified of")
        once = [h for h in heard if h[2] != "reminder"]
        if len(once) != len(set(once)):
            raise Broken("a channel was notified twice")

    def _complete(self) -> None:
        for incident in self._alerts.incidents.values():
            if incident.open or (incident.pending_notices and not self.always_muted):
                raise Broken(f"{incident} waits")
        heard = set(self._alerts.jobs.values())
        for channel, since, said in heard:
            may_have_been_away = channel == "desk"
            if said == "began" and not may_have_been_away and (channel, since, "over") not in heard:
                raise Broken(f"{channel} was not notified of the end of what began")


class AlwaysMuted(Muting):
    """From before the first incident until after the last one."""

    always_muted = True
