"""Electors against a real lease document: one holder per term, whatever happens to their answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from cluster.clock import Clock
from cluster.core.errors import OutcomeUnknown, StoreUnavailable, TermLost
from cluster.core.timings import Timings
from cluster.leader.elector import Elector
from cluster.store import leases
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

QUICK = Timings(leader_lease=0.6, renew_retry=0.1, margin=0.1)


class Skipping(Clock):
    """A monotonic clock that can be pushed ahead: as long a freeze as a test needs, at once."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0

    def monotonic(self) -> float:  # type: ignore[override]
        return Clock.monotonic() + self.ahead


def elector(db: Database, name: str, clock: Clock | None = None) -> Elector:
    return Elector(db, clock or Clock(), QUICK, name, name)


async def test_of_many_candidates_one_takes_over(database: Database) -> None:
    """The compare-and-set on term and revision lets one through."""
    everyone = [elector(database, f"n{i}") for i in range(10)]
    terms = await asyncio.gather(*(e.step() for e in everyone))
    assert len([t for t in terms if t]) == 1
    assert (await leases.read(database)).term == 1


async def test_a_holder_that_renews_keeps_its_term(database: Database) -> None:
    """A candidate that watches a living holder never takes over."""
    a, b = elector(database, "a"), elector(database, "b")
    term = await a.step()
    assert term
    for _ in range(12):
        assert await b.step() is None
        renewed = await a.step()
        assert renewed
        assert renewed.number == term.number
        await asyncio.sleep(0.1)


async def test_whoever_works_for_the_leader_waits_for_the_next_term(database: Database) -> None:
    """Without asking again and again; a term that is held and not trusted is looked at after a while."""
    clock = Skipping()
    a = elector(database, "a", clock)
    event = a.until_held(0.25)
    assert isinstance(event, asyncio.Event)
    assert not event.is_set()
    assert await a.step()
    assert event.is_set()
    clock.ahead = 60.0
    assert a.term is None
    assert a.until_held(0.25) == 0.25
    assert await a.step()
    await a.resign()
    event = a.until_held(0.25)
    assert isinstance(event, asyncio.Event)
    assert not event.is_set()


async def test_a_silent_holder_stops_trusting_its_term_before_it_is_replaced(database: Database) -> None:
    """Its own trust ends before another node may take over."""
    a, b = elector(database, "a"), elector(database, "b")
    assert await a.step()
    assert await b.step() is None
    taken = await eventually(b.step, 5)
    assert taken.number == 2
    assert a.term is None
    with pytest.raises(TermLost):
        a.trusted_term()
    assert await a.step() is None, "the old holder must find that the lease is another's"
    assert (await leases.read(database)).holder == "b"


async def test_a_frozen_holder_that_was_not_replaced_keeps_its_term(database: Database) -> None:
    """Renewing late is fine while the document is still ours: a failover of the database changes no leader."""
    clock = Skipping()
    a = elector(database, "a", clock)
    first = await a.step()
    assert first
    clock.ahead = 60.0
    assert a.term is None
    again = await a.step()
    assert again
    assert again.number == first.number


async def test_a_resigned_lease_is_taken_at_the_next_poll(database: Database) -> None:
    """A rolling restart costs one poll."""
    a, b = elector(database, "a"), elector(database, "b")
    assert await a.step()
    assert await b.step() is None
    await a.resign()
    assert a.term is None
    taken = await b.step()
    assert taken
    assert taken.number == 2


@pytest.mark.parametrize("applied", [True, False])
async def test_an_unanswered_take_over_is_decided_by_a_linearizable_read(
    database: Database, monkeypatch: pytest.MonkeyPatch, *, applied: bool
) -> None:
    """Whether the write was applied or not, the answer is known afterwards."""
    real = leases.take_over

    async def unanswered(*args: Any) -> bool:
        if applied:
            await real(*args)
        raise OutcomeUnknown("no answer")

    monkeypatch.setattr(leases, "take_over", unanswered)
    a = elector(database, "a")
    term = await a.step()
    assert (term is not None) is applied


@pytest.mark.parametrize("applied", [True, False])
async def test_an_unanswered_renewal_does_not_end_the_term(
    database: Database, monkeypatch: pytest.MonkeyPatch, *, applied: bool
) -> None:
    """The trust from the renewal before stays."""
    a = elector(database, "a")
    assert await a.step()
    real = leases.renew

    async def unanswered(*args: Any) -> bool:
        if applied:
            await real(*args)
        raise OutcomeUnknown("no answer")

    monkeypatch.setattr(leases, "renew", unanswered)
    assert await a.step()


async def test_a_renewal_that_was_not_applied_is_not_trusted(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other nodes count from the last change that they saw; that the lease still names us is no change."""
    clock = Skipping()
    a = elector(database, "a", clock)
    before = await a.step()
    assert before

    async def unanswered(*_: Any) -> bool:
        raise OutcomeUnknown("no answer")

    monkeypatch.setattr(leases, "renew", unanswered)
    clock.ahead += 0.3
    await a.step()
    clock.ahead = before.trusted_until - Clock.monotonic()
    assert a.term is None


async def test_an_unanswered_renewal_is_repeated(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one is counted from its own start."""
    clock = Skipping()
    a = elector(database, "a", clock)
    before = await a.step()
    assert before
    real, calls = leases.renew, []

    async def first_unanswered(*args: Any) -> bool:
        calls.append(args)
        if len(calls) == 1:
            raise OutcomeUnknown("no answer")
        return await real(*args)

    monkeypatch.setattr(leases, "renew", first_unanswered)
    clock.ahead += 0.3
    after = await a.step()
    assert after
    assert after.trusted_until > before.trusted_until
    assert len(calls) == 2


async def test_after_a_failed_read_a_take_over_needs_two_more_reads(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The silence may be this node's own connection."""
    a = elector(database, "a")
    assert await a.step()
    clock = Skipping()
    b = elector(database, "b", clock)
    await b.step()
    real = leases.read

    async def away(_: Any) -> Any:
        raise StoreUnavailable("away")

    monkeypatch.setattr(leases, "read", away)
    await b.step()
    monkeypatch.setattr(leases, "read", real)
    clock.ahead = 60.0
    assert await b.step() is None
    assert await b.step()


async def test_a_node_whose_clock_disagrees_does_not_take_over(database: Database) -> None:
    """It may follow; it may not lead."""
    a = elector(database, "a")
    a.set_eligible(eligible=False)
    assert await a.step() is None
    a.set_eligible(eligible=True)
    assert await a.step()


async def test_terms_only_grow(database: Database) -> None:
    """However often the lease changes hands."""
    seen = []
    for i in range(6):
        e = elector(database, f"n{i}")
        term = await eventually(e.step, 5)
        seen.append(term.number)
        if i % 2:
            await e.resign()
    assert seen == [1, 2, 3, 4, 5, 6]
