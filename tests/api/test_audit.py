"""The audit log: who did what to which object, as a caller reads it; and what a node that dies leaves."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from pydantic import SecretStr

from api.http.context import ApiSettings
from cluster.core.actor import Actor, set_actor
from cluster.core.audit_entry import new_entry
from cluster.core.documents.job_json import read_job
from cluster.core.errors import StoreUnavailable
from cluster.core.job.definition import WantedPause
from cluster.leader.copy_audit import AuditCopier
from cluster.store import api_keys, audit, audited, nodes, outbox
from cluster.store.api_keys import StoredApiKey
from cluster.usecases import jobs
from config.settings import ApiKey
from tests.support.api_client import RULES, TARGET, job, paths, serve

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database
    from tests.support.api_client import Api

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"


async def entries(api: Api, query: str = "") -> list[dict[str, Any]]:
    """The latest first."""
    answer = await api.call("GET", f"/audit?{query}")
    assert answer.status_code == 200, answer.text
    return list(answer.json["items"])


async def acts(api: Api, query: str = "") -> list[str]:
    """The oldest first."""
    return [f"{e['object']} {e['action']}" for e in reversed(await entries(api, query))]


def changed(entry: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {c["path"]: (c["before"], c["after"]) for c in entry["changes"]}


async def test_each_change_of_a_job_has_one_entry(api: Api) -> None:
    """With the difference and the revision; what changes nothing has none."""
    await api.make(jobId="j", name="n")
    await api.call("PUT", "/jobs/j", job(name="n"))
    await api.call("PATCH", "/jobs/j", {"retry": {"maxAttempts": 7}, "name": None})
    await api.call("POST", "/jobs/j/pause", {"reason": "why"})
    await api.call("POST", "/jobs/j/pause")
    await api.call("POST", "/jobs/j/resume")
    await api.call("POST", "/jobs/j/trigger")
    await api.call("DELETE", "/jobs/j")
    await api.make(jobId="j")
    acted = await acts(api)
    assert acted == [f"job:j {a}" for a in ("create", "change", "pause", "resume", "trigger", "delete", "create")]
    listed = list(reversed(await entries(api)))
    assert changed(listed[1]) == {"/name": ("n", None), "/retry/maxAttempts": (5, 7)}
    assert changed(listed[2]) == {"/state": ("active", "paused"), "/pauseReason": (None, "why")}
    assert [e["revision"] for e in listed] == [1, 2, 3, 4, None, 5, 6]
    assert listed[4]["detail"]["executionId"].startswith("j:")
    assert changed(listed[0])["/api"] == (None, TARGET)


async def test_an_entry_says_who_and_how(api: Api) -> None:
    """The address of the client, and a command by its name."""
    await api.make(jobId="j")
    await api.call("POST", "/jobs/j/pause", User_Agent="Horae-CLI/0.1.0 (jobs pause)")
    await api.call("POST", "/jobs/j/resume", Sec_Fetch_Site="same-origin")
    made, paused, resumed = reversed(await entries(api))
    assert made["by"] == {"key": None, "address": "127.0.0.1", "via": "api", "command": None}
    assert (paused["by"]["via"], paused["by"]["command"]) == ("command", "jobs pause")
    assert resumed["by"]["via"] == "page"


async def test_what_horae_does_by_itself_is_its_own(api: Api) -> None:
    """The end of a pause, which the next change of the job finds."""
    set_actor(Actor("api", "ci"))
    await api.make(jobId="j")
    now = api.clock.now_ms()
    await jobs.pause(api.db, "j", now, wanted=WantedPause(now + 1000))
    await jobs.resume(api.db, "j", now + 2000)
    assert [(e["action"], e["by"]["via"], e["by"]["key"]) for e in await entries(api)][:2] == [
        ("resume", "horae", None),
        ("pause", "api", "ci"),
    ]


async def test_no_secret_is_in_the_log(api: Api) -> None:
    """Neither those of jobs nor those of channels, new or old; that one was replaced is."""
    secrets = {"auth": {"type": "bearer", "token": "t-first"}, "headers": {"X-K": {"secret": "h-first"}}}
    await api.make(jobId="j", signingSecret=SECRET, **secrets)
    await api.call("PATCH", "/jobs/j", {"auth": {"token": "t-second"}, "headers": {"X-K": {"secret": "h-second"}}})
    channel = {"type": "webhook", "url": "https://ops.example/", "signingSecret": SECRET}
    await api.call("PUT", "/channels/ops", channel)
    await api.call("PUT", "/channels/chat", {"type": "slack", "url": "https://hooks.example/T/SECRETPATH"})
    await api.call("DELETE", "/channels/chat")
    found = await entries(api)
    text = orjson.dumps(found).decode()
    assert not [s for s in ("t-first", "t-second", "h-first", "h-second", SECRET, "SECRETPATH") if s in text]
    patched = next(e for e in found if e["action"] == "change")
    hidden = {"secret": True}
    assert changed(patched) == {"/headers/X-K": (hidden, hidden), "/auth/token": (hidden, hidden)}
    stored = str(await api.db.api["audit"].find().to_list()) + str(await api.db.api["revisions"].find().to_list())
    assert "v1:" not in stored.replace("v1::", "")  # nothing encrypted either


async def test_queues_channels_rules_keys_and_nodes_are_in_the_log(api: Api) -> None:
    """Created, changed, deleted, each with what it was and is."""
    await api.call("PUT", "/queues/mail", {"maxPerSecond": 20})
    await api.call("PUT", "/queues/mail", {"maxPerSecond": 30})
    await api.call("DELETE", "/queues/mail")
    assert (await api.call("GET", "/queues/mail")).status_code == 404
    assert (await api.call("DELETE", "/queues/mail")).status_code == 404
    await api.call("PUT", "/channels/ops", {"type": "webhook", "url": "https://ops.example/"})
    await api.call("PUT", "/alerts/default", {"channels": ["ops"], "onDead": True})
    await api.call("DELETE", "/alerts/default")
    await api.call("DELETE", "/channels/ops")
    now = api.clock.now_ms()
    assert await api_keys.create(api.db, StoredApiKey("ci", b"1" * 32, "write", now))
    assert not await api_keys.create(api.db, StoredApiKey("ci", b"2" * 32, "write", now))
    assert await api_keys.revoke(api.db, "ci", now + 1)
    assert not await api_keys.revoke(api.db, "ci", now)
    await api.db.api["nodes"].insert_one({"_id": "n1"})
    assert await nodes.request_drain(api.db, "n1", now, drain=True)
    assert await nodes.request_drain(api.db, "n1", now + 1, drain=False)
    assert not await nodes.request_drain(api.db, "n2", now, drain=True)
    found = await entries(api, "limit=500")
    by_object: dict[str, list[str]] = {}
    for e in reversed(found):
        by_object.setdefault(e["object"], []).append(e["action"])
    assert by_object == {
        "queue:mail": ["create", "change", "delete"],
        "channel:ops": ["create", "delete"],
        "rules:default": ["create", "delete"],
        "key:ci": ["create", "revoke"],
        "node:n1": ["drain", "undrain"],
    }
    queue = [changed(e).get("/maxPerSecond") for e in reversed(found) if e["object"] == "queue:mail"]
    assert queue == [(None, 20), (20, 30), (30, None)]
    assert b"1" * 32 not in orjson.dumps(found)


async def test_a_document_that_is_put_again_after_its_deletion_is_new(api: Api) -> None:
    """Also if the node that deletes dies before the document is gone: the deletion counts, and so does the put."""
    await api.call("PUT", "/queues/mail", {"maxPerSecond": 20})
    subject = audited.Subject("queues", "mail", "queue:mail")
    entry = new_entry(subject.object, "delete", api.clock.now_ms())
    assert await outbox.mark_deleted(api.db, "queues", "mail", entry)
    answer = await api.call("PUT", "/queues/mail", {"maxPerSecond": 5})
    assert answer.status_code == 201
    assert await acts(api) == ["queue:mail create", "queue:mail delete", "queue:mail create"]
    assert (await api.call("GET", "/queues/mail")).json["maxPerSecond"] == 5


@pytest.mark.parametrize("died_after", ["mark", "copy"])
async def test_a_deletion_is_finished_by_whoever_finds_it(api: Api, died_after: str) -> None:
    """The mark is the decision. The entry appears once."""
    await api.call("PUT", "/queues/mail", {"maxPerSecond": 20})
    entry = new_entry("queue:mail", "delete", api.clock.now_ms())
    assert await outbox.mark_deleted(api.db, "queues", "mail", entry)
    if died_after == "copy":
        [seen] = await outbox.pending(api.db, "queues", 10)
        await audit.insert(api.db, [audited._finished(e) for e in seen.entries])
    assert await acts(api) == ["queue:mail create", "queue:mail delete"]
    assert await api.db.api["queues"].count_documents({}) == 0


async def test_a_node_of_the_release_before_puts_what_is_being_deleted(api: Api) -> None:
    """It leaves the mark; what it put stays, because it was written at another time."""
    await api.call("PUT", "/queues/mail", {"maxPerSecond": 20})
    entry = new_entry("queue:mail", "delete", api.clock.now_ms())
    await outbox.mark_deleted(api.db, "queues", "mail", entry)
    [seen] = await outbox.pending(api.db, "queues", 10)
    await api.db.api["queues"].update_one({"_id": "mail"}, {"$set": {"max_per_second": 5.0, "updated_at": 1}})
    assert not await outbox.remove(api.db, "queues", seen)
    await outbox.clear(api.db, "queues", seen)
    assert (await api.db.api["queues"].find_one({"_id": "mail"}) or {}).keys() >= {"max_per_second"}
    assert await api.db.api["queues"].count_documents({"deleting": {"$exists": True}}) == 0


async def test_a_change_whose_node_died_before_the_copy_has_its_entry_once(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the change, after the copy, and with two leaders that copy at the same time."""
    await api.make(jobId="j")
    assert await api.db.api["audit"].count_documents({}) == 0
    copier = AuditCopier(api.db, api.clock, 365.0)
    real = outbox.clear

    async def dies(*_: Any) -> None:
        raise StoreUnavailable("it died")

    monkeypatch.setattr(outbox, "clear", dies)
    with pytest.raises(StoreUnavailable):
        await copier.step()
    monkeypatch.setattr(outbox, "clear", real)
    await asyncio.gather(copier.step(), AuditCopier(api.db, api.clock, 365.0).step())
    assert await acts(api) == ["job:j create"]
    stored = await api.db.api["jobs"].find_one({"_id": "j"})
    assert stored is not None
    assert "outbox" not in stored


