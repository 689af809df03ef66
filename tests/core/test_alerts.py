"""Incidents: every kind against every event, and the notices they have whatever happens."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.core.alerts import (
    DRIFT_QUIET_MS,
    AlertRules,
    Incident,
    IncidentKind,
    JobStanding,
    NoticeKind,
    RecordedResult,
    Symptom,
    after_check,
    is_watched,
    symptoms,
    watch_of,
    with_symptom,
)
from cluster.core.lifecycle import State
from cluster.core.notice_texts import webhook_payload

ALL = AlertRules(("ops",), on_dead=True, on_missed=True, drift_over_ms=100, no_run_ms=5000, remind_ms=60_000)


def result(state: str, ended: int, drift: int | None = None, count: int = 1) -> RecordedResult:
    return RecordedResult(f"j:{ended:013d}", "j", state, ended, drift, "why", count)


def opened(kind: IncidentKind, at: int = 1000) -> Incident:
    found = with_symptom(None, "j", Symptom(kind, at, "d", "e"), ALL, at)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("rules", "marks", "latest", "expected"),
    [
        (AlertRules(("c",), on_dead=True), [result("dead", 5)], [], [IncidentKind.FAILING]),
        (AlertRules(("c",), on_dead=True), [result("failed", 5)], [], []),
        (AlertRules((), on_dead=True), [result("dead", 5)], [], []),
        (AlertRules(("c",), after_failures=2), [result("dead", 5)], [result("dead", 5)], []),
        (
            AlertRules(("c",), after_failures=2),
            [result("dead", 5)],
            [result("dead", 5), result("failed", 4)],
            [IncidentKind.FAILING],
        ),
        (AlertRules(("c",), after_failures=2), [result("dead", 5)], [result("succeeded", 6), result("dead", 5)], []),
        (AlertRules(("c",), on_missed=True), [result("missed", 5, count=7)], [], [IncidentKind.MISSED]),
        (AlertRules(("c",), on_dead=True), [result("missed", 5)], [], []),
        (AlertRules(("c",), drift_over_ms=100), [result("succeeded", 5, 101)], [], [IncidentKind.DRIFT]),
        (AlertRules(("c",), drift_over_ms=100), [result("succeeded", 5, 100)], [], []),
        (
            ALL,
            [result("dead", 5, 300), result("missed", 6)],
            [],
            [IncidentKind.FAILING, IncidentKind.MISSED, IncidentKind.DRIFT],
        ),
    ],
)
def test_a_result_is_a_symptom_exactly_if_a_rule_covers_it(
    rules: AlertRules, marks: list[RecordedResult], latest: list[RecordedResult], expected: list[IncidentKind]
) -> None:
    """Without a channel there is no symptom."""
    assert [t.kind for t in symptoms(rules, marks, latest)] == expected


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("drift", [None, 100, 101])
def test_exactly_the_results_that_rules_need_are_watched(state: State, drift: int | None) -> None:
    """Without rules, or without channels, no result is watched."""
    assert not is_watched(watch_of(AlertRules()), state, drift)
    assert not is_watched(watch_of(AlertRules((), on_dead=True, drift_over_ms=1)), state, drift)
    assert is_watched(watch_of(AlertRules(("c",), on_dead=True)), state, drift) == (state in (State.DEAD, State.FAILED))
    assert is_watched(watch_of(AlertRules(("c",), drift_over_ms=100)), state, drift) == (drift == 101)


OVER: dict[IncidentKind, list[tuple[RecordedResult | None, int, bool]]] = {
    # kind: (latest result, milliseconds after it was bad, whether that ends it)
    IncidentKind.FAILING: [
        (None, 9000, False),
        (result("dead", 2000), 9000, False),
        (result("succeeded", 900), 9000, False),
        (result("succeeded", 2000), 9000, True),
    ],
    IncidentKind.MISSED: [(result("failed", 2000), 9000, False), (result("succeeded", 2000), 9000, True)],
    IncidentKind.DRIFT: [
        (result("succeeded", 2000, 5), DRIFT_QUIET_MS - 1, False),
        (result("succeeded", 2000, 101), DRIFT_QUIET_MS, False),
        (result("succeeded", 2000, 5), DRIFT_QUIET_MS, True),
    ],
    IncidentKind.NO_RUN: [
        (None, 9000, False),
        (result("succeeded", 900), 9000, True),
        (result("succeeded", 2000), 9000, True),
    ],
}


@pytest.mark.parametrize(("kind", "case"), [(k, c) for k, cases in OVER.items() for c in cases])
def test_only_a_later_good_result_ends_an_incident(
    kind: IncidentKind, case: tuple[RecordedResult | None, int, bool]
) -> None:
    """An incident whose rule was removed ends without a notice."""
    latest, after, ends = case
    incident = opened(kind)
    found = after_check(incident, replace(ALL, remind_ms=None), latest, 1000 + after)
    assert found.open is not ends
    assert [n.kind for n in found.pending_notices] == [NoticeKind.BEGAN, *([NoticeKind.RESOLVED] if ends else [])]
    quiet = after_check(incident, None, latest, 2000)
    assert not quiet.open
    assert [n.kind for n in quiet.pending_notices] == [NoticeKind.BEGAN]


def test_reminders_come_at_their_interval_and_never_for_a_paused_job() -> None:
    """One per `remindAfterSeconds`, counted from the last notice."""
    incident = opened(IncidentKind.FAILING)
    at = 1000
    for _ in range(3):
        assert len(after_check(incident, ALL, None, at + 59_999).pending_notices) == len(incident.pending_notices)
        assert len(after_check(incident, ALL, None, at + 60_000, JobStanding(active=False)).pending_notices) == len(
            incident.pending_notices
        )
        at += 60_000
        incident = after_check(incident, ALL, None, at)
    assert [(n.kind, n.number) for n in incident.pending_notices[1:]] == [(NoticeKind.REMINDER, n) for n in (1, 2, 3)]


@given(st.lists(st.tuples(st.sampled_from(["bad", "good", "again"]), st.integers(1, 40_000)), max_size=40))
def test_every_incident_has_one_notice_at_its_start_and_one_at_its_end(events: list[tuple[str, int]]) -> None:
    """In any order of events, also repeated ones: began, reminders, over, began ..., each with an id of its own."""
    now, incident = 1, None
    last: Symptom | None = None
    for event, passed in events:
        now += passed
        if event == "bad":
            last = Symptom(IncidentKind.FAILING, now, "d", "e")
        if event != "good" and last is not None:
            incident = with_symptom(incident, "j", last, ALL, now) or incident
        elif event == "good" and incident is not None and incident.open:
            incident = after_check(incident, ALL, result("succeeded", now), now)
        elif incident is not None and incident.open:
            incident = after_check(incident, ALL, None, now)
    if incident is None:
        return
    said = [n.kind for n in incident.pending_notices if n.kind is not NoticeKind.REMINDER]
    assert said == [NoticeKind.BEGAN, NoticeKind.RESOLVED] * (len(said) // 2) + [NoticeKind.BEGAN] * (len(said) % 2)
    assert incident.open == (len(said) % 2 == 1)
    names = [incident.notice_job_id(n, c) for n in incident.pending_notices for c in ("a", "b")]
    assert len(set(names)) == len(names)
    for n in incident.pending_notices:
        assert "j" in webhook_payload(incident, n, None)["text"]
