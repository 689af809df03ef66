"""Alerts while leaders overlap, freeze and die, and windows mute them. See `muting.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cluster.core.alerts import AlertRules, IncidentKind, Symptom, with_symptom
from cluster.core.incident_notices import with_commitments, without_news
from cluster.leader import alerting
from cluster.store import incidents
from tests.simulation import muting
from tests.simulation.explore import explore, first_to_show
from tests.simulation.model import Store
from tests.simulation.muting import ALERTS, JOB, Alerts, AlwaysMuted, Muting

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.core.alerts import Incident
    from cluster.store.mongo.client import Database

RUNS = 150


@pytest.mark.parametrize("scenario", [Muting, AlwaysMuted])
def test_whoever_knows_of_a_beginning_is_notified_of_the_end(
    monkeypatch: pytest.MonkeyPatch, scenario: type[Muting]
) -> None:
    """And nobody else is, and nobody twice. What began and ended while all was muted is never told."""
    muting.install(monkeypatch)
    assert len(explore(scenario, RUNS)) >= RUNS * 0.99


def _mutes_the_committed(patch: pytest.MonkeyPatch) -> None:
    """A window drops what a leader that died may have sent."""

    def forgetful(incident: Incident) -> Incident:
        as_new = tuple(replace(n, committed=False) for n in incident.pending_notices)
        return without_news(replace(incident, pending_notices=as_new))

    patch.setattr(alerting, "without_news", forgetful)


def _end_by_the_rules(patch: pytest.MonkeyPatch) -> None:
    """The end goes to the channels that the rules name by then."""
    patch.setattr("cluster.core.alerts._channels_of_end", lambda _incident, rules: rules.channels)


@pytest.mark.parametrize(
    ("broken", "finding"),
    [
        (_mutes_the_committed, "was not notified of the end"),
        (_end_by_the_rules, "was not notified of the end|never notified of"),
    ],
)
def test_each_broken_rule_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[[pytest.MonkeyPatch], None], finding: str
) -> None:
    """A storm that finds nothing proves nothing."""
    muting.install(monkeypatch)
    broken(monkeypatch)
    first_to_show(finding, Muting, 500)


async def test_the_twin_of_an_incident_is_written_as_the_real_one(database: Database) -> None:
    """Only on the revision that was read; what is committed and who was notified is kept."""
    rules = AlertRules(("ops", "chat"), on_dead=True)
    new = with_symptom(None, JOB, Symptom(IncidentKind.FAILING, 5, "503"), rules, 5)
    assert new is not None
    twin = Store(lambda: 0)
    ALERTS[id(twin)] = Alerts(rules)
    real: Any = database
    try:
        for db, write, get in (
            (twin, muting.write_incident, muting.get_incident),
            (real, incidents.write, incidents.get),
        ):
            assert await write(db, new)  # type: ignore[arg-type]
            assert not await write(db, new)  # type: ignore[arg-type]
            found = await get(db, JOB, IncidentKind.FAILING)  # type: ignore[arg-type]
            assert found == replace(new, rev=1)
            told = with_commitments(found, {"ops"}, {"chat"})
            assert told.notified == ("ops",)
            assert await write(db, told)  # type: ignore[arg-type]
            assert await get(db, JOB, IncidentKind.FAILING) == replace(told, rev=2)  # type: ignore[arg-type]
            assert not await write(db, told)  # type: ignore[arg-type]
    finally:
        del ALERTS[id(twin)]
