"""Whoever is notified that an incident began is notified that it is over, and nobody else, whatever windows mute.

Leaders die before and after each write, or freeze there while another one leads.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from bson.datetime_ms import DatetimeMS

from cluster.core.documents.alerts import AlertSpec
from cluster.core.errors import StoreUnavailable
from cluster.core.ids import execution_id
from cluster.core.windows import Window
from cluster.leader.alerting import Alerter
from cluster.store import alert_jobs, alert_results, channels, incidents, windows
from cluster.store.channels import Channel
from cluster.store.mongo.encryption import Keyring
from tests.support.engine import Crank, job_document, put_jobs, rows
from tests.support.workers import DUE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cluster.store.mongo.client import Database

HOUR = 3_600_000
JOB = "bad"
WRITES = (
    (incidents, "write"),
    (alert_results, "clear_pending"),
    (alert_jobs, "insert"),
)
"""In one look at a new incident: it is opened, its results are cleared, its notices are committed, one alert job is made
for each of two channels, and the notices are taken off."""
ALL_WRITES = range(1, 7)


class Story:
    """One job with alert rules, and what happens to it."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.clock = Crank(DUE + 1000)
        self._due = DUE

    async def begin(self, *names: str) -> None:
        for name in names or ("ops", "chat"):
            await channels.put(self.db, Channel(name, "webhook", f"http://{name}.example/alerts"))
        await put_jobs(self.db, job_document(JOB, tags=["billing"]))
        await self.rules(*(names or ("ops", "chat")))

    async def rules(self, *names: str) -> None:
        spec = AlertSpec.model_validate({"channels": list(names), "onDead": True})
        await self.db.api["jobs"].update_one({"_id": JOB}, {"$set": {"alerts": spec.to_json()}})

    async def ends_as(self, state: str) -> None:
        """The next execution of the job is final."""
        self.clock.now += 3000
        self._due += 1000
        record: dict[str, Any] = {
            "_id": execution_id(JOB, self._due),
            "job_id": JOB,
            "state": state,
            "ended_at": DatetimeMS(self.clock.now),
            "drift_ms": 0,
            "reason": None,
            "attempts": [],
            **({"mark": True} if state == "dead" else {}),
        }
        await self.db.work["history"].insert_one(record)

    async def mute(self, on: bool = True) -> None:
        if not on:
            assert await windows.delete(self.db, "quiet", self.clock.now)
            return
        until = self.clock.now + HOUR
        window = Window("quiet", "mute", tags=("billing",), from_ms=self.clock.now - 1000, until_ms=until)
        await windows.put(self.db, window, self.clock.now)

    async def look(self, alerter: Alerter | None = None, times: int = 3) -> None:
        alerter = alerter or Alerter(self.db, self.clock, 7)
        for _ in range(times):
            await alerter.step()
            self.clock.now += 2500

    async def heard(self) -> dict[str, list[str]]:
        """By channel, what it was notified of, in order."""
        found: dict[str, list[tuple[str, str]]] = {}
        for d in await rows(self.db, "jobs"):
            if d.get("channel"):
                content = orjson.loads(d["body"])
                found.setdefault(d["channel"], []).append((content["at"], content["said"]))
        return {channel: [said for _, said in sorted(notices)] for channel, notices in found.items()}


def counting(patch: pytest.MonkeyPatch, at: Callable[[int, bool], Awaitable[None]]) -> None:
    """`at` is awaited before (True) and after each write of alerting, with its number."""
    number = 0

    def wrapped(real: Any) -> Any:
        async def call(*args: Any, **more: Any) -> Any:
            nonlocal number
            number += 1
            mine = number
            await at(mine, True)
            result = await real(*args, **more)
            await at(mine, False)
            return result

        return call

    for module, name in WRITES:
        patch.setattr(module, name, wrapped(getattr(module, name)))


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("write", ALL_WRITES)
async def test_a_leader_that_dies_while_a_mute_begins_parts_no_beginning_from_its_end(
    database: Database, monkeypatch: pytest.MonkeyPatch, write: int, before: bool
) -> None:
    """It dies at a write of the beginning; a window begins to mute the job; the incident is over within it."""
    story = Story(database)
    await story.begin()
    await story.ends_as("dead")

    async def dies(number: int, is_before: bool) -> None:
        if (number, is_before) == (write, before):
            raise StoreUnavailable("the leader is no more")

    with monkeypatch.context() as patch:
        counting(patch, dies)
        with pytest.raises(StoreUnavailable):
            await story.look()
    await story.mute()
    await story.ends_as("succeeded")
    await story.look()
    await story.mute(on=False)
    await story.look()
    heard = await story.heard()
    committed = write > 3 or (write == 3 and not before)
    assert heard == ({"ops": ["began", "over"], "chat": ["began", "over"]} if committed else {})
    assert "unsent" not in (await rows(database, "incidents"))[0]


