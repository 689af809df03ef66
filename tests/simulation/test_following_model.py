"""The model of messages and of what follows executions is kept honest: the same random calls to it and to a real MongoDB get
the same answers, and leave the same behind.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from cluster.core.documents.job_json import read_job
from cluster.core.execution.follow_up import FAILURE, SUCCESS, ChainedJob, EndedExecution
from cluster.core.execution.model import MESSAGE_VERSION, Attempt, Ending, Execution
from cluster.core.ids import execution_id
from cluster.core.lifecycle import JobState, State
from cluster.store import chain_links, dedups, executions, followed, history, messages
from cluster.store.dedups import Dedup
from cluster.store.followed import Ended, FollowedJob
from cluster.store.queries import message_states
from cluster.usecases import jobs
from tests.simulation.following import CALLBACKS
from tests.simulation.model import Store, at_once
from tests.simulation.twins import TWINS
from tests.support.cranked_cluster import CONTEXT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.store.mongo.client import Database

CALLS = 400
NOW = 1_900_000_000_000
MESSAGES = [f"msg.{letter * 26}" for letter in "ABC"]
OF_JOB = [execution_id("p", NOW + 1000 * n) for n in range(3)]
OF_MESSAGES = [execution_id(m, NOW + 1000 * n) for n, m in enumerate(MESSAGES)]
IDS = OF_JOB + OF_MESSAGES
REQUEST = {"url": "http://t/", **CALLBACKS}
ENDINGS = [State.SUCCEEDED, State.FAILED, State.DEAD, State.CANCELLED, State.SKIPPED]


def an_execution(name: str) -> Execution:
    job, _, due = name.partition(":")
    message = REQUEST if job in MESSAGES else None
    return Execution(name, job, int(due), int(due), MESSAGE_VERSION, "b", 0, trigger=True, message=message)


def comparable(answer: Any) -> Any:
    """Without what the model does not keep: the last attempt, when an execution ended, how a request is stored."""
    if isinstance(answer, dict):
        return {name: comparable(value) for name, value in answer.items()}
    if isinstance(answer, list | tuple):
        return [comparable(value) for value in answer]
    if isinstance(answer, EndedExecution):
        return answer.id, answer.job_id, answer.due_ms, answer.state
    if isinstance(answer, Execution):
        return answer.id, answer.due_ms, answer.cancelled, answer.message is not None
    if isinstance(answer, Ended):  # history keeps the request of what can be sent again, or is still to be followed
        kept = answer.unfollowed and answer.message is not None
        return answer.id, answer.job_id, answer.state, answer.unfollowed, kept
    if isinstance(answer, ChainedJob):
        return answer.id, answer.on, answer.state
    return answer


class Caller:
    """Makes up calls from few names, so that they meet."""

    def __init__(self, database: Database, store: Store, seed: int) -> None:
        self.random = random.Random(seed)
        self.database, self.store = database, store
        self.met: set[tuple[str, str]] = set()

    async def both(self, module: Any, name: str, *args: Any) -> Any:
        key = module.__name__.removeprefix("cluster.store.")
        theirs = await getattr(module, name)(self.database, *args)
        ours = at_once(TWINS[key][name](self.store, *args))
        in_order = name not in ("unfollowed", "left_to_follow")  # the store promises none of those
        a, b = comparable(ours), comparable(theirs)
        assert (a, b) == (b, a) if in_order else sorted(a, key=repr) == sorted(b, key=repr), f"{key}.{name}{args}"
        self.met.add((key, name))

    async def call(self) -> None:
        """One call, to both."""
        await self.random.choice(list(self._calls()))

    def _some(self, ids: list[str]) -> list[str]:
        return self.random.sample(ids, self.random.randint(0, 2))

    def _calls(self) -> Iterator[Any]:
        r = self.random
        module, name, args = r.choice(
            [
                (followed, "results", (self._some(IDS),)),
                (followed, "jobs", (self._some(["p", "c-any", "none"]),)),
                (followed, "chained", (self._some(["p", "c-any", "none"]),)),
                (followed, "recorded", (self._some(IDS),)),
                (followed, "unfollowed", (10,)),
                (followed, "left_to_follow", (self._some(IDS), self._some(IDS))),
                (followed, "mark_followed", ({i: r.choice(ENDINGS).value for i in self._some(IDS)},)),
                (chain_links, "chained_ids", (["c-any", "none"],)),
                (history, "record", ([self._ending()], 7.0)),
                (messages, "insert", ([an_execution(i) for i in self._some(OF_MESSAGES)],)),
                (messages, "due", (NOW, NOW + r.choice([0, 1500, 9000]), r.choice([1, 5]))),
                (messages, "delete", (self._some(OF_MESSAGES),)),
                (dedups, "reserve", (self._wanted(), NOW)),
                (executions, "insert", ([an_execution(i) for i in self._some(OF_MESSAGES)],)),
                (executions, "delete_cancelled", (r.choice(OF_MESSAGES),)),
                (executions, "delete_unclaimed", (an_execution(r.choice(OF_MESSAGES)),)),
                (executions, "take_unsent", (an_execution(r.choice(OF_MESSAGES)), f"taken{r.random()}")),
                (message_states, "known_ids", (self._some(OF_MESSAGES),)),
                (message_states, "waiting", (r.choice(MESSAGES),)),
                (message_states, "owed", (r.choice(MESSAGES),)),
                (message_states, "recorded", (r.choice(MESSAGES),)),
                (message_states, "final_state", (r.choice(OF_MESSAGES),)),
            ]
        )
        yield self.both(module, name, *args)

    def _ending(self) -> Ending:
        r = self.random
        made = (Attempt(1, NOW, "a", 1, 1.0, 500),) if r.random() < 0.5 else ()
        return Ending(an_execution(r.choice(IDS)), r.choice(ENDINGS), NOW, made, "x", followed=r.random() < 0.7)

    def _wanted(self) -> list[Dedup]:
        r = self.random
        return [Dedup(r.choice(["d", "e"]), r.choice(["1", "2"]), r.choice(OF_MESSAGES), NOW + 86_400_000)]


@pytest.mark.parametrize("seed", range(2))
async def test_what_follows_and_messages_answer_as_mongodb_does(database: Database, seed: int) -> None:
    """Call by call, each on what the calls before it left behind."""
    store = Store(lambda: NOW)
    caller = Caller(database, store, seed)
    parent = {"schedule": "@yearly", "api": "http://127.0.0.1:1/x"}
    both = {"onSuccess": {"api": "http://127.0.0.1:1/c"}, "onFailure": {"api": "http://127.0.0.1:1/c"}}
    await jobs.put(database, "p", read_job({**parent, **both}, CONTEXT), NOW - 5000)
    for on in ("any", "succeeded"):
        chained = {"after": {"jobId": "p", "on": on}, "api": "http://127.0.0.1:1/x"}
        await jobs.put(database, f"c-{on}", read_job(chained, CONTEXT), NOW - 5000)
    told = {"url": "http://127.0.0.1:1/c"}
    store.followed_jobs |= {
        "p": FollowedJob({SUCCESS: told, FAILURE: told}, has_chained=True),
        "c-any": FollowedJob({}),
    }
    store.chained_jobs["p"] = [
        ChainedJob(f"c-{on}", on, JobState.ACTIVE, 0, "v1", 0, "", None) for on in ("any", "succeeded")
    ]
    store.requests |= dict.fromkeys(OF_MESSAGES, REQUEST)
    for _ in range(CALLS):
        await caller.call()
    documents = {d["_id"]: d async for d in database.api["history"].find()}
    assert {i: (f.state.value, f.unfollowed) for i, f in store.history.items()} == {
        i: (d["state"], d.get("unfollowed", False)) for i, d in documents.items()
    }
    of_model = {
        (m, f) for m in ("followed", "chain_links", "messages", "dedups", "queries.message_states") for f in TWINS[m]
    }
    assert of_model - caller.met == {("messages", "execution_of")}, "it is given another database"
