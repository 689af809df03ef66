"""What the auditor asks of messages: all that was accepted comes, nothing whose cancellation was answered does."""

from __future__ import annotations

from cluster.core.ids import callback_id, chained_id
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


def test_a_callback_must_follow_what_is_recorded_and_another_must_not() -> None:
    """By the record of the message: of a success `onSuccess`, once."""
    posted = (Posted(0, 1, A, told=True),)
    yes, no = (callback_id(A, kind, 5000) for kind in ("success", "failure"))
    assert rules(run_of(posted, A, yes)) == []
    assert rules(run_of(posted, A)) == ["miss"]
    assert "duplicate" not in rules(run_of(posted, A, yes, no))
    assert rules(run_of((Posted(0, 1, A),), A, yes)) == ["phantom"]


def test_a_run_must_follow_each_execution_of_the_other_job() -> None:
    run = chained_id("c", "j0:0000000005000", 5000)
    seen = tuple(Seen(e, 1, 1, 5010) for e in ("j0:5000",))
    records = (Recorded("j0:5000", "succeeded", ((1, 1, 200),), ended_ms=5020),)
    base = Run((), seen, records, span=(5000, 6000), steady=1, chained=(("c", "j0"),))
    assert run.startswith("c:0000000005000:after-")
    assert [v.what for v in check(Run(owed(base), seen, records, span=(5000, 6000)))] == [
        f"{chained_id('c', 'j0:5000', 5000)} never came"
    ]
