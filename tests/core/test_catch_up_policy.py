"""The catch-up policy: every policy against every position of the window, and parts that are split one by one."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.core.catch_up_policy import missed_reason, split, window_start_ms

OWED = (10, 20, 30)
WINDOWS = (0, 10, 11, 20, 21, 30, 31)
# window start -> what `all` and `latest` run of OWED
RUNS = {0: (3, 1), 10: (3, 1), 11: (2, 1), 20: (2, 1), 21: (1, 1), 30: (1, 1), 31: (0, 0)}


@pytest.mark.parametrize(
    ("policy", "window_from_ms", "owes_later"),
    list(itertools.product(("all", "latest", "none"), WINDOWS, (False, True))),
)
def test_every_policy_with_every_window(policy: str, window_from_ms: int, owes_later: bool) -> None:
    """`all` runs the window, `latest` its last one unless a later part has it, `none` nothing; the rest is missed."""
    within, latest = RUNS[window_from_ms]
    expected = {"all": within, "latest": 0 if owes_later else latest, "none": 0}[policy]
    missed, runs = split(policy, OWED, window_from_ms, owes_later=owes_later)
    assert (missed, runs) == (list(OWED[: 3 - expected]), list(OWED[3 - expected :]))


@pytest.mark.parametrize("policy", ["all", "latest", "none"])
@pytest.mark.parametrize("owes_later", [False, True])
def test_a_job_that_owes_nothing_misses_nothing_and_runs_nothing(policy: str, owes_later: bool) -> None:
    assert split(policy, [], 0, owes_later=owes_later) == ([], [])


@given(
    st.lists(st.integers(0, 100), unique=True, max_size=30).map(sorted),
    st.integers(0, 101),
    st.integers(1, 7),
    st.sampled_from(["all", "latest", "none"]),
)
def test_parts_of_a_range_add_up_to_the_range(owed: list[int], window_from_ms: int, size: int, policy: str) -> None:
    """A range is split in segments to count and in slices to run: the sum never depends on where they end."""
    whole = split(policy, owed, window_from_ms, owes_later=False)
    missed: list[int] = []
    runs: list[int] = []
    for start in range(0, len(owed), size):
        part = split(policy, owed[start : start + size], window_from_ms, owes_later=start + size < len(owed))
        missed += part[0]
        runs += part[1]
    assert (missed, runs) == whole


def test_the_window_is_never_longer_than_half_the_retention() -> None:
    """History cannot tell of what is older whether it was sent."""
    day = 86_400_000
    assert window_start_ms(10 * day, 3600, 7.0) == 10 * day - 3_600_000
    assert window_start_ms(10 * day, 30 * 86_400, 7.0) == 10 * day - 7 * day // 2
    assert window_start_ms(10 * day, 0, 7.0) == 10 * day


def test_the_reason_names_the_setting_that_decided() -> None:
    assert "catchUpWindowSeconds (30)" in missed_reason("all", 30)
    assert missed_reason("latest", 30).endswith("catchUp is latest")
    assert missed_reason("none", 30).endswith("catchUp is none")
