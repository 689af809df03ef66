"""The findings about single records, as values: no database, one job that is due every minute."""

from __future__ import annotations

from typing import Any

from cluster.core.ids import spread_ms
from cluster.core.verify.findings import Finding, VerifyCounts
from cluster.core.verify.judge import JobVerifier
from cluster.core.verify.records import BatchLeaseTimings, Record, RecordedAttempt
from cluster.core.verify.subjects import Bounds, MissedRecord, OwedPeriod, VerifiedJob

T = 1_800_000_000_000


MINUTE = 60_000


HOUR = 60 * MINUTE


NOW = T + 10 * MINUTE


ALWAYS = OwedPeriod("v1", "0 * * * * *", "UTC", None, None, None, T - HOUR, None)


def judged(final: Record | None = None, owed: Record | None = None, **job: Any) -> tuple[list[str], VerifyCounts]:
    """The kinds of what is found of the one occurrence at T."""
    found: list[Finding] = []
    bounds = Bounds(T, T + MINUTE - 1, NOW, MINUTE, 7, 7, BatchLeaseTimings(10_000, 1000))
    judge = JobVerifier(VerifiedJob("j", (ALWAYS,), written_to_ms=T + HOUR, **job), bounds, found.append)
    judge.check(T, final, owed)
    judge.finish()
    return [f.kind for f in found], judge.counts


def kinds(final: Record | None = None, owed: Record | None = None, **job: Any) -> list[str]:
    return judged(final, owed, **job)[0]


def record(state: str, *attempts: RecordedAttempt, **fields: Any) -> Record:
    ended = 0 if state in ("pending", "leased", "retrying") else max([T, *(a.sent_ms for a in attempts)]) + 10
    said: dict[str, Any] = {"send_ms": T, "version": "v1", "ended_ms": ended, "trigger": False, **fields}
    return Record(f"j:{T}", T, state=state, attempts=list(attempts), stored_job_id="j", stored_due_ms=T, **said)


def sent(number: int, after_ms: int, token: int, status: int | None = 500) -> RecordedAttempt:
    return RecordedAttempt(number, T + after_ms, "n", token, 5.0, status)


def test_executions_are_counted_by_final_state() -> None:
    """A cluster whose executions are all dead has no finding. The counts distinguish it from one without failures."""
    for state, attempts in (("succeeded", [sent(1, 20, 1, 200)]), ("dead", [sent(1, 20, 1)]), ("dead", [])):
        found, tally = judged(record(state, *attempts))
        assert found == []
        assert {k: n for k, n in tally.ended.items() if n} == {state: 1}
    total = VerifyCounts()
    total.add(tally)
    total.add(tally)
    assert total.ended["dead"] == 2
    again = record("pending", version="v2")
    assert sum(judged(record("cancelled"), again)[1].ended.values()) == 0, "it is owed by another schedule"


def test_a_send_time_that_no_retry_explains_is_a_contradiction() -> None:
    """Every send time that no writer sets is a finding, however far ahead it is. A legal one is none."""
    day, ahead = 24 * HOUR, NOW + 365 * 24 * HOUR
    failed = sent(1, 20, 1, 503)
    changed = {"defined_ms": NOW}
    for wrong, job in (
        (record("pending", send_ms=ahead), {}),
        (record("pending", send_ms=NOW + 1), {}),
        (record("pending", send_ms=T + day + 1), changed),
        (record("pending", send_ms=NOW + 2, trigger=True), {}),
        (record("retrying", send_ms=NOW + 2 * HOUR, trigger=True, replayed=True), {}),
        (record("retrying", failed, send_ms=ahead), {}),
        (record("retrying", failed, send_ms=ahead), changed),
        (record("retrying", failed, send_ms=NOW + 2 * HOUR), {"longest_wait_s": 360.0}),
    ):
        assert kinds(None, wrong, **job) == ["contradiction"], wrong
    spread = spread_ms("j", 86_400)
    assert spread > HOUR
    for right, job in (
        (record("pending", send_ms=T + spread), {"spread_seconds": 86_400}),
        (record("pending", send_ms=T + spread), changed),
        (record("pending", send_ms=NOW), {}),
        (record("retrying", send_ms=NOW, trigger=True, replayed=True), {}),
        (record("retrying", failed, send_ms=NOW + 300_000), {"longest_wait_s": 360.0}),
        (record("retrying", failed, send_ms=NOW + 2 * day), changed | {"longest_wait_s": 360.0}),
    ):
        assert kinds(None, right, **job) == [], right


