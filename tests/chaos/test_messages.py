"""What the auditor asks of messages: all that was accepted comes, nothing whose cancellation was answered does."""

from __future__ import annotations

from tests.chaos.calls import owed
from tests.chaos.checker import check
from tests.chaos.evidence import Posted, Recorded, Run, Seen

A, B, C, D = (f"msg.{letter * 26}:{due}" for letter, due in (("A", 5000), ("B", 6000), ("C", 7000), ("D", 8000)))


def run_of(posted: tuple[Posted, ...], *came: str, recorded: tuple[str, ...] = ()) -> Run:
    seen = tuple(Seen(e, 1, 1, int(e.split(":")[1]) + 10) for e in came)
    records = tuple(Recorded(e, "succeeded", ((1, 1, 200),)) for e in recorded or came)
    run = Run((), seen, records, posted=posted, span=(0, 20_000))
    return Run(owed(run), seen, records, posted=posted, span=(0, 20_000))


def rules(run: Run) -> list[str]:
    return sorted({v.rule for v in check(run)})


def test_an_accepted_message_that_comes_is_right_and_one_that_does_not_is_missed() -> None:
    posted = (Posted(0, 1, A), Posted(0, 1, B))
    assert rules(run_of(posted, A, B)) == []
    assert rules(run_of(posted, A)) == ["miss"]


def test_a_message_whose_cancellation_was_answered_must_not_come() -> None:
    """Without an answer it may, or may not."""
    assert rules(run_of((Posted(0, 1, A, cancelled=True),))) == []
    assert rules(run_of((Posted(0, 1, A, cancelled=True),), A)) == ["phantom"]
    assert (
        rules(run_of((Posted(0, 1, A, cancelled=None),), A)) == rules(run_of((Posted(0, 1, A, cancelled=None),))) == []
    )


def test_what_nobody_posted_is_a_phantom_but_for_as_many_as_had_no_answer() -> None:
    unanswered = (Posted(0, 1, None),)
    assert rules(run_of(unanswered, C)) == []
    assert rules(run_of(unanswered, C, D)) == ["phantom"]
