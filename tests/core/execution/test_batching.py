"""A batch says of its members what is true of all of them."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.core.execution.batching import DUE_NOW, BatchOptions, in_portions, make_batch
from cluster.core.execution.model import Attempt, Execution
from cluster.core.timings import PREFETCH_MS

ONE = Execution(
    id="a:1", job_id="a", due_ms=5000, send_ms=7000, schedule_version="v", batch="b", lane=3, host="h:1", token=4
)


FAILED = Attempt(number=1, sent_ms=7000, node="n", token=4, duration_ms=5.0, status=503)


def test_a_batch_follows_from_its_only_member() -> None:
    """Name, lane, host, number of attempts, times and token."""
    batch = make_batch([replace(ONE, attempts=(FAILED,))])
    assert (batch.id, batch.ids, batch.lane, batch.host) == ("b", ("a:1",), 3, "h:1")
    assert (batch.attempt, batch.send_ms, batch.claimable_ms) == (1, 7000, 7000 - PREFETCH_MS)
    assert (batch.token, batch.claims, batch.owner, batch.late, batch.deferred) == (4, 0, None, False, False)


@pytest.mark.parametrize(
    ("options", "claimable_ms", "deferred"),
    [
        (BatchOptions(), 6000, False),
        (BatchOptions(prefetch_ms=250), 6750, False),
        (DUE_NOW, 7000, False),
        (BatchOptions(deferred_until_ms=90_000), 90_000, True),
        (BatchOptions(deferred_until_ms=0), 0, True),
    ],
)
def test_a_batch_is_claimable_ahead_of_its_send_time_unless_it_is_deferred(
    options: BatchOptions, claimable_ms: int, deferred: bool
) -> None:
    batch = make_batch([ONE], options)
    assert (batch.send_ms, batch.claimable_ms, batch.deferred) == (7000, claimable_ms, deferred)


def test_options_that_are_no_fields_of_members_are_taken_as_they_are() -> None:
    batch = make_batch([ONE], BatchOptions(late=True, claims=2, token=9))
    assert (batch.late, batch.claims, batch.token) == (True, 2, 9)
    assert make_batch([ONE], BatchOptions(token=3)).token == 4, "a token never shrinks"


@pytest.mark.parametrize(
    ("keys", "of_queue", "of_any"),
    [
        ([None, None], None, None),
        (["q:mail", "q:mail"], "q:mail", "q:mail"),
        (["q:mail", None], None, None),
        (["q:mail", "q:sms"], None, None),
        (["j:a", "j:a"], None, "j:a"),
        (["j:a", "j:b"], None, None),
    ],
)
def test_a_batch_names_a_limit_that_all_members_share(
    keys: list[str | None], of_queue: str | None, of_any: str | None
) -> None:
    """A queue's limit always; a limit of one job only where batches are made by limit."""
    members = [replace(ONE, id=f"a:{i}", limit_key=key) for i, key in enumerate(keys)]
    assert make_batch(members).limit_key == of_queue
    assert make_batch(members, BatchOptions(by_limit=True)).limit_key == of_any


MEMBERS = st.lists(
    st.builds(
        lambda send, host, token: replace(ONE, send_ms=send, host=host, token=token),
        st.integers(0, 5000),
        st.sampled_from(["", "h:1", "h:2"]),
        st.integers(0, 9),
    ),
    min_size=1,
    max_size=20,
)


@given(MEMBERS)
def test_a_batch_is_as_early_as_its_first_member_and_above_every_token(members: list[Execution]) -> None:
    """Whatever the order of its members; it names a host only if no member goes elsewhere."""
    members = [replace(m, id=f"a:{i}") for i, m in enumerate(members)]
    batch = make_batch(members)
    assert batch.ids == tuple(m.id for m in members)
    assert batch.send_ms == min(m.send_ms for m in members)
    assert all(batch.token >= m.token for m in members)
    assert {m.host for m in members} == {batch.host} or (batch.host == "" and len({m.host for m in members}) > 1)
    assert replace(make_batch(members[::-1]), ids=batch.ids) == batch


@given(st.lists(st.integers(0, 12), max_size=40))
def test_portions_are_bounded_and_lose_nothing(sizes: list[int]) -> None:
    """In their order, ten in each; what is larger stands alone. What needs no room shares a portion."""
    portions = [list(p) for p in in_portions(sizes, lambda s: s, 10)]
    assert [s for p in portions for s in p] == sizes
    assert all(sum(p) <= 10 or len([s for s in p if s]) == 1 for p in portions)
    assert len(portions) == 1 or all(portions)
    assert all(sum(a) + b[0] > 10 for a, b in itertools.pairwise(portions))
