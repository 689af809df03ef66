"""Alerts on a real MongoDB: each is sent once, whichever process dies in between, and they delay no other job."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import orjson
import pytest
from bson.datetime_ms import DatetimeMS

from cluster.core.alerts import IncidentKind, Symptom, watch_of, with_symptom
from cluster.core.documents.alerts import AlertSpec
from cluster.core.documents.job_json import read_job
from cluster.core.errors import StoreUnavailable
from cluster.core.execution.model import Batch, Execution
from cluster.core.ids import execution_id
from cluster.leader.alerting import Alerter
from cluster.store import alert_jobs, alert_results, channels, history, incidents, meta, missed_ranges
from cluster.store.channels import Channel
from cluster.store.enqueue import insert_owed
from cluster.store.missed_ranges import MissedRange
from cluster.store.mongo.encryption import Keyring
from cluster.usecases.jobs import put
from tests.support.engine import Crank, check_books, job_document, lead, put_jobs, rows, settle_all, worker
from tests.support.workers import DUE, answering, owed, run_dry

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

RULES = {"channels": ["ops", "chat"], "onDead": True}
OPS, CHAT = "http://ops.example/alerts", "http://chat.example/secret-path"


def recently() -> Crank:
    """Not the future of other tests: the database's clock decides what may be claimed."""
    return Crank(int(time.time() * 1000) - 120_000)


async def prepared(db: Database, job: str = "bad", **fields: Any) -> None:
    """Two channels, and a job with rules of which an execution is dead."""
    await channels.put(db, Channel("ops", "webhook", OPS))
    await channels.put(db, Channel("chat", "webhook", CHAT))
    await owed(db, job, batch=f"b-{job}", retry={**ONCE}, **fields)
    spec = AlertSpec.model_validate(RULES)
    await db.api["jobs"].update_many({}, {"$unset": {"unsettled": ""}})  # the leader is to see the alerts alone
    await db.api["jobs"].update_one(
        {"_id": job},
        {
            "$set": {
                "alerts": spec.to_json(),
                "watch": {"channels": RULES["channels"], "marks": True, "drift_over_ms": None},
            }
        },
    )


ONCE = {"max_attempts": 1, "initial_delay_seconds": 1.0, "multiplier": 1.0, "max_delay_seconds": 1.0, "jitter": 0.0}


async def told(db: Database) -> list[str]:
    """The channels that alerts are owed to, by alert."""
    return sorted(d["channel"] for d in await rows(db, "jobs") if d.get("channel"))


async def test_a_dead_execution_makes_one_alert_per_channel_and_one_resolved_notice(database: Database) -> None:
    """The alerts are jobs that run once, through the same engine; their bodies have the notices."""
    clock = recently()
    name = "Bill {{jobId}} {{{{of}}}} {{it}}"
    await prepared(database, name=name)
    await run_dry(worker(database, answering(503), clock=clock))
    alerter = Alerter(database, clock, 7)
    for _ in range(3):
        await alerter.step()
    assert await told(database) == ["chat", "ops"]
    (incident,) = await rows(database, "incidents")
    assert (incident["_id"], incident["open"]) == ("bad:failing", True)
    assert all("mark" not in h for h in await rows(database, "history"))
    leader = await lead(database, clock)
    await settle_all(leader, clock)
    came: list[tuple[str, Any]] = []

    def target(request: httpx.Request) -> httpx.Response:
        came.append((str(request.url), orjson.loads(request.read())))
        return httpx.Response(200)

    clock.now += 2000
    await run_dry(worker(database, target, clock=clock))
    assert sorted(url for url, _ in came) == [CHAT, OPS]
    assert {body["type"] for _, body in came} == {"failing.began"}
    assert came[0][1]["jobId"] == "bad"
    assert name in came[0][1]["text"], "nothing of it is replaced"
    assert "503" in came[0][1]["detail"]
    await owed_again(database)
    clock.now += 5000
    await run_dry(worker(database, answering(200), clock=clock))
    for _ in range(3):
        await alerter.step()
    assert (await rows(database, "incidents"))[0]["open"] is False
    assert await told(database) == ["chat", "chat", "ops", "ops"]


