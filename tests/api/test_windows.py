"""`/windows`: maintenance windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.api_client import paths

if TYPE_CHECKING:
    from tests.support.api_client import Api

WEEKLY = {"mode": "hold", "tags": ["billing"], "schedule": "0 0 2 * * SUN", "durationSeconds": 7200}
ONCE = {"mode": "skip", "hosts": ["API.example.com"], "from": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"}


async def test_windows_are_created_changed_listed_and_deleted(api: Api) -> None:
    """And one that is in force says until when."""
    made = await api.call("PUT", "/windows/works", WEEKLY)
    assert (made.status_code, made.headers["location"]) == (201, "/windows/works")
    assert {name: made.json[name] for name in WEEKLY} == WEEKLY
    assert (made.json["timezone"], made.json["spreadSeconds"]) == ("UTC", 30)
    changed = await api.call("PUT", "/windows/works", ONCE)
    assert (changed.status_code, changed.json["hosts"]) == (200, ["api.example.com"])
    assert changed.json["inForceUntil"] == "2100-01-01T00:00:00.000Z"
    assert (await api.call("GET", "/windows/works")).json == changed.json
    assert [w["name"] for w in (await api.call("GET", "/windows")).json["items"]] == ["works"]
    assert (await api.call("DELETE", "/windows/works")).status_code == 204
    assert (await api.call("DELETE", "/windows/works")).status_code == 404
    assert (await api.call("GET", "/windows/works")).status_code == 404
    assert (await api.call("GET", "/windows")).json["items"] == []
    assert (await api.call("PUT", "/windows/works", WEEKLY)).status_code == 201


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"mode": "stop"}, "mode"),
        ({"mode": None}, "mode"),
        ({"tags": []}, "tags"),
        ({"schedule": "61 * * * * *"}, "schedule"),
        ({"schedule": "@every 5m"}, "schedule"),
        ({"durationSeconds": None}, "durationSeconds"),
        ({"durationSeconds": 0}, "durationSeconds"),
        ({"from": "2030-01-01T00:00:00Z"}, "until"),
        ({"schedule": None, "durationSeconds": None}, "schedule"),
        ({"timezone": "Mars"}, "timezone"),
        ({"hosts": ["https://x.example.com/"]}, "hosts.0"),
        ({"queues": ["a b"]}, "queues.0"),
        ({"spreadSeconds": -1}, "spreadSeconds"),
        ({"jobs": ["a"]}, "jobs"),
    ],
)
async def test_a_wrong_window_is_refused_with_its_field(api: Api, change: dict[str, Any], path: str) -> None:
    """And nothing is stored."""
    body = {name: value for name, value in {**WEEKLY, **change}.items() if value is not None}
    refused = await api.call("PUT", "/windows/works", body)
    assert (refused.status_code, paths(refused)) == (422, [path]), refused.text
    assert paths(await api.call("PUT", "/windows/a%20b", WEEKLY)) == ["name"]
    assert (await api.call("GET", "/windows/works")).status_code == 404