async def test_an_import_is_one_entry_with_its_counts(api: Api) -> None:
    """However many jobs it changed; one that changes nothing has none."""
    lines = b"\n".join(orjson.dumps(job(jobId=f"j{i}")) for i in range(1200)) + b'\n{"schedule": "never"}'
    for _ in range(2):
        assert (await api.call("POST", "/jobs/import", lines, Content_Type="application/x-ndjson")).status_code == 200
    [entry] = await entries(api)
    assert (entry["object"].partition(":")[0], entry["action"]) == ("import", "import")
    assert entry["counts"] == {"created": 1200, "updated": 0, "unchanged": 0, "failed": 1, "finished": True}


async def test_replays_are_in_the_log(api: Api) -> None:
    """Of many: one entry with the filter and the count."""
    answer = await api.call("POST", "/executions/retry", {"filter": {"tag": "billing"}, "maxPerSecond": 5})
    [entry] = await entries(api)
    assert (entry["object"], entry["action"]) == (f"replay:{answer.json['retryId']}", "replay")
    assert (entry["counts"], entry["detail"]["tag"]) == ({"matched": 0}, "billing")


async def test_entries_are_found_by_object_key_and_time(api: Api) -> None:
    """Page by page, the latest first, without gaps."""
    for number in range(7):
        set_actor(Actor("api", f"k{number % 2}"))
        await jobs.put(api.db, f"j{number}", _wanted(), api.clock.now_ms())
        api.clock.shift += 1000
    every = await entries(api)
    assert [e["object"] for e in every] == [f"job:j{n}" for n in reversed(range(7))]
    assert await acts(api, "object=job:j3") == ["job:j3 create"]
    assert await acts(api, "key=k1") == [f"job:j{n} create" for n in (1, 3, 5)]
    since, until = every[5]["at"], every[2]["at"]
    assert await acts(api, f"since={since}&until={until}") == [f"job:j{n} create" for n in (1, 2, 3)]
    walked: list[str] = []
    cursor = ""
    while True:
        page = (await api.call("GET", f"/audit?limit=2{cursor}")).json
        walked += [e["id"] for e in page["items"]]
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert walked == [e["id"] for e in every]


