"""Every step of the table of `execution_states` is made by a real dispatcher, and none is made that the table lacks."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cluster.core.lifecycle import JobState
from cluster.core.limits.circuit_breaker import Admission
from cluster.outbound.sender import Reply
from cluster.store import engine_jobs
from cluster.worker import probe_lottery
from cluster.worker.execution_states import NEXT, ExecutionState
from cluster.worker.held_batch import LIFE, Stage
from tests.support import execution_paths
from tests.support.execution_paths import Paths
from tests.support.one_execution import HOST, NOW, OneExecution

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

S = ExecutionState
SOON = NOW + 40
"""Its jobs are read at once, and it is not due yet."""
OK = Reply(200, None, None, None, None, 1.0)
STEPS = [(state, following) for state in NEXT for following in sorted(NEXT[state])]


@pytest.fixture(name="paths")
def _paths(monkeypatch: pytest.MonkeyPatch) -> Paths:
    followed = Paths()
    execution_paths.install(monkeypatch, followed)
    monkeypatch.setattr(probe_lottery, "DRAW_SECONDS", 0.0)
    return followed


# -- into each state -------------------------------------------------------------------------------------------------


async def _waiting(one: OneExecution) -> None:
    one.dispatcher.add(one.held)
    await one.settle()


async def _ready(one: OneExecution) -> None:
    await _waiting(one)


async def _deferred(one: OneExecution) -> None:
    await _ready(one)
    one.breakers.admits = Admission.HOLD
    await one.at(SOON)


async def _due(one: OneExecution) -> None:
    await _ready(one)
    await one.at(SOON)


async def _stale(one: OneExecution) -> None:
    await _ready(one)
    one.make_stale()
    await one.at(SOON)


async def _probing(one: OneExecution) -> None:
    await _ready(one)
    one.breakers.admits = Admission.PROBE
    await one.at(SOON)


async def _paused(one: OneExecution) -> None:
    one.job = replace(one.job, state=JobState.PAUSED)
    await _waiting(one)


async def _unrecorded(one: OneExecution) -> None:
    await _due(one)
    one.reply.set_result(OK)
    await one.settle()


INTO: dict[ExecutionState, Callable[[OneExecution], Awaitable[None]]] = {
    S.WAITING: _waiting,
    S.READY: _ready,
    S.DEFERRED: _deferred,
    S.ASKING: _due,
    S.STALE: _stale,
    S.PAUSED: _paused,
    S.PROBING: _probing,
    S.SENDING: _due,
    S.UNRECORDED: _unrecorded,
}

# -- out of it -------------------------------------------------------------------------------------------------------


async def _moved(one: OneExecution) -> None:
    """It is released to another batch."""
    one.context.unsent.move(one.held, None)


async def _lost(one: OneExecution) -> None:
    """The lease ends."""
    one.context.unsent.lose(one.held)


async def _permit_for_later(one: OneExecution) -> None:
    await one.at(SOON)
    one.grant.set_result(NOW + 440)
    await one.settle()
    await one.at(NOW + 300)


async def _made_stale(one: OneExecution) -> None:
    one.make_stale()
    await _host_back(one)


async def _host_back(one: OneExecution) -> None:
    """Something may be sent to its host again."""
    one.breakers.admits = Admission.ALLOW
    one.dispatcher.start_waiting(HOST)
    await one.at(SOON)


async def _may_be_probed(one: OneExecution) -> None:
    one.breakers.admits = Admission.PROBE
    one.dispatcher.start_waiting(HOST)
    await one.settle()


async def _drawn_then_held_back(one: OneExecution) -> None:
    """It is drawn, its host is held back again before it goes, and may then be probed after all."""
    one.breakers.admits = Admission.PROBE
    one.dispatcher.start_waiting(HOST)
    one.breakers.admits = Admission.HOLD
    await one.settle()
    await asyncio.sleep(0.01)
    one.breakers.admits = Admission.PROBE
    one.dispatcher.start_waiting(HOST)
    await one.settle()


async def _permitted(one: OneExecution) -> None:
    one.grant.set_result(SOON)
    await one.settle()


async def _read(one: OneExecution) -> None:
    one.readable.set()
    await one.settle()


async def _won(one: OneExecution) -> None:
    one.breakers.won.set_result(True)
    await one.settle()


async def _not_won(one: OneExecution) -> None:
    one.breakers.won.set_result(False)
    await one.settle()


async def _answered(one: OneExecution) -> None:
    one.reply.set_result(OK)
    await one.settle()


async def _failed(one: OneExecution) -> None:
    one.reply.set_exception(RuntimeError("a bug of the sender"))
    await one.settle()


async def _recorded(one: OneExecution) -> None:
    one.held.recorded(one.execution.id)


async def _near(one: OneExecution) -> None:
    await one.at(one.execution.send_ms - 40)
    await asyncio.sleep(1.1)
    await one.settle()


async def _near_and_paused(one: OneExecution) -> None:
    one.job = replace(one.job, state=JobState.PAUSED)
    await _near(one)


async def _read_and_paused(one: OneExecution) -> None:
    one.job = replace(one.job, state=JobState.PAUSED)
    await _read(one)


async def _due_now(one: OneExecution) -> None:
    await one.at(SOON)


async def _held_back(one: OneExecution) -> None:
    one.breakers.admits = Admission.HOLD
    await one.at(SOON)


async def _stale_when_due(one: OneExecution) -> None:
    one.make_stale()
    await one.at(SOON)


async def _probe_when_due(one: OneExecution) -> None:
    one.breakers.admits = Admission.PROBE
    await one.at(SOON)


OUT: dict[tuple[ExecutionState, ExecutionState], Callable[[OneExecution], Awaitable[None]]] = {
    (S.WAITING, S.READY): _near,
    (S.WAITING, S.PAUSED): _near_and_paused,
    (S.READY, S.READY): _permit_for_later,
    (S.READY, S.DEFERRED): _held_back,
    (S.READY, S.ASKING): _due_now,
    (S.READY, S.STALE): _stale_when_due,
    (S.READY, S.PROBING): _probe_when_due,
    (S.READY, S.SENDING): _due_now,
    (S.DEFERRED, S.READY): _may_be_probed,
    (S.DEFERRED, S.DEFERRED): _may_be_probed,
    (S.DEFERRED, S.ASKING): _host_back,
    (S.DEFERRED, S.STALE): _made_stale,
    (S.DEFERRED, S.PROBING): _drawn_then_held_back,
    (S.DEFERRED, S.SENDING): _host_back,
    (S.ASKING, S.READY): _permitted,
    (S.STALE, S.READY): _read,
    (S.STALE, S.PAUSED): _read_and_paused,
    (S.PROBING, S.DEFERRED): _not_won,
    (S.PROBING, S.SENDING): _won,
    (S.SENDING, S.UNRECORDED): _answered,
    (S.SENDING, S.CLOSED): _failed,
    (S.UNRECORDED, S.CLOSED): _recorded,
    **{(s, S.UNRECORDED): _moved for s in S if s.stage is Stage.WAITING},
    **{(s, S.CLOSED): _lost for s in S if s.stage is Stage.WAITING},
}
LIMITED = {(S.READY, S.READY), (S.READY, S.ASKING), (S.DEFERRED, S.ASKING)}


@pytest.mark.parametrize(("state", "following"), STEPS, ids=[f"{a}-{b}" for a, b in STEPS])
async def test_the_dispatcher_makes_each_step_of_the_table(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, state: ExecutionState, following: ExecutionState
) -> None:
    limited = state is S.ASKING or (state, following) in LIMITED
    one = OneExecution(NOW + 10_000 if state is S.WAITING else SOON, limited=limited)
    monkeypatch.setattr(engine_jobs, "by_id", one.jobs_by_id)
    try:
        await INTO[state](one)
        (path,) = paths.of(one.execution.id)
        assert path[-1] is state, path
        await OUT[state, following](one)
        assert (state, following) in paths.steps(), path
        assert paths.broken == []
    finally:
        await one.close()


@pytest.mark.parametrize(("state", "following"), STEPS, ids=[f"{a}-{b}" for a, b in STEPS])
def test_each_step_is_one_that_its_batch_allows(state: ExecutionState, following: ExecutionState) -> None:
    """The table is finer than the one of `held_batch`, and agrees with it."""
    allowed = {after for (before, _), after in LIFE.items() if before is state.stage}
    assert following.stage in allowed | ({Stage.WAITING} if state.stage is Stage.WAITING else set())


def test_a_closed_execution_stays_closed() -> None:
    assert NEXT[S.CLOSED] == frozenset()
    assert NEXT.keys() == set(ExecutionState)


async def test_the_plain_way_is_the_shortest(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in its way: prepared, sent when it is due, recorded."""
    one = OneExecution(SOON)
    monkeypatch.setattr(engine_jobs, "by_id", one.jobs_by_id)
    await _unrecorded(one)
    assert paths.of(one.execution.id) == [[S.WAITING, S.READY, S.SENDING, S.UNRECORDED]]
    assert [r.execution.id for r in one.context.records.take()] == [one.execution.id]
    assert (one.context.unsent.count, one.context.slots.in_flight) == (0, 0)
    await one.close()