@pytest.mark.parametrize("dies_after", range(1, 12))
async def test_alerts_survive_a_leader_that_dies_between_any_two_writes(
    database: Database, monkeypatch: pytest.MonkeyPatch, dies_after: int
) -> None:
    """One alert for each channel, whichever write was its last."""
    clock = recently()
    await prepared(database)
    await run_dry(worker(database, answering(503), clock=clock))
    left = dies_after

    def dying(real: Any) -> Any:
        async def call(*args: Any, **more: Any) -> Any:
            nonlocal left
            result = await real(*args, **more)
            left -= 1
            if left == 0:
                raise StoreUnavailable("the leader is no more")
            return result

        return call

    with monkeypatch.context() as patch:
        for module, name in (
            (alert_results, "pending"),
            (alert_jobs, "alert_rules_of"),
            (incidents, "get"),
            (incidents, "write"),
            (alert_results, "clear_pending"),
            (incidents, "with_unsent_notices"),
            (alert_jobs, "insert"),
        ):
            patch.setattr(module, name, dying(getattr(module, name)))
        with pytest.raises(StoreUnavailable):
            for _ in range(3):
                await Alerter(database, clock, 7).step()
    clock.now += 1500
    successors = [Alerter(database, clock, 7), Alerter(database, clock, 7)]
    for _ in range(2):
        await asyncio.gather(*(s.step() for s in successors))  # one of them is stale and does not know
    assert await told(database) == ["chat", "ops"]
    (incident,) = await rows(database, "incidents")
    assert "unsent" not in incident
    assert incident["open"]


async def test_default_alert_rules_apply_to_jobs_without_rules(database: Database) -> None:
    """They do not apply to a job with empty rules, nor to an alert that could not be delivered."""
    clock = recently()
    await prepared(database)
    await owed(database, "plain", batch="b-plain", retry=ONCE)
    await owed(database, "mute", batch="b-mute", retry=ONCE)
    mute = AlertSpec.model_validate({"channels": []})
    none = {"channels": [], "marks": False, "drift_over_ms": None, "no_run_ms": None}
    await database.api["jobs"].update_one({"_id": "mute"}, {"$set": {"alerts": mute.to_json(), "watch": none}})
    await meta.set_default_rules(database, AlertSpec.model_validate({"channels": ["chat"], "onDead": True}), 0)
    w = worker(database, answering(503), clock=clock)

    w.results.watch_by_default(watch_of(AlertSpec.model_validate(RULES).to_rules()))
    await run_dry(w)
    alerter = Alerter(database, clock, 7)
    await alerter.step()
    assert {i["_id"] for i in await rows(database, "incidents")} == {"bad:failing", "plain:failing"}
    assert await told(database) == ["chat", "chat", "ops"]
    await database.api["jobs"].update_many({"channel": None}, {"$unset": {"unsettled": ""}})
    leader = await lead(database, clock)
    await settle_all(leader, clock)
    await database.api["jobs"].update_many({"channel": {"$exists": True}}, {"$set": {"retry": ONCE}})
    clock.now += 2000
    await run_dry(w)
    await alerter.step()
    dead = [h for h in await rows(database, "history") if h["job_id"].startswith("alert.")]
    assert {h["state"] for h in dead} == {"dead"}
    assert len(await rows(database, "incidents")) == 2, "an alert about an alert"
    await check_books(database)


async def test_an_alert_to_a_deleted_channel_ends_with_the_reason(database: Database) -> None:
    """Channels are read when an alert is sent: a corrected address is used, a deleted channel ends the alert."""
    clock = recently()
    await prepared(database)
    await run_dry(worker(database, answering(503), clock=clock))
    await Alerter(database, clock, 7).step()
    await settle_all(await lead(database, clock), clock)
    await channels.delete(database, "ops", 0)
    await channels.put(database, Channel("chat", "webhook", "http://mended.example/"))
    came: list[str] = []

    def target(request: httpx.Request) -> httpx.Response:
        came.append(str(request.url))
        return httpx.Response(200)

    clock.now += 2000
    await run_dry(worker(database, target, clock=clock))
    assert came == ["http://mended.example/"]
    ended = {h["state"]: h["reason"] for h in await rows(database, "history") if h["job_id"].startswith("alert.")}
    assert ended["succeeded"] is None
    assert "no channel 'ops'" in ended["dead"]


async def test_no_run_for_too_long_opens_an_incident(database: Database) -> None:
    """`noRunForSeconds` counts from the activation, and from the last success; a success ends it."""
    clock = recently()
    await channels.put(database, Channel("ops", "webhook", OPS))
    alerts = {"channels": ["ops"], "noRunForSeconds": 60}
    wanted = read_job({"schedule": "@daily", "api": "http://a.example/", "alerts": alerts}, {})
    await put(database, "quiet", wanted, clock.now)
    alerter = Alerter(database, clock, 7)
    clock.now += 59_000
    await alerter.step()
    assert await rows(database, "incidents") == []
    clock.now += 10_000
    await alerter.step()
    (incident,) = await rows(database, "incidents")
    assert incident["_id"] == "quiet:noRun"
    clock.now += 10_000
    await alerter.step()
    assert await told(database) == ["ops"]


