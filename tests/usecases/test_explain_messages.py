"""`explain` of messages on what the engine and the use cases really wrote: where each is, and why it has not been sent."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from bson.datetime_ms import DatetimeMS

from cluster.core.errors import NotFound
from cluster.core.job.definition import Callback
from cluster.core.limits.permits import Limits, Permits
from cluster.core.windows import Window
from cluster.store import channels, executions, permits, queues, windows
from cluster.usecases import explain_messages
from cluster.usecases.executions import replay
from cluster.usecases.messages import cancel
from tests.support.engine import rows, worker
from tests.support.messages import send
from tests.support.workers import SHORT, answering, retries_now, run_dry

if TYPE_CHECKING:
    from cluster.core.explain.sentences import Explanation
    from cluster.store.mongo.client import Database

LOOKAHEAD_MS = 15_000


async def database_ms(db: Database) -> int:
    hello = await db.work.client.admin.command("hello")
    return int(hello["localTime"].timestamp() * 1000)


async def explained(db: Database, execution: str) -> Explanation:
    name = execution.partition(":")[0]
    answer = await explain_messages.explain(db, name, await database_ms(db), 7.0, LOOKAHEAD_MS)
    assert answer.message_id == name
    return answer.answer


async def told(db: Database, execution: str) -> tuple[str, str]:
    """The state, and all that is said."""
    found = await explained(db, execution)
    assert found.execution == execution
    return found.state, "\n".join([found.summary, *(s.text for s in found.sentences)])


async def test_a_far_message_waits_and_says_when_it_is_written_down(database: Database) -> None:
    now = await database_ms(database)
    (name,) = await send(database, now, now + 3_600_000, expires_ms=now + 7_200_000)
    state, said = await told(database, name)
    assert state == "pending"
    assert "It waits: it is due at" in said
    assert "in 60 min" in said
    assert "it was accepted, to be sent 60 min later" in said
    assert "the leader writes it down for the nodes" in said
    assert "expiresAt: it is not sent, and not retried, after this" in said


async def test_a_message_that_no_leader_moves_names_the_leader(database: Database) -> None:
    now = await database_ms(database)
    (name,) = await send(database, now - 100_000, now - 60_000)
    state, said = await told(database, name)
    assert state == "pending"
    assert re.search(r"the leader has not written it down yet\. It is 6\d\.\d s late", said)
    assert "no node leads" in said


async def test_a_message_that_is_written_down_says_who_may_take_it_and_who_holds_it(database: Database) -> None:
    now = await database_ms(database)
    (name,) = await send(database, now, now - 60_000)
    state, said = await told(database, name)
    assert state == "pending"
    assert "It waits for a node: no node is alive" in said
    answered, arrived = asyncio.Event(), asyncio.Event()

    async def slow(_: httpx.Request) -> httpx.Response:
        arrived.set()
        await answered.wait()
        return httpx.Response(200)

    w = worker(database, slow, "holder", timings=SHORT)
    assert await w.claiming.claim_once()
    await arrived.wait()
    state, said = await told(database, name)
    assert "the lease of holder on its batch" in said
    assert "holder has no recent heartbeat" in said
    answered.set()
    while not w.context.records:
        await asyncio.sleep(0.005)


async def test_a_retry_and_what_it_waits_for_are_explained(database: Database) -> None:
    now = await database_ms(database)
    (name,) = await send(database, now, now)
    w = worker(database, answering(503, 200))
    await run_dry(w)
    state, said = await told(database, name)
    assert state == "retrying"
    assert "w sent attempt 1 of at most 5 (token 1)" in said
    assert "the target answered 503" in said
    await retries_now(database)
    await run_dry(w)
    state, said = await told(database, name)
    assert state == "succeeded"
    assert "by the message's retry policy" in said
    assert "It succeeded after 2 requests" in said


@pytest.mark.parametrize(("status", "state"), [(404, "failed"), (503, "dead")])
async def test_a_failure_its_callbacks_and_a_replay_are_explained(database: Database, status: int, state: str) -> None:
    now = await database_ms(database)
    await channels.put(database, channels.Channel("ops", "slack", url="http://127.0.0.1:1/ops"))
    callbacks = {"on_success": Callback(url="http://127.0.0.1:1/yes"), "on_failure": Callback(channel="ops")}
    (name,) = await send(database, now, now, **callbacks)
    _, said = await told(database, name)
    assert "onSuccess: http://127.0.0.1:1/yes will be told" in said
    assert "onFailure: the channel 'ops' will be told" in said
    w = worker(database, answering(status))
    for _ in range(5):
        await run_dry(w)
        await retries_now(database)
    found, said = await told(database, name)
    assert found == state
    assert "It did not succeed" in said
    assert "onFailure: the channel 'ops' is told by the execution cb." in said
    assert "onSuccess" not in said
    await replay(database, name, now + 5000, 7.0)
    await retries_now(database)
    await run_dry(worker(database, answering(200), "again"))
    found, said = await told(database, name)
    assert found == "succeeded"
    assert "a replay was requested" in said


async def test_a_cancelled_message_says_so_from_the_first_write_on(database: Database) -> None:
    now = await database_ms(database)
    for due in (now + 3_600_000, now + 5_000):
        (name,) = await send(database, now, due)
        await cancel(database, name.partition(":")[0], now, 7.0)
        state, said = await told(database, name)
        assert state == "cancelled"
        assert "It was not sent: it was cancelled before it was sent" in said
    (name,) = await send(database, now, now + 5_000)
    (owed,) = (await executions.owed(database, [name])).values()
    assert await executions.take_unsent(database, owed, "nobody")
    state, said = await told(database, name)
    assert (state, "Its record is about to be written" in said) == ("cancelled", True)


async def test_an_expired_message_names_its_expiry(database: Database) -> None:
    now = await database_ms(database)
    (name,) = await send(database, now - 20_000, now - 10_000, expires_ms=now - 5_000)
    await retries_now(database)
    await run_dry(worker(database, answering(200)))
    state, said = await told(database, name)
    assert state == "dead"
    assert "expiresAt" in said.splitlines()[0]


async def test_what_holds_a_message_is_named(database: Database) -> None:
    """Its window, its breaker, the limits of its queue."""
    now = await database_ms(database)
    (name,) = await send(database, now - 10, now - 10, tags=("billing",), queue="mail")
    window = Window("upgrade", "hold", tags=("billing",), from_ms=now - 60_000, until_ms=now + 60_000)
    await windows.put(database, window, now)
    _, said = await told(database, name)
    assert "It waits: the window 'upgrade' holds it until" in said
    await windows.delete(database, "upgrade", now)
    opened = {"_id": "127.0.0.1:1", "opened_at": DatetimeMS(now), "until": DatetimeMS(now + 30_000), "why": "it failed"}
    await database.api["breakers"].insert_one(opened)
    _, said = await told(database, name)
    assert "It waits: the circuit breaker of 127.0.0.1:1 is open" in said
    await database.api["breakers"].delete_many({})
    await queues.put(database, queues.Queue("mail", Limits(concurrent=1), now))
    await permits.write(database, "q:mail", Permits(), Permits(0, {"another:1": "x"}))
    await database.api["executions"].update_many({}, {"$set": {"state": "pending"}})
    _, said = await told(database, name)
    assert "It waits: the limit of the queue 'mail' is used up" in said
    assert "allows 1 at the same time; 1 run" in said
    await queues.put(database, queues.Queue("mail", Limits(per_second=0.01), now))
    seen = await permits.read(database, "q:mail")
    await permits.write(database, "q:mail", seen, Permits(now + 50_000, {}))
    _, said = await told(database, name)
    assert "allows 0.01 requests per second; the next one may leave at" in said


async def test_a_message_that_there_is_not_says_for_how_long_there_would_be_a_record(database: Database) -> None:
    now = await database_ms(database)
    (name,) = await send(database, now, now)
    await run_dry(worker(database, answering(200)))
    await database.api["history"].delete_many({})
    assert await rows(database, "executions") == []
    with pytest.raises(NotFound) as missing:
        await told(database, name)
    assert "never accepted, or its record has expired (kept for 7 days" in str(missing.value)


async def test_secrets_are_not_said(database: Database) -> None:
    now = await database_ms(database)
    callback = Callback(url="http://127.0.0.1:1/yes", secret_headers=(("X-Key", "s3cretvalue"),))
    secret: dict[str, Any] = {"secret_headers": (("X-Key", "s3cretvalue"),), "on_success": callback}
    (name,) = await send(database, now, now, **secret)
    await run_dry(worker(database, answering(200)))
    assert "s3cretvalue" not in (await told(database, name))[1]
