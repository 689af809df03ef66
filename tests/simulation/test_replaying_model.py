"""The model of replays is kept honest: the same random calls to it and to a real MongoDB get the same answers, and leave the
same behind.
"""

from __future__ import annotations

import importlib
import random
from typing import TYPE_CHECKING, Any

import pytest

from cluster.core.execution.model import MESSAGE_VERSION, Attempt, Ending, Execution
from cluster.core.execution.view import ExecutionView
from cluster.core.ids import execution_id
from cluster.core.lifecycle import State
from cluster.store import executions, history
from cluster.store.history import REOPENED
from cluster.store.replays import Replay, ReplayFilter
from tests.simulation import model
from tests.simulation.model import Store, at_once
from tests.simulation.model_replays import COMPARED

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

CALLS = 300
NOW = 1_900_000_000_000
MESSAGE = f"msg.{'A' * 26}"
REQUEST = {"url": "http://t/", "on_success": {"url": "http://c/"}}
IDS = [execution_id("p", NOW), execution_id("p", NOW + 1000), execution_id(MESSAGE, NOW)]
ENDINGS = [State.SUCCEEDED, State.FAILED, State.DEAD, State.CANCELLED, State.MISSED]


def an_execution(name: str, replayed_ms: int | None) -> Execution:
    job, _, due = name.partition(":")
    message = REQUEST if job == MESSAGE else None
    return Execution(
        name, job, int(due), int(due), MESSAGE_VERSION, "b", 0, trigger=True, message=message, replayed_ms=replayed_ms
    )


def comparable(answer: Any) -> Any:
    """Of a view what a replay reads; the order of the store's answers is not promised."""
    if isinstance(answer, ExecutionView):
        ended_ms = answer.ended_ms if answer.state not in ("pending", "running", "retrying") else None
        return answer.id, answer.job_id, answer.state, answer.due_ms, answer.schedule_version, ended_ms
    return sorted(answer) if isinstance(answer, list) else answer


@pytest.mark.parametrize("seed", range(2))
async def test_replays_answer_as_mongodb_does(database: Database, seed: int) -> None:
    """Call by call, each on what the calls before it left behind."""
    r, store, met = random.Random(seed), Store(lambda: NOW), set[str]()

    def a_time() -> int:
        return NOW + r.randint(1, 9) * 1000

    def an_ending(name: str) -> Ending:
        x = an_execution(name, r.choice([None, a_time()]))
        at_ms = a_time()
        made = (Attempt(1, at_ms, "a", r.randint(1, 2), 1.0, 500),)
        state = r.choice(ENDINGS)
        return Ending(x, state, at_ms + 1, () if state in ENDINGS[3:] else made, "x", followed=r.random() < 0.5)

    for _ in range(CALLS):
        name = r.choice(IDS)
        some = r.sample(IDS, r.randint(1, 3))
        replay = Replay("r", ReplayFilter(), 1.0, a_time(), 1, page=tuple(some))
        of_store: list[tuple[Any, Any, tuple[Any, ...]]] = [
            (history.record, model.record, ([an_ending(name)], 7.0)),
            (history.final_ids, model.settled, (dict.fromkeys(some, MESSAGE_VERSION),)),
            (history.recorded_ids, model.recorded_ids, (dict.fromkeys(some, MESSAGE_VERSION),)),
            (executions.insert, model.insert_executions, ([an_execution(name, r.choice([None, a_time()]))],)),
        ]
        arguments: dict[str, tuple[Any, ...]] = {
            "queries.jobs_and_executions.get_execution": (name, NOW),
            "history.reopen": (name, a_time(), 7.0),
            "executions.delete_ended": ({name: (a_time(), r.choice([None, MESSAGE_VERSION, "other"]))},),
            "replayable.ended_in_page": (replay,),
            "replayable.reopen_records": (replay, a_time(), 7.0),
            "replayable.reopened_in_page": (replay,),
            "replayable.unfinished": (a_time(), 10),
        }
        for key, args in arguments.items():
            module, _, function = key.rpartition(".")
            real = getattr(importlib.import_module(f"cluster.store.{module}"), function)
            of_store.append((real, COMPARED[key], args))
        real, ours, args = r.choice(of_store)
        theirs = comparable(await real(database, *args))
        assert comparable(at_once(ours(store, *args))) == theirs, (real.__name__, args)
        met.add(real.__name__)
    assert {key.rpartition(".")[2] for key in arguments} <= met
    documents = {d["_id"]: d async for d in database.api["history"].find()}
    assert {i: (REOPENED if f.reopened else f.state.value, f.unfollowed) for i, f in store.history.items()} == {
        i: (d["state"], d.get("unfollowed", False)) for i, d in documents.items()
    }
    assert set(store.executions) == {d["_id"] async for d in database.api["executions"].find()}
