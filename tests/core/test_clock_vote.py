"""Whose clock is wrong: one vote a host, and the majority of those that can tell."""

from __future__ import annotations

import pytest

from cluster.core.clock_vote import ClockVote, elected, own_vote

NOW = 1_795_000_000_000
JUMP = 120_000


@pytest.mark.parametrize(
    ("wall_ms", "held_ms", "vote"),
    [
        (NOW + 300, JUMP, JUMP),
        (NOW + JUMP - 300, JUMP, 0),
        (NOW + 50_000, JUMP, None),
        (NOW - 1999, -JUMP, -JUMP),
        (NOW - JUMP, -JUMP, 0),
        (NOW + JUMP, -JUMP, None),
    ],
)
def test_a_node_votes_by_its_own_machine(wall_ms: int, held_ms: int, vote: int | None) -> None:
    """For cluster time as it was carried on, for the primary, or not at all if its own clock is wrong."""
    assert own_vote(wall_ms, NOW, held_ms) == vote


@pytest.mark.parametrize(
    ("votes", "jump_ms"),
    [
        ([("a", JUMP)], JUMP),
        ([("a", 0)], 0),
        ([("a", None)], 0),
        ([], 0),
        ([("a", JUMP), ("b", JUMP + 900), ("c", 0)], JUMP + 450),
        ([("a", JUMP), ("b", 0), ("c", 0)], 0),
        ([("a", JUMP), ("b", 0)], 0),
        ([("a", JUMP), ("b", None), ("c", None)], JUMP),
        ([("a", JUMP)] * 5 + [("b", 0), ("c", 0)], 0),
        ([("a", 0)] * 5 + [("b", JUMP), ("c", JUMP)], JUMP),
        ([("a", JUMP), ("b", JUMP + 60_000), ("c", JUMP - 60_000)], 0),
        ([("a", -JUMP), ("b", -JUMP)], -JUMP),
    ],
)
def test_most_hosts_decide_and_have_to_agree(votes: list[tuple[str, int | None]], jump_ms: int) -> None:
    """However many nodes a host has, it has one clock; a host that cannot tell is not counted."""
    assert elected(ClockVote(host, jump) for host, jump in votes) == jump_ms
