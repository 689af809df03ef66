"""The texts of notices."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.core.alerts import (
    AlertRules,
    Incident,
    IncidentKind,
    NoticeKind,
    Symptom,
    after_check,
    with_symptom,
)
from cluster.core.notice_texts import notice_text, webhook_payload

ALL = AlertRules(("ops",), on_dead=True, on_missed=True, drift_over_ms=100, no_run_ms=5000, remind_ms=60_000)


def opened(kind: IncidentKind, at: int = 1000) -> Incident:
    found = with_symptom(None, "j", Symptom(kind, at, "d", "e"), ALL, at)
    assert found is not None
    return found


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
