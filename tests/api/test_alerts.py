"""Channels, rules and incidents through the API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import bson

from cluster.core.alerts import Incident, IncidentKind
from cluster.store import incidents
from tests.support.api_client import job, paths

if TYPE_CHECKING:
    from tests.support.api_client import Api

SECRET = "whsec_" + "Y2FuYXJ5LWNhbmFyeS1jYW5hcnktMTIzNA=="
HOOK = {"type": "webhook", "url": "http://127.0.0.1:9/x", "signingSecret": SECRET}
SLACK = {"type": "slack", "url": "http://127.0.0.1:9/services/T0/canary-slack"}


async def test_channels_are_created_changed_and_deleted(api: Api) -> None:
    """PUT is idempotent and keeps a secret that the body leaves out; an unknown channel is 404."""
    assert (await api.call("GET", "/channels/ops")).status_code == 404
    made = await api.call("PUT", "/channels/ops", HOOK)
    assert (made.status_code, made.headers["Location"]) == (201, "/channels/ops")
    again = await api.call("PUT", "/channels/ops", {"type": "webhook", "url": "http://127.0.0.1:9/y"})
    assert again.status_code == 200
    assert again.json["signingSecret"] == {"secret": True}
    assert again.json["url"].endswith("/y")
    await api.call("PUT", "/channels/chat", SLACK)
    kept = await api.call("PUT", "/channels/chat", {"type": "slack", "url": {"secret": True}})
    assert kept.json["url"] == {"secret": True}
    assert [c["name"] for c in (await api.call("GET", "/channels")).json["items"]] == ["chat", "ops"]
    for name, body, at in (
        ("new", {**HOOK, "signingSecret": {"secret": True}}, "signingSecret"),
        ("new", {**SLACK, "url": {"secret": True}}, "url"),
        ("ops", {**SLACK, "url": {"secret": True}}, "url"),
    ):
        unknown = await api.call("PUT", f"/channels/{name}", body)
        assert (unknown.status_code, paths(unknown), "send its value" in unknown.text) == (422, [at], True)
    none = await api.call("PUT", "/channels/ops", {**HOOK, "signingSecret": None})
    assert none.json["signingSecret"] is None
    assert (await api.call("DELETE", "/channels/ops")).status_code == 204
    assert (await api.call("DELETE", "/channels/ops")).status_code == 404
    assert (await api.call("PUT", "/channels/a.b", HOOK)).status_code == 422
    assert (await api.call("POST", "/channels/nope/test")).status_code == 404


async def test_responses_and_database_hide_secrets_of_channels(api: Api) -> None:
    """The signing secret and the address of a Slack webhook."""
    answers = [
        await api.call("PUT", "/channels/ops", HOOK),
        await api.call("PUT", "/channels/chat", SLACK),
        await api.call("GET", "/channels"),
        await api.call("GET", "/channels/chat"),
        await api.call("POST", "/channels/chat/test"),
    ]
    kept = b""
    for name in await api.db.api.list_collection_names():
        kept += b"".join(bson.encode(d) for d in await api.db.api[name].find().to_list())
    everything = kept.decode("latin-1") + "".join(a.text for a in answers)
    assert [c for c in ("canary-slack", SECRET, SECRET[6:]) if c in everything] == []


async def test_rules_may_only_name_existing_channels(api: Api) -> None:
    """In POST, PUT, PATCH, import and default rules: an unknown name is an error with its path, and nothing is written."""
    rules = {"channels": ["ops"], "onDead": True}
    for method, path, body, at in (
        ("POST", "/jobs", job(alerts=rules), "alerts.channels.0"),
        ("PUT", "/jobs/a", job(alerts=rules), "alerts.channels.0"),
        ("PUT", "/alerts/default", rules, "channels.0"),
    ):
        refused = await api.call(method, path, body)
        assert (refused.status_code, paths(refused)) == (422, [at])
        assert "PUT /channels/ops" in refused.json["errors"][0]["message"]
    await api.make(jobId="a")
    assert (await api.call("PATCH", "/jobs/a", {"alerts": rules})).status_code == 422
    line = (
        b'{"jobId":"b","schedule":"@daily","api":"http://127.0.0.1:1/","alerts":{"channels":["ops"],"onDead":true}}\n'
    )
    done = (await api.call("POST", "/jobs/import", line, Content_Type="application/x-ndjson")).json
    assert (done["failed"], done["errors"][0]["errors"][0]["path"]) == (1, "alerts.channels.0")
    await api.call("PUT", "/channels/ops", HOOK)
    patched = await api.call("PATCH", "/jobs/a", {"alerts": rules})
    assert patched.json["alerts"]["onDead"] is True
    assert patched.json["alerts"]["onRecovery"] is True
    partly = await api.call("PATCH", "/jobs/a", {"alerts": {"afterFailures": 3}})
    assert (partly.json["alerts"]["onDead"], partly.json["alerts"]["afterFailures"]) == (True, 3)
    refused = await api.call("DELETE", "/channels/ops")
    assert refused.status_code == 409
    assert "'a'" in refused.json["detail"]
    assert (await api.call("PATCH", "/jobs/a", {"alerts": None})).json["alerts"] is None
    assert (await api.call("PUT", "/alerts/default", rules)).status_code == 200
    assert "default" in (await api.call("DELETE", "/channels/ops")).json["detail"]
    refused = await api.call("PUT", "/alerts/default", {**rules, "noRunForSeconds": 60})
    assert paths(refused) == ["noRunForSeconds"]
    assert (await api.call("DELETE", "/alerts/default")).status_code == 204
    assert (await api.call("GET", "/alerts/default")).json == {"alerts": None}


async def test_pages_hold_each_incident_once(api: Api) -> None:
    """Latest first, filtered by state and job."""
    for i in range(7):
        found = Incident(f"j{i}", IncidentKind.FAILING, i % 2 == 0, 1000 + i // 2, 1000, "d", closed_ms=None)
        assert await incidents.write(api.db, found)
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await api.call("GET", f"/alerts?state=open,closed&limit=2{cursor}")).json
        seen += [i["jobId"] for i in page["items"]]
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert seen == ["j6", "j4", "j5", "j2", "j3", "j0", "j1"]
    assert [i["jobId"] for i in (await api.call("GET", "/alerts")).json["items"]] == ["j6", "j4", "j2", "j0"]
    (one,) = (await api.call("GET", "/alerts?jobId=j1&state=closed")).json["items"]
    assert (one["state"], one["kind"]) == ("closed", "failing")


async def test_a_test_alert_is_not_listed_as_a_job(api: Api) -> None:
    """It is an execution; its job is neither listed nor found."""
    await api.call("PUT", "/channels/ops", HOOK)
    owed = await api.call("POST", "/channels/ops/test")
    assert owed.status_code == 202
    name = owed.json["executionId"]
    assert name.startswith("alert.")
    assert (await api.call("GET", "/jobs")).json["items"] == []
    assert (await api.call("GET", f"/jobs/{name.split(':')[0]}")).status_code == 404
