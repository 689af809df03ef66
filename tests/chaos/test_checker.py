"""The checker finds one hand-made violation of each rule, and none in a good run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.chaos.calls import owed, targets
from tests.chaos.checker import check, figures
from tests.chaos.evidence import Call, Fault, Leader, Recorded, Run, Seen, Target, Trigger
from tests.chaos.fault_run import between_faults
from tests.chaos.saved import load, main, save, timeline

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chaos.evidence import Verb

T = 1_700_000_000_000


def good() -> Run:
    """Two deliveries, one of them retried; a leader that changes; one fault in the past."""
    return Run(
        targets=(Target("a:1", T), Target("b:1", T + 1000), Target("c:1", T, "may"), Target("d:1", T, "must-not")),
        seen=(Seen("a:1", 1, 1, T + 3), Seen("b:1", 1, 1, T + 1003, "503"), Seen("b:1", 2, 2, T + 1900)),
        recorded=(
            Recorded("a:1", "succeeded", ((1, 1, 200),)),
            Recorded("b:1", "succeeded", ((1, 1, 503), (2, 2, 200))),
        ),
        faults=(Fault("kill", T - 100_000, T - 90_000),),
        leaders=(Leader(T, 1, "n1", T + 10), Leader(T + 1, 1, None, T + 10), Leader(T + 2, 2, "n2", T + 20)),
    )


def rules(run: Run) -> set[str]:
    return {v.rule for v in check(run)}


def more(run: Run, *seen: Seen) -> Run:
    return replace(run, seen=(*run.seen, *seen))


def test_a_good_run_has_no_violation() -> None:
    """And the figures are those of the run."""
    assert check(good()) == []
    assert figures(good()) == {
        "faults": 1,
        "kinds of faults": 1,
        "executions audited": 2,
        "far from any fault": 2,
        "missing": 0,
        "missed by their policy": 0,
        "delivered again": 0,
        "by another claim": 0,
        "longest lateness ms": 3,
        "far from faults, median ms": 3,
        "far from faults, p99 ms": 3,
        "far from faults, longest ms": 3,
    }


PREVIOUS = Fault("kill", T - 5000, T - 4000, explains=("late", "again"))
RETURNED = Seen("a:1", 1, 2, T + 700)
BAD: dict[str, Run] = {
    "miss": replace(good(), seen=good().seen[1:], recorded=good().recorded[1:]),
    "phantom": more(good(), Seen("x:1", 1, 1, T)),
    "early": replace(good(), seen=(Seen("a:1", 1, 1, T - 21), *good().seen[1:])),
    "late": replace(good(), seen=(Seen("a:1", 1, 1, T + 2001), *good().seen[1:])),
    "duplicate": more(good(), RETURNED),
    "two owners": replace(more(good(), Seen("a:1", 1, 2, T + 400)), faults=(PREVIOUS,)),
    "one token": more(good(), Seen("a:1", 1, 1, T + 9)),
    "order": replace(more(good(), Seen("b:1", 1, 2, T + 1500, "503")), faults=(Fault("freeze", T - 5000, T + 5000),)),
    "history": replace(good(), recorded=good().recorded[:1]),
    "term": replace(good(), leaders=(Leader(T, 1, "n1"), Leader(T + 1, 1, "n2"))),
    "cursor": replace(good(), leaders=(Leader(T, 1, "n1", T + 20), Leader(T + 1, 1, "n1", T + 10))),
    "progress": replace(good(), seen=(), faults=(Fault("kill", T - 50, T - 1),)),
    "orphan": replace(good(), owed=("a:1",)),
    "verify": replace(good(), verified=("missing a:1: owed, and there is no record of it",)),
    "lost": replace(
        good(), calls=(Call("create", "c", T - 9000, T - 8900, "ok"), Call("pause", "c", T, T + 9, "absent"))
    ),
}


@pytest.mark.parametrize("rule", sorted(BAD))
def test_each_rule_finds_its_violation(rule: str) -> None:
    """In a run that is good otherwise, each rule finds the one thing that is wrong, by its name."""
    assert rule in rules(BAD[rule])


def test_a_sibling_of_a_killed_node_may_go_on_at_once() -> None:
    """Under a greater token, and only if the node that sent the first request can have been killed in between."""
    again = more(good(), Seen("a:1", 1, 2, T + 400))

    def found(start: int, end: int, kind: str = "kill_node") -> list[str]:
        fault = Fault(kind, T + start, T + end, explains=("late", "again"), group="nodes")
        return [v.rule for v in check(replace(again, faults=(fault,)))]

    assert found(-10, 20) == []
    assert found(-100, -30) == [], "it was on its way when its node was killed"
    assert found(-900, -800) == ["two owners"]
    assert found(-10, 20, kind="stop_node") == ["two owners"]


def test_an_old_token_after_a_newer_one_is_caught() -> None:
    """A retry that was not delivered yet, under a token that a later claim has overtaken."""
    run = replace(
        good(),
        seen=(good().seen[0], Seen("b:1", 1, 2, T + 1003, "503"), Seen("b:1", 2, 1, T + 1900)),
        recorded=(good().recorded[0], Recorded("b:1", "succeeded", ((1, 2, 503), (2, 1, 200)))),
    )
    assert rules(run) == {"stale", "order"}


def test_terms_never_go_back() -> None:
    """A smaller term read after a greater one is a lease that was lost."""
    assert rules(replace(good(), leaders=(Leader(T, 2, "n1"), Leader(T + 1, 1, "n0")))) == {"term"}


def test_an_arrival_that_is_not_owed_is_a_phantom() -> None:
    """An occurrence of a paused or deleted job is not owed."""
    assert "phantom" in rules(more(good(), Seen("d:1", 1, 1, T)))


def test_a_record_that_is_not_owed_is_a_phantom() -> None:
    """Also if no request of it arrived."""
    run = good()
    assert rules(replace(run, recorded=(*run.recorded, Recorded("x:1", "cancelled", ())))) == {"phantom"}


def test_a_missed_range_is_named_after_what_was_owed() -> None:
    """A range that begins with an occurrence of a job is no phantom; a range of a job that was never made is one."""
    run = good()
    assert rules(replace(run, recorded=(*run.recorded, Recorded("c:1:missed", "missed", ())))) == set()
    assert rules(replace(run, recorded=(*run.recorded, Recorded("x:1:missed", "missed", ())))) == {"phantom"}


@pytest.mark.parametrize(
    "record",
    [
        Recorded("a:1", "succeeded", ((1, 1, 201),)),
        Recorded("a:1", "succeeded", ((1, 1, 200), (2, 2, 200))),
        Recorded("a:1", "dead", ((1, 1, 200),)),
        Recorded("c:1", "succeeded", ()),
    ],
    ids=["another status", "an attempt that never came", "dead, but accepted", "succeeded, but never sent"],
)
def test_history_that_contradicts_the_receiver_is_found(record: Recorded) -> None:
    """Each kind of contradiction."""
    kept = tuple(r for r in good().recorded if r.execution != record.execution)
    assert rules(replace(good(), recorded=(*kept, record))) - {"miss"} == {"history"}


def test_every_request_that_came_is_recorded_as_it_was_answered() -> None:
    """Outside of faults history knows all of them, and what was answered; inside it may have lost the last of a node."""
    run, failed = good(), Seen("a:1", 1, 1, T + 3, "503")
    twice = replace(run, seen=(failed, Seen("a:1", 2, 2, T + 900), *run.seen[1:]))
    kept = run.recorded[1]
    for attempts in (((2, 2, 200),), ((1, 1, None), (2, 2, 200))):
        untold = replace(twice, recorded=(Recorded("a:1", "succeeded", attempts), kept))
        assert rules(untold) == {"history"}
        assert check(replace(untold, faults=(Fault("kill", T + 1500, T + 1600),))) == []
        assert rules(replace(untold, faults=(Fault("kill", T + 3500, T + 3600),))) == {"history"}
        assert rules(replace(untold, faults=(Fault("slow", T, T + 1600, explains=("late",)),))) == {"history"}
    silent = replace(twice, seen=(replace(failed, answer="cut"), *twice.seen[1:]))
    assert check(replace(silent, recorded=(Recorded("a:1", "succeeded", ((1, 1, None), (2, 2, 200))), kept))) == []


def test_a_breaker_that_waits_explains_lateness_alone() -> None:
    """A lease after the target has recovered, no request or answer is lost, however long the breaker waits."""
    slow = Fault("stop", T - 60_000, T - 40_000, 60_000)
    again = replace(more(good(), RETURNED), faults=(slow,))
    assert "duplicate" in rules(again)
    late = (Seen("a:1", 1, 1, T + 15_000), *good().seen[1:])
    assert check(replace(good(), seen=late, faults=(slow,))) == []


def test_what_was_known_to_have_come_does_not_come_again_because_of_a_later_fault() -> None:
    """The first delivery has to have been lost: a second one in a fault long after the first is a duplicate."""
    later = replace(good(), faults=(Fault("kill", T + 20_000, T + 21_000),))
    assert "duplicate" in rules(more(later, Seen("a:1", 1, 2, T + 22_000)))
    assert "duplicate" in rules(more(later, Seen("a:1", 2, 2, T + 22_000)))


def test_a_fault_that_delays_nothing_does_not_stop_the_clock_of_lateness() -> None:
    """Two minutes with a wrong clock on a node are two minutes in which nothing was wrong with sending."""
    came = (Seen("a:1", 1, 1, T + 130_000), *good().seen[1:])
    faults = tuple(Fault("kill", T + at, T + at + 1000) for at in range(0, 130_000, 15_000))
    clock = Fault("wrong_clock", T, T + 129_000, explains=())
    assert "late" in rules(replace(good(), seen=came, faults=(*faults, clock)))


def test_progress_is_something_that_was_due_after_the_last_fault() -> None:
    """An arrival that was due before the fault is no progress."""
    fault = Fault("kill", T - 50, T + 500)
    old = (Seen("a:1", 1, 1, T + 600), Seen("b:1", 1, 1, T + 40_000))
    assert "progress" in rules(replace(good(), seen=old, faults=(fault,)))


def test_a_fault_explains_a_duplicate_and_lateness_but_not_one_token() -> None:
    """Within a fault and its recovery another token and lateness pass; the same token twice never does."""
    hurt = replace(good(), faults=(Fault("kill", T - 1000, T),))
    assert check(more(hurt, RETURNED)) == []
    assert check(replace(hurt, seen=(Seen("a:1", 1, 1, T + 12_000), *hurt.seen[1:]))) == []
    assert rules(more(hurt, Seen("a:1", 1, 1, T + 9))) == {"one token"}
    over = replace(good(), faults=(Fault("kill", T - 40_000, T - 12_000 + 2),))
    assert rules(more(over, RETURNED)) == {"duplicate", "history"}


def test_a_fault_explains_only_what_it_can_be_the_reason_of() -> None:
    """Two owners at once are not explained by a slow target, nor an old token by a primary that stepped down."""
    slow = replace(good(), faults=(Fault("slow", T - 1000, T + 5000, explains=("late",)),))
    assert rules(more(slow, RETURNED)) == {"duplicate", "history"}
    old = (Seen("a:1", 1, 2, T + 3), Seen("b:1", 1, 3, T + 1003, "503"), Seen("b:1", 2, 2, T + 1900))
    records = (Recorded("a:1", "succeeded", ((1, 2, 200),)), Recorded("b:1", "succeeded", ((1, 3, 503), (2, 2, 200))))
    stepped = replace(good(), seen=old, recorded=records, faults=(Fault("step", T, T + 9, explains=("late", "again")),))
    assert "stale" in rules(stepped)


def test_short_faults_do_not_explain_ten_minutes_of_lateness() -> None:
    """Not even if each began before the effect of the one before had ended; a long one does."""
    came = (Seen("a:1", 1, 1, T + 600_000), *good().seen[1:])
    short = tuple(Fault("kill", T + at, T + at + 1000) for at in range(0, 600_000, 15_000))
    assert rules(replace(good(), seen=came, faults=short)) == {"late"}
    long = (Fault("outage", T - 1000, T + 580_000),)
    assert check(replace(good(), seen=came, faults=long)) == []


def test_what_was_late_before_anything_was_done_is_not_explained_by_it() -> None:
    """From the moment in which it was late, some fault must have had an effect."""
    came = (Seen("a:1", 1, 1, T + 20_000), *good().seen[1:])
    assert rules(replace(good(), seen=came, faults=(Fault("kill", T + 10_000, T + 11_000),))) == {"late"}
    assert rules(replace(good(), seen=came, faults=(Fault("kill", T + 1000, T + 1001),))) == set()


def test_nothing_undoes_a_success_but_the_loss_of_its_answer() -> None:
    """Recorded as dead beside a 2xx is wrong in any hour; as cancelled it may be, if the answer may have got lost."""
    hurt = replace(good(), faults=(Fault("kill", T, T + 1000),))
    for state, found in (("dead", {"history", "miss"}), ("cancelled", {"miss"})):
        record = Recorded("a:1", state, ((1, 1, None),), None, T + 5000)
        assert rules(replace(hurt, recorded=(record, hurt.recorded[1]))) == found


def _missed(policy: str, *, down_ms: int, ended_ms: int, first_ms: int = 0, ranged: bool = False) -> set[str]:
    """The rules violated by an occurrence due at T that never came, with all nodes down for so long from T - 2000 on."""
    record = Recorded(f"m:{T}", "missed", (), "why", T + ended_ms, T)
    if ranged:
        record = Recorded(f"m:{T + first_ms}:missed", "missed", (), "why", T + ended_ms, T + 5000)
    fault = Fault("kill_all", T - 2000, T - 2000 + down_ms, group="nodes")
    there = (Target(f"m:{T}", T, catch_up=policy), Target(f"m:{T + first_ms}", T + first_ms, "may"))
    targets_ = {t.execution: t for t in (*good().targets, *reversed(there))}
    return rules(
        replace(good(), targets=tuple(targets_.values()), recorded=(*good().recorded, record), faults=(fault,))
    )


def test_what_stood_unclaimed_may_be_missed_and_nothing_else() -> None:
    """All nodes down for longer than a lease and 2 s: `none` and `latest` are missed then; not sooner, and never `all`."""
    for policy in ("none", "latest"):
        assert _missed(policy, down_ms=30_000, ended_ms=29_000) == set()
        assert _missed(policy, down_ms=9000, ended_ms=8000) == {"miss"}, "it was not unclaimed for so long"
        assert _missed(policy, down_ms=1000, ended_ms=60_000) == {"miss"}, "no fault kept it for so long"
    assert _missed("all", down_ms=30_000, ended_ms=29_000) == {"miss"}
    assert _missed("none", down_ms=30_000, ended_ms=29_000, first_ms=-1000, ranged=True) == set()
    assert _missed("none", down_ms=9000, ended_ms=7000, first_ms=-1000, ranged=True) == {"miss"}, "no leader was behind"


def test_what_should_have_been_missed_must_not_come_late() -> None:
    """Unless it was claimed before, or its target or the network may have held it back."""
    down = Fault("kill_all", T - 2000, T + 60_000, group="nodes")

    def late(token: int, *faults: Fault, policy: str = "none") -> set[str]:
        came = Seen(f"m:{T}", 1, token, T + 65_000)
        record = Recorded(f"m:{T}", "succeeded", ((1, token, 200),))
        run = replace(good(), targets=(*good().targets, Target(f"m:{T}", T, catch_up=policy)), faults=(down, *faults))
        return rules(replace(more(run, came), recorded=(*good().recorded, record)))

    assert late(1) == {"late"}
    assert late(2) == late(1, policy="all") == set()
    assert late(1, Fault("freeze_receiver", T + 1000, T + 2000, 60_000, group="target")) == set()


def duties(calls: list[Call], *recorded: Recorded, hurt: tuple[int, int] | None = None) -> dict[int, str]:
    """By due time, counted from T."""
    spans = [] if hurt is None else [(T + hurt[0], T + hurt[1])]
    return {t.due_ms - T: t.duty for t in targets(calls, recorded, T - 2000, T + 90_000, spans)}


def cancelled(due: int, ended: int) -> Recorded:
    return Recorded(f"j:{T + due}", "cancelled", (), "the schedule was changed", T + ended)


CREATED = Call("create", "j", T, T + 100, "ok")


def test_what_is_owed_follows_from_the_calls_and_their_answers() -> None:
    """Must between a confirmed start and a stop; must not after a confirmed stop; may where it cannot be known."""
    duty = duties(
        [
            CREATED,
            Call("pause", "j", T + 10_100, T + 10_200, "ok"),
            Call("resume", "j", T + 20_000, T + 25_000, "unknown"),
        ]
    )
    assert -1000 not in duty
    assert duty[0] == "may"
    assert duty[1000] == duty[5000] == duty[9000] == "must"
    assert duty[10_000] == duty[11_000] == duty[13_000] == "may"
    assert duty[14_000] == duty[19_000] == "must-not"
    assert duty[20_000] == duty[29_000] == duty[59_000] == "may"


def test_two_minutes_after_its_end_a_job_has_no_target() -> None:
    """Any later arrival is a phantom."""
    calls = [CREATED, Call("delete", "j", T + 5000, T + 5100, "ok")]
    found = targets(calls, (), T, T + 300_000)
    assert max(t.due_ms for t in found) == T + 125_000


def test_only_a_record_written_after_a_stop_excuses_what_did_not_come() -> None:
    """An occurrence due before a stop has to arrive, unless history has it as cancelled after the stop was asked for."""
    calls = [CREATED, Call("delete", "j", T + 20_100, T + 20_200, "ok")]
    assert duties(calls)[9000] == "must"
    assert duties(calls, cancelled(9000, 20_300))[9000] == "may"
    assert duties(calls, cancelled(9000, 19_000))[9000] == "must"
    assert duties(calls, cancelled(9000, 20_300))[8000] == "must"


def test_what_came_due_before_a_pause_waits_for_the_resume() -> None:
    """It must come then, however late; a pause that nothing ends holds it for ever. Neither cancels it."""
    pause = Call("pause", "j", T + 20_100, T + 20_200, "ok")
    resume = Call("resume", "j", T + 90_000, T + 90_100, "ok")
    assert duties([CREATED, pause], cancelled(9000, 20_300))[9000] == "must"
    assert duties([CREATED, pause, resume], cancelled(9000, 20_300))[9000] == "must"
    (target,) = [t for t in targets([CREATED, pause, resume], (), T, T + 60_000) if t.due_ms == T + 9000]
    assert [(low - T, high - T) for low, high in target.waits] == [(19_850, 122_100)]
    for ended in ([], [resume]):
        calls = (CREATED, pause, *ended)
        found = targets(calls, (), T, T + 60_000)
        run = Run(tuple(t for t in found if t.due_ms == T + 9000), (), (), calls=calls, owed=(f"j:{T + 9000}",))
        assert rules(run) == ({"miss", "orphan"} if ended else set())
    came = Seen(f"j:{T + 9000}", 1, 1, T + 91_000)
    recorded = Recorded(f"j:{T + 9000}", "succeeded", ((1, 1, 200),))
    run = Run((target,), (came,), (recorded,), calls=(CREATED, pause, resume))
    assert rules(run) == {"late"}, "it was late before the pause"
    assert rules(replace(run, targets=(replace(target, due_ms=T + 19_000),))) == set()


def test_what_is_due_while_a_pause_is_asked_for_may_wait_for_the_resume() -> None:
    """Nobody knows whether it came due before the pause: it may come at once, after the resume, or not at all."""
    calls = (
        CREATED,
        Call("pause", "j", T + 20_050, T + 20_500, "ok"),
        Call("resume", "j", T + 90_000, T + 90_100, "ok"),
    )
    (target,) = [t for t in targets(calls, (), T, T + 60_000) if t.due_ms == T + 20_000]
    assert target.duty == "may"
    recorded = Recorded(target.execution, "succeeded", ((1, 1, 200),))
    for at, found in ((20_100, set()), (91_000, set()), (130_000, {"late"})):
        came = Seen(target.execution, 1, 1, T + at)
        assert rules(Run((target,), (came,), (recorded,), calls=calls)) == found
    (after,) = [t for t in targets(calls, (), T, T + 60_000) if t.due_ms == T + 24_000]
    assert (after.duty, after.waits) == ("must-not", ())


def test_nothing_comes_while_its_job_is_paused_or_deleted() -> None:
    """From some seconds after the answer to the next call; not if an earlier call may have been done since."""
    recorded = Recorded(f"j:{T + 9000}", "succeeded", ((1, 1, 200),))
    for verb in ("pause", "delete"):
        stop, again = Call(verb, "j", T + 9500, T + 9600, "ok"), Call("resume", "j", T + 30_000, T + 30_100, "ok")
        target = Target(f"j:{T + 9000}", T + 9000, "must", waits=((T + 9000, T + 40_000),))
        for came, wrong in ((12_500, False), (13_000, True), (29_000, True), (30_001, False)):
            run = Run((target,), (Seen(target.execution, 1, 1, T + came),), (recorded,), calls=(CREATED, stop, again))
            assert rules(run) == ({"paused"} if wrong else set()), (verb, came)
        lost = Call("resume", "j", T + 9400, T + 9450, "unknown")
        run = Run(
            (target,), (Seen(target.execution, 1, 1, T + 20_000),), (recorded,), calls=(CREATED, lost, stop, again)
        )
        assert rules(run) == set()


def test_a_range_that_is_recorded_as_missed_excuses_all_of_it() -> None:
    """If the job was stopped after that; a job that was never stopped has nothing to miss."""
    missed = Recorded(f"j:{T + 4000}:missed", "missed", (), "changed", T + 9000, T + 6000)
    stopped = duties([CREATED, Call("pause", "j", T + 8100, T + 8200, "ok")], missed)
    assert [stopped[t] for t in (3000, 4000, 6000, 7000)] == ["must", "may", "may", "must"]
    assert duties([CREATED], missed)[5000] == "must"


def test_what_both_schedules_owe_is_owed_by_a_changed_job() -> None:
    """A change excuses neither what was due before it, nor what the new schedule owes after it was answered."""
    calls = [CREATED, Call("change", "j", T + 10_100, T + 10_200, "ok", 2)]
    duty = duties(calls, *(cancelled(due, 10_300) for due in (9000, 12_000, 13_000)))
    assert duty[9000] == "must"
    assert duty[12_000] == "must"
    assert duty[13_000] == "may"
    assert duty[14_000] == "must"
    assert duty[15_000] == "must-not"


def test_a_range_is_excused_by_nothing_that_was_asked_for_long_after_it_was_written() -> None:
    """Within a moment: until the leader had read the job; where it was hurt that may take as long as an election."""

    def duty(ended: int, extended: int | None = None, hurt: tuple[int, int] | None = None) -> str:
        later = None if extended is None else T + extended
        missed = Recorded(f"j:{T + 4000}:missed", "missed", (), "changed", T + ended, T + 6000, later)
        return duties([CREATED, Call("pause", "j", T + 20_100, T + 20_200, "ok")], missed, hurt=hurt)[6000]

    assert duty(20_300) == duty(18_000) == "may"
    assert duty(16_000) == "must"
    assert duty(9000, 20_300) == "may"
    assert duty(9000, 16_000) == "must"
    assert duty(16_000, None, (10_000, 17_000)) == "may"
    assert duty(4500, None, (1000, 17_000)) == "must"


@pytest.mark.parametrize("verb", ["resume", "change"])
def test_what_was_cancelled_before_a_leader_came_to_it_is_not_owed_by_a_job_that_is_stopped_by_then(verb: Verb) -> None:
    """A leader writes down what is owed since a resume or a change: within a moment, or within an election."""

    def duty(stopped: int, hurt: tuple[int, int] | None = None) -> str:
        calls = [
            CREATED,
            *([Call("pause", "j", T + 10_100, T + 10_200, "ok")] if verb == "resume" else []),
            Call(verb, "j", T + 20_100, T + 20_200, "ok"),
            Call("pause", "j", T + stopped, T + stopped + 100, "ok"),
        ]
        return duties(calls, cancelled(21_000, 20_950), hurt=hurt)[21_000]

    assert duty(23_000) == "may"
    assert duty(24_000) == "must"
    assert duty(24_000, (19_000, 22_000)) == "may"
    assert duty(35_000, (19_000, 22_000)) == "may"
    assert duty(36_000, (19_000, 22_000)) == "must"
    assert duty(24_000, (30_000, 40_000)) == "must"
    assert duty(24_000, (1000, 20_000)) == "must"


def test_a_call_that_was_never_answered_may_be_done_later() -> None:
    """Even after one that was answered: the network held it back. Not for ever."""
    lost = Call("pause", "j", T + 5000, T + 10_000, "unknown")
    soon, later = (Call("resume", "j", T + at, T + at + 100, "ok") for at in (12_000, 80_000))
    assert duties([CREATED, lost, soon])[20_000] == "may"
    assert duties([CREATED, lost, later])[81_000] == "must"


def test_a_job_that_may_not_have_been_deleted_may_run_for_ever() -> None:
    """A delete without an answer, or one whose job seemed to be gone, ends nothing for sure."""
    for outcome in ("unknown", "absent"):
        lost = Call("delete", "j", T + 5000, T + 10_000, outcome)
        found = targets([CREATED, lost], (), T, T + 300_000)
        assert found[-1] == Target(f"j:{T + 299_000}", T + 299_000, "may")


def test_a_failed_call_changed_nothing() -> None:
    """A refused delete leaves the job running; an unknown one leaves it open."""
    for outcome, duty in (("failed", "must"), ("unknown", "may")):
        made = Call("delete", "j", T + 5000, T + 5100, outcome)  # type: ignore[arg-type]
        assert duties([CREATED, made])[9000] == duty


def test_what_was_owed_and_is_recorded_as_cancelled_is_a_miss() -> None:
    """Also if it arrived once: it may not end before it succeeded."""
    run = good()
    seen = (run.seen[0], Seen("b:1", 1, 1, T + 1003, "503"))
    recorded = (run.recorded[0], Recorded("b:1", "cancelled", ((1, 1, 503),), "the schedule was changed", T + 1500))
    assert rules(replace(run, seen=seen, recorded=recorded)) == {"miss"}


def test_a_saved_run_gives_the_same_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A saved run, with its excuses, can be checked again and drawn; its verdict is saved beside it."""
    file = tmp_path / "run.json"
    asked = (Call("create", "c", T - 9000, T - 8900, "ok", 2),), (Trigger("a", T, T + 5, None),)
    explained = (Fault("slow", T, T + 5, 7, ("late",)),)
    full = replace(good(), calls=asked[0], triggers=asked[1], faults=explained, earlier=(good().recorded[0],))
    for run in (full, replace(BAD["early"], excused=("early",)), *BAD.values()):
        found = save(run, file)
        assert load(file) == run
        assert found == check(load(file)) == check(run)
        assert main([str(file)]) == (1 if found else 0)
        output = capsys.readouterr().out
        assert "the saved verdict" not in output
        assert all(f"{v.rule}: {v.what}" in output for v in found)
    assert check(replace(BAD["early"], excused=("early",))) == []
    file.write_text(file.read_text().replace('"what": "', '"what": "not '))
    main([str(file)])
    assert "the saved verdict was another" in capsys.readouterr().out
    assert timeline(good()).startswith("<svg")