def _wanted() -> Any:
    return read_job(job(), RULES.context)


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("object=j", "object"),
        ("object=thing:j", "object"),
        ("object=job:", "object"),
        ("since=yesterday", "since"),
        ("limit=501", "limit"),
        ("cursor=abc", "cursor"),
        ("who=me", "who"),
    ],
)
async def test_a_bad_query_names_its_parameter(api: Api, query: str, path: str) -> None:
    """422."""
    answer = await api.call("GET", f"/audit?{query}")
    assert (answer.status_code, paths(answer)) == (422, [path])


async def test_entries_are_kept_for_their_retention(api: Api) -> None:
    """The leader deletes those that are older, whatever setting they were written under."""
    await api.make(jobId="old")
    await entries(api)
    api.clock.shift = 20 * 86_400_000
    await api.make(jobId="new")
    await AuditCopier(api.db, api.clock, 10.0).step()
    assert await acts(api) == ["job:new create"]


async def test_a_job_that_nobody_copies_from_does_not_grow(api: Api) -> None:
    """Without a leader its entries are copied by those who change it."""
    await api.make(jobId="j")
    for number in range(60):
        await api.call("PATCH", "/jobs/j", {"name": str(number)})
    stored = await api.db.api["jobs"].find_one({"_id": "j"})
    assert stored is not None
    assert len(stored["outbox"]) <= 21
    assert len(await entries(api, "limit=500")) == 61


