"""A job's secrets through the API: they go in, and nothing that comes out holds them."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import bson

from tests.support.api_client import job

if TYPE_CHECKING:
    from tests.support.api_client import Api

SIGNING = "whsec_" + base64.b64encode(b"canary-signing-0123456789-abcdef").decode()
HEADER, PASSWORD, TOKEN = 'canary/header+1&"x', 'canary/password+1&"y', "canary/token+1-~"
CANARIES = (HEADER, PASSWORD, TOKEN, "canary/", SIGNING, SIGNING[6:])
SECRETS = {
    "headers": {"X-Api-Key": {"secret": HEADER}},
    "auth": {"type": "basic", "username": "me", "password": PASSWORD},
    "signingSecret": SIGNING,
}


async def test_no_secret_comes_out_of_the_api(api: Api) -> None:
    """Responses, errors, lists, metrics, refused imports and stored responses contain no canaries."""
    made = await api.call("POST", "/jobs", job(jobId="a", **SECRETS), Idempotency_Key="k")
    answers = [made, await api.call("POST", "/jobs", job(jobId="a", **SECRETS), Idempotency_Key="k")]
    assert answers[1].headers["Idempotent-Replayed"] == "true"
    bad = job(
        timezone="no",
        headers={"X": {"secret": HEADER + "\n"}},
        auth={"type": "bearer", "token": TOKEN + " "},
        signingSecret=SIGNING + "x",
    )
    line = b'{"jobId": "b", "api": "nope", "schedule": "* * * * * *", "auth": {"type": "bearer", "token": "canary/token+1-~"}}\n'
    answers += [
        await api.call("POST", "/jobs", bad),
        await api.call("POST", "/jobs/import", line, Content_Type="application/x-ndjson"),
        await api.call("PUT", "/jobs/a", job(name="n", **SECRETS)),
        await api.call(
            "PATCH",
            "/jobs/a",
            {"auth": {"type": "bearer", "username": None, "password": None, "token": TOKEN}},
        ),
        await api.call("GET", "/jobs/a"),
        await api.call("GET", "/jobs"),
        await api.call("GET", "/jobs/a/explain"),
        await api.call("GET", "/metrics", Accept="*/*"),
        await api.call("GET", "/cluster"),
    ]
    assert [a.status_code for a in answers] == [201, 201, 422, 200, 200, 200, 200, 200, 200, 200, 200]
    kept = b""
    for name in await api.db.api.list_collection_names():
        kept += b"".join(bson.encode(d) for d in await api.db.api[name].find().to_list())
    everything = kept.decode("latin-1") + "".join(a.text + str(a.headers) for a in answers)
    assert [c for c in CANARIES if c in everything] == []
    assert '"token":{"secret":true}' in answers[6].text.replace(" ", "")
    assert "sealed:1:" in kept.decode("latin-1")
