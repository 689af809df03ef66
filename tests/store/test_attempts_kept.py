"""However often an execution is sent, its documents stay small enough to be written: the first and last attempts are kept."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.clock import Clock
from cluster.core.execution.attempts_kept import KEEP_FIRST, MAX_KEPT, MAX_OWED, keep
from cluster.core.execution.model import Attempt, Ending, Execution
from cluster.core.execution.view import ExecutionView
from cluster.core.explain.attempts import attempt_sentences
from cluster.core.ids import execution_id
from cluster.core.lifecycle import State
from cluster.store import executions, history
from cluster.store.queries import jobs_and_executions
from tests.support.engine import rows
from tests.support.workers import DUE, owed

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

TEXT = "x" * 2048


def attempts(first: int, count: int) -> tuple[Attempt, ...]:
    """Attempts `first`, `first + 1`, ... with an excerpt each."""
    return tuple(Attempt(n, DUE + n * 1000, "n", n, 5.0, 503, excerpt=TEXT) for n in range(first, first + count))


def ending(made: tuple[Attempt, ...]) -> Ending:
    x = Execution(execution_id("a", DUE), "a", DUE, DUE, "v1", "b", 0)
    return Ending(x, State.DEAD, DUE + 10_000_000, made, "used up", 3)


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_the_first_and_the_last_are_kept_and_the_rest_is_counted(made: int, before: int) -> None:
    """Whatever is left out is counted, in the order of time."""
    kept, left_out = keep(range(made), before)
    assert len(kept) + left_out == made + before
    assert len(kept) == min(made, MAX_KEPT)
    assert kept[:KEEP_FIRST] == list(range(made))[:KEEP_FIRST]
    assert kept[KEEP_FIRST:] == list(range(made))[KEEP_FIRST:][-(MAX_KEPT - KEEP_FIRST) :]


@pytest.mark.takes(6)
async def test_a_record_that_is_replayed_for_ever_stays_small(database: Database) -> None:
    """Each round adds a hundred attempts of 2 KiB, as replays do: ten thousand in all, which is more than 16 MB."""
    for turn in range(100):  # kept for a century: MongoDB deletes what ended long ago within a minute
        await history.record(database, [replace(ending(attempts(turn * 100, 100)), retention_days=36_500)], 36_500)
    (record,) = await rows(database, "history")
    assert len(record["attempts"]) == MAX_KEPT
    assert record[history.LEFT_OUT] == 10_000 - MAX_KEPT
    assert [a["n"] for a in record["attempts"]] == [*range(KEEP_FIRST), *range(9820, 10_000)]
    view = await jobs_and_executions.get_execution(database, record["_id"], Clock().now_ms())
    assert view is not None
    assert view.attempts_left_out == 10_000 - MAX_KEPT
    # To repeat a write changes nothing, whether its attempts are kept or left out.
    for turn in (0, 50, 99):
        await history.record(database, [ending(attempts(turn * 100, 100))], 7)
    assert await rows(database, "history") == [record]


async def test_one_result_with_too_many_attempts_is_recorded(database: Database) -> None:
    """As a first record, and a success replaces it."""
    await history.record(database, [ending(attempts(0, 5000))], 7)
    (record,) = await rows(database, "history")
    assert (len(record["attempts"]), record[history.LEFT_OUT]) == (MAX_KEPT, 5000 - MAX_KEPT)
    success = Attempt(5000, DUE + 5_000_000, "n", 9, 5.0, 200)
    done = Ending(ending(()).execution, State.SUCCEEDED, DUE + 10_000_000, (success,), None, 3)
    await history.record(database, [done], 7)
    (record,) = await rows(database, "history")
    assert (record["state"], record["attempts"][-1]["n"], record[history.LEFT_OUT]) == ("succeeded", 5000, 4801)


async def test_late_results_do_not_fill_an_owed_execution(database: Database) -> None:
    """Nodes that had lost its lease add attempts up to a bound."""
    (execution,) = await owed(database, "a")
    late = Execution(execution.id, "a", DUE, DUE, "v1", "b", 0, attempts=attempts(0, MAX_OWED + 5))
    await executions.add_attempts(database, late)
    (stored,) = await rows(database, "executions")
    assert len(stored["attempts"]) == MAX_OWED


def test_explain_says_where_attempts_are_left_out() -> None:
    """Instead of making up a reason for the gap."""
    kept, left_out = keep(attempts(1, 500))
    view = ExecutionView("a:1", "a", "dead", DUE, DUE, tuple(kept), False, "v1", attempts_left_out=left_out)
    texts = [s.text for s in attempt_sentences(view, {"n"}, 100)]
    assert texts.count("300 requests before this one are not stored any more") == 1
    assert not any("without a result" in text for text in texts)
