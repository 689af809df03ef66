"""Incidents: every kind against every event, and what holds whatever happens."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

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
from cluster.core.documents.alerts import AlertSpec, ChannelSpec
from cluster.core.documents.job_json import faults_of
from cluster.core.lifecycle import State
from cluster.core.notice_texts import notice_text, webhook_payload

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
def test_which_results_are_troubles(
    rules: AlertRules, marks: list[RecordedResult], latest: list[RecordedResult], expected: list[IncidentKind]
) -> None:
    """Exactly what a rule says, and nothing without somebody to tell."""
    assert [t.kind for t in symptoms(rules, marks, latest)] == expected


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("drift", [None, 100, 101])
def test_what_is_marked_is_what_could_be_a_trouble(state: State, drift: int | None) -> None:
    """Whoever records marks all that the rules might be about, and nothing of jobs without rules."""
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
def test_when_each_kind_is_over(kind: IncidentKind, case: tuple[RecordedResult | None, int, bool]) -> None:
    """Only a later good result ends it; a job or rule that is gone ends it without a word."""
    latest, after, ends = case
    incident = opened(kind)
    found = after_check(incident, replace(ALL, remind_ms=None), latest, 1000 + after)
    assert found.open is not ends
    assert [n.kind for n in found.pending_notices] == [NoticeKind.BEGAN, *([NoticeKind.RESOLVED] if ends else [])]
    quiet = after_check(incident, None, latest, 2000)
    assert not quiet.open
    assert [n.kind for n in quiet.pending_notices] == [NoticeKind.BEGAN]


def test_reminders_come_as_often_as_asked_and_not_for_a_paused_job() -> None:
    """One each `remindAfterSeconds`, counted from the last word."""
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
def test_one_word_at_the_beginning_and_one_at_the_end(events: list[tuple[str, int]]) -> None:
    """Whatever comes in whatever order, also twice: began, reminders, over, began ..., each under an id of its own."""
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


@pytest.mark.parametrize("kind", IncidentKind)
def test_a_notice_names_the_job_and_says_since_when(kind: IncidentKind) -> None:
    """The same sentence while it lasts and as a reminder; the end says what it had been."""
    incident = after_check(opened(kind), ALL, None, 70_000)
    began, reminder = incident.pending_notices
    over = replace(reminder, kind=NoticeKind.RESOLVED)
    first = notice_text(incident, began, "Nightly")
    assert first.startswith("Job Nightly (j) has ")
    assert first.endswith(" since 1970-01-01T00:00:01.000Z: d")
    assert notice_text(incident, reminder, "Nightly") == f"Reminder: j{first[1:]}"
    assert notice_text(incident, over, None).startswith("Resolved: job j recovered. It had ")
    assert webhook_payload(incident, over, None)["type"] == f"{kind.value}.over"


@pytest.mark.parametrize(
    ("wrong", "path", "words"),
    [
        ({}, "channels", "required"),
        ({"channels": "ops"}, "channels", "array"),
        ({"channels": ["a b"]}, "channels.0", "characters"),
        ({"channels": ["a", "a"]}, "channels", "twice"),
        ({"channels": ["a"]}, "", "no rule"),
        ({"channels": [], "onDead": True}, "", "no channel"),
        ({"channels": ["a"], "afterFailures": 0}, "afterFailures", "at least 1"),
        ({"channels": ["a"], "afterFailures": True}, "afterFailures", "number"),
        ({"channels": ["a"], "remindAfterSeconds": 5, "onDead": True}, "remindAfterSeconds", "at least 60"),
        ({"channels": ["a"], "onDaed": True}, "onDaed", "unknown"),
    ],
)
def test_wrong_rules_are_named(wrong: dict[str, object], path: str, words: str) -> None:
    """Each fault has its path and says what would be right."""
    with pytest.raises(ValidationError) as caught:
        AlertSpec.model_validate(wrong)
    assert any(f.path == path and words in f.message for f in faults_of(caught.value)), faults_of(caught.value)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"type": "pager"}, '"webhook"'),
        ({"type": "webhook"}, "must have url"),
        ({"type": "email", "url": "https://api.example.com/"}, "must have to"),
        ({"type": "email", "to": ["nobody"]}, "mail address"),
        ({"type": "email", "to": ["a@b\r\nBcc: c@d"]}, "mail address"),
        ({"type": "slack", "url": "http://127.0.0.1/x"}, "127.0.0.1"),
        (
            {"type": "slack", "url": "https://api.example.com/", "signingSecret": "whsec_" + "QUJD" * 8},
            "only requests to a webhook",
        ),
    ],
)
def test_wrong_channels_are_named(wrong: dict[str, object], words: str) -> None:
    """So are those of channels, private addresses among them."""
    with pytest.raises(ValidationError) as caught:
        ChannelSpec.model_validate(wrong, context={"networks": (), "can_encrypt": True, "can_mail": True})
    assert any(words in f.message for f in faults_of(caught.value)), faults_of(caught.value)
