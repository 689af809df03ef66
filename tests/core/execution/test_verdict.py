"""Verdicts by status, and the delay of retries."""

from __future__ import annotations

import pytest

from cluster.core.execution.model import RetryPolicy
from cluster.core.execution.verdict import Verdict, expand_codes, next_retry, round_up_to_grain, verdict_of


@pytest.mark.parametrize("status", range(100, 600))
def test_every_status_has_one_verdict(status: int) -> None:
    """2xx succeeds; 408, 425, 429 and 5xx are retried; 410 is gone; any other status is refused at once."""
    expected = Verdict.REFUSED
    if 200 <= status <= 299:
        expected = Verdict.SUCCESS
    elif status in (408, 425, 429) or status >= 500:
        expected = Verdict.RETRY
    elif status == 410:
        expected = Verdict.GONE
    assert verdict_of(status, None) is expected
    # A job's own codes say what success is, and nothing else changes: what was a success is then like any answer.
    own = expand_codes(("2xx", 404, 410, 503))
    assert verdict_of(status, None, own) is (Verdict.SUCCESS if status in (404, 410, 503) else expected)
    other = expand_codes((202,))
    without = Verdict.REFUSED if expected is Verdict.SUCCESS else expected
    assert verdict_of(status, None, other) is (Verdict.SUCCESS if status == 202 else without)


@pytest.mark.parametrize(
    "error", ["dns", "connect", "tls", "timeout", "stalled", "reset", "too_large", "protocol", "other"]
)
def test_a_missing_answer_is_retried(error: str) -> None:
    """The next attempt may get an answer."""
    assert verdict_of(None, error) is Verdict.RETRY


def test_a_denied_address_is_refused_at_once() -> None:
    """The decision of the address guard does not change with time."""
    assert verdict_of(None, "denied") is Verdict.REFUSED


@pytest.mark.parametrize("made", range(1, 12))
@pytest.mark.parametrize("luck", [0.0, 0.5, 0.999])
def test_backoff_grows_within_its_jitter_and_its_limit(made: int, luck: float) -> None:
    """The delay after n attempts is initial x multiplier^(n-1), at most the maximum, varied by the jitter."""
    retry = RetryPolicy(max_attempts=20, initial_delay_seconds=1, multiplier=2, max_delay_seconds=60, jitter=0.2)
    again = next_retry(retry, made, jitter=luck)
    assert again is not None
    nominal = min(2 ** (made - 1), 60) * 1000
    assert nominal * 0.8 - 1 <= again.delay_ms <= nominal * 1.2


def test_no_retry_follows_the_last_attempt() -> None:
    """After `max_attempts` attempts there is no retry."""
    assert next_retry(RetryPolicy(max_attempts=3), 2, jitter=0.5) is not None
    assert next_retry(RetryPolicy(max_attempts=3), 3, jitter=0.5) is None


def test_retry_after_lengthens_up_to_the_limit_and_never_shortens() -> None:
    """Retry-After lengthens the delay, up to the job's longest delay."""
    retry = RetryPolicy(max_delay_seconds=30, jitter=0)
    for asked, expected in ((0.0, 1000), (10.0, 10_000), (9999.0, 30_000)):
        again = next_retry(retry, 1, jitter=0.5, retry_after_seconds=asked)
        assert again is not None
        assert again.delay_ms == expected


def test_huge_attempt_numbers_do_not_overflow() -> None:
    """Back-off stays finite for any number of attempts."""
    again = next_retry(RetryPolicy(max_attempts=10**6, multiplier=100), 5000, jitter=0.5)
    assert again is not None
    assert again.delay_ms <= 300_000 * 1.2


def test_retries_share_a_grain() -> None:
    """Rounded up to 250 ms, never into the past."""
    assert [round_up_to_grain(t) for t in (0, 1, 249, 250, 251)] == [0, 250, 250, 250, 500]