@pytest.mark.parametrize("later", [None, "failed"])
async def test_a_success_that_was_recorded_late_ends_the_silence(database: Database, later: str | None) -> None:
    """A success just before the leader found the job silent closes the incident, even if the next execution failed."""
    clock = recently()
    await channels.put(database, Channel("ops", "webhook", OPS))
    alerts = {"channels": ["ops"], "noRunForSeconds": 60}
    wanted = read_job({"schedule": "@daily", "api": "http://a.example/", "alerts": alerts}, {})
    await put(database, "quiet", wanted, clock.now)
    alerter = Alerter(database, clock, 7)
    clock.now += 70_000
    await alerter.step()
    ended = [("succeeded", clock.now - 500), *([(later, clock.now + 500)] if later else [])]
    for state, at in ended:
        await database.work["history"].insert_one(
            {
                "_id": execution_id("quiet", at - 100),
                "job_id": "quiet",
                "state": state,
                "ended_at": DatetimeMS(at),
                "drift_ms": 0,
                "reason": None,
                "attempts": [],
            }
        )
    clock.now += 6000
    await alerter.step()
    (incident,) = await rows(database, "incidents")
    assert incident["open"] is False
    clock.now += 6000
    await alerter.step()
    assert await told(database) == ["ops", "ops"], "once when it began and once when it was over"


async def test_old_alert_jobs_are_deleted_and_jobs_of_users_stay(database: Database) -> None:
    """Alert jobs outlive the retention by a few hours; jobs of users stay."""
    clock = recently()
    await prepared(database)
    await run_dry(worker(database, answering(503), clock=clock))
    alerter = Alerter(database, clock, 1)
    await alerter.step()
    await database.api["jobs"].update_many(
        {"channel": {"$exists": True}}, {"$set": {"state": "completed"}, "$unset": {"unsettled": ""}}
    )
    clock.now += 86_400_000 + 4 * 3_600_000 + 61_000
    await alerter.step()
    await alerter.step()
    assert [j["_id"] for j in await rows(database, "jobs") if not j.get("channel")] == ["bad"]
    assert await told(database) == []


async def owed_again(db: Database) -> None:
    """The next occurrence of the same job."""
    later = DUE + 60_000
    execution = Execution(execution_id("bad", later), "bad", later, later, "v1", "b2", 0)
    await insert_owed(db, [execution], [Batch("b2", (execution.id,), 0, 0, later, later)], lambda: "new")


async def test_missed_and_late_executions_open_incidents(database: Database) -> None:
    """A missed occurrence and a delivery later than its budget each open an incident of its own kind."""
    clock = recently()
    await channels.put(database, Channel("ops", "webhook", OPS))
    spec = AlertSpec.model_validate({"channels": ["ops"], "onMissed": True, "driftOverMs": 100})
    marks = {"channels": ["ops"], "marks": True, "drift_over_ms": 100, "no_run_ms": None}
    await owed(database, "late", batch="b")
    await database.api["jobs"].update_one({"_id": "late"}, {"$set": {"alerts": spec.to_json(), "watch": marks}})
    await run_dry(worker(database, answering(200), clock=clock))
    gap = MissedRange("late", "v1", DUE - 9000, DUE - 5000, 5, "nobody was there")
    await missed_ranges.record(database, [gap], clock.now, 7)
    done = await Alerter(database, clock, 7).step()
    assert (done.opened, done.alerts) == (2, 2)
    found = {i["_id"]: i["detail"] for i in await rows(database, "incidents")}
    assert found["late:missed"] == "5 occurrences were missed: nobody was there"
    assert "driftOverMs is 100" in found["late:drift"]


async def ended_for_good(db: Database, clock: Crank, count: int) -> None:
    """Jobs that have run for the only time, in vain, and have an incident each."""
    spec = AlertSpec.model_validate(RULES)
    await put_jobs(
        db, *(job_document(f"once{i}", active_from=0, state="completed", alerts=spec.to_json()) for i in range(count))
    )
    for i in range(count):
        trouble = Symptom(IncidentKind.FAILING, clock.now, "503", f"once{i}:{DUE}")
        found = with_symptom(None, f"once{i}", trouble, spec.to_rules(), clock.now)
        assert found is not None
        assert await incidents.write(db, replace(found, pending_notices=(), notified=tuple(spec.to_rules().channels)))
        await final(db, f"once{i}", "dead", DUE, clock.now)


async def final(db: Database, job: str, state: str, due: int, ended: int) -> None:
    await db.work["history"].update_one(
        {"_id": execution_id(job, due)},
        {
            "$set": {
                "job_id": job,
                "state": state,
                "ended_at": DatetimeMS(ended),
                "drift_ms": 0,
                "reason": None,
                "attempts": [],
            }
        },
        upsert=True,
    )