def test_attempts_start_over_only_after_a_replay() -> None:
    """If records hold the time of a replay, a second first attempt is a duplicate unless a replay was requested after the first."""
    tries = (sent(1, 20, 1), sent(2, 1000, 2), sent(1, 3000, 2, 200))
    kept: dict[str, Any] = {"send_ms": T + 2900, "replay_time_kept": True}
    assert kinds(record("succeeded", *tries, send_ms=T + 2900)) == [], "of a release that kept nothing"
    assert kinds(record("succeeded", *tries, **kept)) == ["duplicate"]
    claimed = (*tries[:2], sent(1, 3000, 3, 200))
    assert kinds(record("succeeded", *claimed, **kept)) == ["duplicate"], "a later claim goes on with the third"
    stale = (sent(1, 20, 5), sent(2, 1000, 6), sent(1, 3000, 4), sent(3, 4000, 7, 200))
    assert kinds(record("succeeded", *stale, send_ms=T + 3900, replay_time_kept=True)) == ["redelivered"], (
        "had lost its lease"
    )
    assert kinds(record("succeeded", *tries, **kept, replayed_ms=T + 2900)) == []
    assert kinds(record("succeeded", *tries, **kept, replayed_ms=T + 1)) == ["duplicate"], (
        "that was before any was sent"
    )
    more = (*tries[:2], sent(1, 3000, 2), sent(2, 4000, 3), sent(1, 6000, 3, 200))
    later = kept | {"send_ms": T + 5900}
    assert kinds(record("succeeded", *more, **later, replayed_ms=T + 5900)) == [], "the last time alone is kept"
    assert kinds(record("succeeded", *more, **later, replayed_ms=T + 2900)) == ["duplicate"], (
        "it started over twice, one replay was requested"
    )


def test_a_second_delivery_after_a_lost_lease_is_no_replay() -> None:
    """A later token explains a second delivery, whether or not a replay was requested."""
    tries = (sent(1, 20, 1, None), sent(1, 12_000, 2, 200))
    assert kinds(record("succeeded", *tries, replay_time_kept=True)) == ["redelivered"]


def test_an_unrelated_change_keeps_the_success_codes_in_force() -> None:
    """The time of the `successCodes` is stored by itself, so that a new name of the job hides no finding."""
    after = record("succeeded", sent(1, 0, 1, 200), sent(2, 1000, 2, 200))
    dead = record("dead", sent(1, 0, 1, 200))
    changed: dict[str, Any] = {"defined_ms": T + MINUTE}
    for unknown in (changed, {**changed, "success_codes_since_ms": T + MINUTE}):
        assert kinds(after, **unknown) == []
        assert kinds(dead, **unknown) == []
    for known in ({}, {**changed, "success_codes_since_ms": T - 1}):
        assert kinds(after, **known) == ["duplicate"]
        assert kinds(dead, **known) == ["contradiction"]


def test_a_missed_range_covers_what_was_cancelled_under_an_earlier_schedule() -> None:
    """No node led after the change: a node cancelled the occurrence, then the leader recorded it as missed. The range covers as many as its count."""
    old = OwedPeriod("v1", "0 * * * * *", "UTC", None, None, None, T - HOUR, T - 1500)
    new = OwedPeriod("v2", "0 */1 * * * *", "UTC", None, None, None, T - 1499, None)

    def found(*ranges: MissedRecord) -> list[str]:
        findings: list[Finding] = []
        bounds = Bounds(T, T + 2 * MINUTE - 1, NOW, MINUTE, 7, 7, BatchLeaseTimings(10_000, 1000))
        judge = JobVerifier(VerifiedJob("j", (old, new), written_to_ms=T + HOUR, defined_ms=T), bounds, findings.append)
        for m in ranges:
            if m.first_ms < T:
                judge.add_missed(m)
        judge.check(T, record("cancelled", sent(1, 20, 1)), None)
        for m in ranges:
            if m.first_ms >= T:
                judge.add_missed(m)
        judge.finish()
        return [f"{f.kind} {(int(f.execution.partition(':')[2]) - T) // MINUTE}" for f in findings]

    def missed(first: int, last: int, count: int) -> MissedRecord:
        return MissedRecord(T + first * MINUTE, T + last * MINUTE, count, open=False, ended_ms=NOW)

    assert found() == ["missing 0", "missing 1"]
    assert found(missed(0, 0, 1)) == ["missing 1"]
    assert found(missed(0, 1, 2)) == found(missed(-1, 1, 3)) == []
    assert found(missed(0, 1, 1)) == ["missing 1"]
    assert found(missed(1, 1, 1)) == ["missing 0"]