KEYS = (
    ApiKey("boss", SecretStr("admin-key-0123456789"), "admin"),
    ApiKey("ci", SecretStr("write-key-0123456789"), "write"),
    ApiKey("eye", SecretStr("read-key-01234567890"), "read"),
)


async def test_the_log_names_the_key_and_the_client_behind_a_proxy(database: Database) -> None:
    """And needs scope admin. Revisions need scope read, a revert scope write."""
    settings = ApiSettings(keys=KEYS, rules=RULES, trusted_proxies=(ipaddress.ip_network("127.0.0.0/8"),))

    def bearer(number: int) -> str:
        return f"Bearer {KEYS[number].key.get_secret_value()}"

    async for api in serve(database, settings):
        api.headers = {"Authorization": bearer(1)}
        await api.call("POST", "/jobs", job(jobId="j"), X_Forwarded_For="203.0.113.9, 198.51.100.7")
        await api.call("PATCH", "/jobs/j", {"name": "n"})
        assert (await api.call("GET", "/audit")).status_code == 403
        assert (await api.call("POST", "/jobs/j/revisions/1/revert")).status_code == 200
        for number, statuses in ((0, (200, 200)), (2, (403, 200))):
            api.headers = {"Authorization": bearer(number)}
            answers = [(await api.call("GET", path)).status_code for path in ("/audit", "/jobs/j/revisions")]
            assert tuple(answers) == statuses
        assert (await api.call("POST", "/jobs/j/revisions/1/revert")).status_code == 403
        api.headers = {"Authorization": bearer(0)}
        first = (await entries(api, "key=ci"))[-1]
        assert first["by"] == {"key": "ci", "address": "198.51.100.7", "via": "api", "command": None}