@pytest.mark.parametrize("again", [False, True], ids=["once", "again"])
@pytest.mark.parametrize("write", ALL_WRITES)
async def test_a_leader_that_comes_late_with_a_beginning_parts_it_not_from_its_end(
    database: Database, monkeypatch: pytest.MonkeyPatch, write: int, again: bool
) -> None:
    """It freezes before a write; meanwhile another leads, a window mutes the job, and the incident is over, perhaps twice."""
    story = Story(database)
    await story.begin()
    await story.ends_as("dead")
    frozen, thaw = asyncio.Event(), asyncio.Event()

    async def freezes(number: int, is_before: bool) -> None:
        if (number, is_before) == (write, True):
            frozen.set()
            await thaw.wait()

    with monkeypatch.context() as patch:
        counting(patch, freezes)
        stale = asyncio.create_task(Alerter(database, story.clock, 7).step())
        async with asyncio.timeout(20):
            await frozen.wait()
    await story.mute()
    for _ in range(2 if again else 1):
        await story.look(times=1)
        await story.ends_as("succeeded")
        await story.look()
        if again:
            await story.ends_as("dead")
    thaw.set()
    await stale
    await story.ends_as("succeeded")
    await story.look()
    await story.mute(on=False)
    await story.look()
    for notices in (await story.heard()).values():
        assert notices == ["began", "over"] * (len(notices) // 2)
    assert (len(await story.heard()) == 2) == (write > 3)
    assert "unsent" not in (await rows(database, "incidents"))[0]


async def test_incidents_that_nobody_looked_at_between_their_beginning_and_their_end_are_no_news(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of them within one window: the leader dies before it looks at the notices of the first."""
    story = Story(database)
    await story.begin()
    await story.mute()

    async def nothing(*_: Any) -> list[Any]:
        return []

    with monkeypatch.context() as patch:
        patch.setattr(incidents, "with_unsent_notices", nothing)
        for _ in range(2):
            await story.ends_as("dead")
            await story.look()
            await story.ends_as("succeeded")
            await story.look()
    assert len((await rows(database, "incidents"))[0]["unsent"]) == 4
    await story.look()
    await story.mute(on=False)
    await story.look()
    assert await story.heard() == {}


async def test_a_channel_without_a_key_does_not_take_the_end_from_the_others(database: Database) -> None:
    """One was notified before the window, the other one waits for its key until the incident is over."""
    story = Story(database)
    await story.begin()
    sealed = replace(database, keyring=Keyring((b"k" * 32,)))
    await channels.put(sealed, Channel("chat", "slack", "http://chat.example/secret-path"))
    await story.ends_as("dead")
    await story.look()
    await story.mute()
    await story.ends_as("succeeded")
    await story.look()
    await story.mute(on=False)
    await story.look()
    assert await story.heard() == {"ops": ["began", "over"]}
    await story.look(Alerter(sealed, story.clock, 7))
    assert await story.heard() == {"ops": ["began", "over"]}
    assert "unsent" not in (await rows(database, "incidents"))[0]


async def test_the_end_goes_to_those_that_know_of_the_beginning_whatever_the_rules_say_by_then(
    database: Database,
) -> None:
    """A channel that replaced another one during the incident knows nothing of it, unless it was reminded."""
    story = Story(database)
    await story.begin("ops", "chat", "desk")
    await story.rules("ops", "chat")
    await story.ends_as("dead")
    await story.look()
    await story.rules("chat", "desk")
    await story.look()
    await story.ends_as("succeeded")
    await story.look()
    assert await story.heard() == {"ops": ["began", "over"], "chat": ["began", "over"]}
    await story.ends_as("dead")
    await story.look()
    await story.ends_as("succeeded")
    await story.look()
    heard = await story.heard()
    assert heard["desk"] == ["began", "over"]
    assert heard["ops"] == ["began", "over"]


async def test_a_channel_that_was_not_there_at_the_beginning_is_not_notified_of_the_end(database: Database) -> None:
    """It is made while the incident is open."""
    story = Story(database)
    await story.begin("ops", "chat")
    await channels.delete(database, "chat", story.clock.now)
    await story.ends_as("dead")
    await story.look()
    await channels.put(database, Channel("chat", "webhook", "http://chat.example/alerts"))
    await story.ends_as("succeeded")
    await story.look()
    assert await story.heard() == {"ops": ["began", "over"]}


async def test_what_a_node_of_the_release_before_wrote_has_its_end_told_by_the_rules(database: Database) -> None:
    """It knows nothing of channels that were notified, and leaves the field as it is."""
    story = Story(database)
    await story.begin("ops")
    await story.ends_as("dead")
    await story.look()
    older = {"$inc": {"rev": 1}, "$set": {"notified.channels": []}}
    await database.work["incidents"].update_one({}, older)
    await story.ends_as("succeeded")
    await story.look()
    assert await story.heard() == {"ops": ["began", "over"]}