def test_what_was_owed_is_worked_out_again_from_a_saved_run(tmp_path: Path) -> None:
    """With its span and its calls a saved run is judged by the checker of today, not by targets of the past."""
    run = replace(
        good(),
        span=(T, T + 3000),
        steady=1,
        seen=(Seen("j:1700000001000", 1, 1, T + 1001),),
        calls=(Call("create", "j", T - 9000, T - 8900, "ok"), Call("delete", "j", T + 1900, T + 1950, "ok")),
        triggers=(Trigger("j0", T, T + 5, f"j0:{T + 5}"),),
    )
    due = {t.execution: t.duty for t in owed(run)}
    assert due == {
        **{f"j0:{T + at}": "must" for at in (0, 5, 1000, 2000)},
        f"j:{T}": "must",
        f"j:{T + 1000}": "must",
        f"j:{T + 2000}": "may",
    }
    save(run, tmp_path / "run.json")
    assert owed(load(tmp_path / "run.json")) == owed(run)


def test_the_time_between_faults_counts_no_fault_twice() -> None:
    """What a flood left behind may wait through it: faults that overlap, or one within another, leave no pause."""
    spans = ((0, 1000), (500, 3000), (800, 900), (7000, 8000), (8000, 8500))
    faults = [Fault("kill", T + start, T + end) for start, end in spans]
    assert between_faults(reversed(faults)) == 4000
    assert between_faults(faults[:1]) == between_faults([]) == 0
