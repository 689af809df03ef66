"""`horae verify` and `explain` of what a backfill sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bson.datetime_ms import DatetimeMS

from cluster.core.explain.sentences import Sentence
from cluster.usecases.explain import explain_job
from tests.support.verify_records import AT, MINUTE, NOW, Books, attempt, final, kinds, missed

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

BACKFILL = "4f9c3ef0a3e94f2bb0f8d9a8f2a1c7de"
ASKED = NOW - 2 * MINUTE


def backfilled(send: int, *tries: int) -> dict[str, object]:
    """The fields of a record of an occurrence that a backfill sent in so many attempts."""
    attempts = [attempt(at, n + 1, n + 1, status=200 if at == tries[-1] else 503) for n, at in enumerate(tries)]
    return {
        "trigger": True,
        "asked_at": DatetimeMS(ASKED),
        "request": BACKFILL,
        "send_at": DatetimeMS(send),
        "attempts": attempts,
        "drift_ms": tries[0] - send if len(tries) == 1 else 0,
        "ended_at": DatetimeMS(tries[-1] + 10),
    }


async def test_what_a_backfill_sent_is_no_finding(database: Database) -> None:
    """Minutes after it was due, with retries too; beside a missed range that covers it; and once more under its own id."""
    b = Books(database)
    at_once = b.job("at-once")
    b.change(at_once, AT, **backfilled(ASKED + 5000, ASKED + 5020))
    retried = b.job("retried")
    b.change(retried, AT, **backfilled(ASKED + 90_000, ASKED + 30_000, ASKED + 90_000))
    ranged = b.job("ranged", catch_up="none")
    b.change(ranged, AT, **backfilled(ASKED + 5000, ASKED + 5020))
    b.drop(ranged, AT + MINUTE)
    b.add(missed(ranged, AT, AT + MINUTE, 2))
    again = b.job("again")
    b.add(final(again, AT, **backfilled(ASKED + 5000, ASKED + 5020)) | {"_id": f"again:{AT:013d}:{BACKFILL}"})
    report = await b.verified(late_seconds=15)
    assert kinds(report) == {}, report.findings


async def test_a_run_once_more_does_not_stand_for_the_occurrence(database: Database) -> None:
    """Only its own record does; and an id with another third part is none of ours."""
    b = Books(database)
    hidden = b.job("hidden")
    b.drop(hidden, AT)
    b.add(final(hidden, AT, **backfilled(ASKED, ASKED + 20)) | {"_id": f"hidden:{AT:013d}:{BACKFILL}"})
    odd = b.job("odd")
    b.add(final(odd, AT) | {"_id": f"odd:{AT:013d}:again"})
    assert kinds(await b.verified()) == {"hidden": ["missing"], f"odd:{AT:013d}": ["unexpected"]}


async def test_an_explanation_names_the_backfill(database: Database) -> None:
    """Of the occurrence that it sent, and of the run that it sent once more: at the time of the request."""
    b = Books(database)
    job = b.job("j")
    b.change(job, AT, **backfilled(ASKED + 5000, ASKED + 5020))
    b.add(final(job, AT, **backfilled(ASKED + 6000, ASKED + 6020)) | {"_id": f"j:{AT:013d}:{BACKFILL}"})
    await b.verified()
    told = await explain_job(database, "j", AT, 7)
    assert [e.state for e in told.occurrences] == ["succeeded", "succeeded"]
    for e in told.occurrences:
        assert Sentence(ASKED, f"backfill {BACKFILL} asked for it") in e.sentences


@pytest.mark.parametrize("before", [(), (AT + 20,)], ids=["it was missed, or cancelled", "it had failed"])
async def test_a_late_send_time_of_what_was_asked_for_is_not_the_spread_of_its_job(
    database: Database, before: tuple[int, ...]
) -> None:
    """The record of a missed or a cancelled execution stays its own when it is sent after all, and names no request."""
    b = Books(database)
    fields = backfilled(ASKED + 5000, *before, ASKED + 5020) | {"trigger": False, "request": None}
    b.change(b.job("j"), AT, **fields)
    await b.verified()
    (told,) = (await explain_job(database, "j", AT, 7)).occurrences
    texts = [s.text for s in told.sentences]
    assert not any("spreadSeconds" in text for text in texts)
    assert (Sentence(ASKED, "a backfill or a replay asked for it") in told.sentences) is (not before)
