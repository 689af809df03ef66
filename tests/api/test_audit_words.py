"""The audit log: the differences of its entries have the words of the API, not those of the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from cluster.core.audit_entry import new_entry
from cluster.store import audit, outbox

if TYPE_CHECKING:
    from tests.support.api_client import Api


async def entries(api: Api, query: str = "") -> list[dict[str, Any]]:
    """The latest first."""
    answer = await api.call("GET", f"/audit?{query}")
    assert answer.status_code == 200, answer.text
    return list(answer.json["items"])


def changed(entry: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {c["path"]: (c["before"], c["after"]) for c in entry["changes"]}


async def test_changes_of_all_kinds_of_objects_are_in_the_words_of_the_api(api: Api) -> None:
    """A difference has the names and values of `GET`, whatever is stored."""
    window = {"mode": "hold", "tags": ["billing"], "from": "2030-01-01T00:00:00.500Z", "until": "2030-01-01T06:00:00Z"}
    await api.call("PUT", "/windows/w", window)
    recurring = {"mode": "hold", "tags": ["billing"], "schedule": "0 0 2 * * SUN", "durationSeconds": 7200}
    await api.call("PUT", "/windows/w", {**recurring, "spreadSeconds": 5})
    await api.call("PUT", "/calendars/c", {"weekdays": ["SAT"]})
    await api.call("PUT", "/calendars/c", {"weekdays": ["SUN"], "dates": ["2030-12-24"]})
    await api.call("PUT", "/channels/chat", {"type": "slack", "url": "https://hooks.example/T/SECRETPATH"})
    await api.call("PUT", "/channels/chat", {"type": "webhook", "url": "https://ops.example/"})
    await api.call("PUT", "/alerts/default", {"channels": ["chat"], "onDead": True})
    await api.call("PUT", "/alerts/default", {"channels": ["chat"], "onDead": True, "onRecovery": False})
    changes = {e["object"]: changed(e) for e in await entries(api) if e["action"] == "change"}
    assert changes == {
        "window:w": {
            "/schedule": (None, "0 0 2 * * SUN"),
            "/durationSeconds": (None, 7200),
            "/from": ("2030-01-01T00:00:00.500Z", None),
            "/until": ("2030-01-01T06:00:00.000Z", None),
            "/spreadSeconds": (30, 5),
        },
        "calendar:c": {"/dates": ([], ["2030-12-24"]), "/weekdays": (["SAT"], ["SUN"])},
        "channel:chat": {"/type": ("slack", "webhook"), "/url": ({"secret": True}, "https://ops.example/")},
        "rules:default": {"/onRecovery": (True, False)},
    }
    text = orjson.dumps(await entries(api)).decode()
    assert "Datetime" not in text
    assert "SECRETPATH" not in text


async def test_an_entry_of_another_release_is_shown_as_it_was_stored(api: Api) -> None:
    """An entry that waits in a window which another release wrote is copied, with what it has."""
    await api.call(
        "PUT",
        "/windows/w",
        {"mode": "hold", "tags": ["a"], "from": "2030-01-01T00:00:00Z", "until": "2030-01-02T00:00:00Z"},
    )
    noted = {
        **audit.to_document(new_entry("window:w", "put", api.clock.now_ms())),
        "was": None,
        "now": {"mode": "hold", "lasts_ms": 5},
    }
    await api.db.api["windows"].update_one({"_id": "w"}, {"$push": {outbox.OUTBOX: noted}})
    assert changed((await entries(api, "object=window:w&limit=1"))[0]) == {
        "/mode": (None, "hold"),
        "/lastsMs": (None, 5),
    }