async def test_incidents_of_ended_jobs_do_not_hold_up_the_check_of_others(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Incidents of jobs that ran once and are dead stay open until a replay; however many they are, the end of another
    incident is found at once."""
    monkeypatch.setattr("cluster.leader.alerting.INCIDENTS", 5)
    clock = recently()
    await prepared(database)
    await run_dry(worker(database, answering(503), clock=clock))
    await ended_for_good(database, clock, 60)
    alerter = Alerter(database, clock, 7)
    for _ in range(150):
        await alerter.step()
        clock.now += 2000
    await owed_again(database)
    await run_dry(worker(database, answering(200), clock=clock))
    for _ in range(3):
        await alerter.step()
        clock.now += 2000
    still = {i["job_id"] for i in await rows(database, "incidents") if i["open"]}
    assert still == {f"once{i}" for i in range(60)}


async def test_an_incident_of_an_ended_job_closes_by_a_replay_or_with_its_history(database: Database) -> None:
    """A replay that succeeds closes it with a notice; the end of its history closes it without one."""
    clock = recently()
    await prepared(database, "other")
    await ended_for_good(database, clock, 2)
    alerter = Alerter(database, clock, 7)
    for state in ("dead", history.REOPENED, history.REOPENED):
        await final(database, "once0", state, DUE, clock.now)
        clock.now += 600_000
        await alerter.step()
    await final(database, "once0", "succeeded", DUE, clock.now)
    await database.api["history"].delete_many({"job_id": "once1"})
    for _ in range(2):
        clock.now += 300_000
        await alerter.step()
    found = {i["job_id"]: (i["open"], i["number"]) for i in await rows(database, "incidents")}
    assert found == {"once0": (False, 1), "once1": (False, 0)}
    assert await told(database) == ["chat", "ops"]


async def test_a_channel_address_is_redacted_from_stored_answers(database: Database) -> None:
    """The address is a secret: a server that repeats its request, whole or in part, puts it into no history."""
    clock = recently()
    await prepared(database)
    await channels.put(database, Channel("chat", "slack", CHAT))
    await run_dry(worker(database, answering(503), clock=clock))
    await Alerter(database, clock, 7).step()
    await settle_all(await lead(database, clock), clock)

    def repeats(request: httpx.Request) -> httpx.Response:
        return httpx.Response(404, text=f"POST {request.url.raw_path.decode()} at {request.url}: not found")

    clock.now += 2000
    await run_dry(worker(database, repeats, clock=clock))
    (chat,) = [h for h in await rows(database, "history") if "secret)" in str(h["attempts"])]
    assert chat["attempts"][0]["excerpt"] == "POST /(secret) at (secret): not found"


async def test_unreadable_documents_stop_no_other_alert(database: Database) -> None:
    """Neither an unreadable result, job, incident nor unreadable default rules do, and the heartbeat needs none of them."""
    clock = recently()
    await prepared(database)
    await owed(database, "spoiled", batch="b-spoiled", retry=ONCE)
    w = worker(database, answering(503), clock=clock)
    w.results.watch_by_default(watch_of(AlertSpec.model_validate(RULES).to_rules()))
    await run_dry(w)
    await database.api["history"].insert_one({"_id": "x:1", "mark": True, "ended_at": DatetimeMS(1), "job_id": "x"})
    await database.api["jobs"].update_one({"_id": "spoiled"}, {"$unset": {"active_from": ""}})
    await database.api["incidents"].insert_one(
        {"_id": "y:failing", "open": True, "checked_at": DatetimeMS(1), "unsent": []}
    )
    await database.api["meta"].insert_one({"_id": meta.DEFAULT_RULES_ID, "rules": '{"of another release": 1}'})
    assert await meta.default_rules(database) is None
    alerter = Alerter(database, clock, 7)
    await alerter.step()
    await alerter.step()
    assert await told(database) == ["chat", "ops"]
    assert await database.api["history"].count_documents({"mark": True}) == 0


async def test_an_alert_to_an_undecryptable_channel_waits_for_the_key(database: Database) -> None:
    """An alert to a channel that is encrypted with a key this node lacks waits for the key; the others are sent at once."""
    clock = recently()
    await prepared(database)
    sealed = replace(database, keyring=Keyring((b"k" * 32,)))
    await channels.put(sealed, Channel("chat", "slack", CHAT))
    await run_dry(worker(database, answering(503), clock=clock))
    without = Alerter(database, clock, 7)
    await without.step()
    await without.step()
    assert await told(database) == ["ops"]
    for _ in range(2):
        await Alerter(sealed, clock, 7).step()
    assert await told(database) == ["chat", "ops"]
    assert "unsent" not in (await rows(database, "incidents"))[0]
