"""Pages of jobs, and what was read for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

if TYPE_CHECKING:
    from tests.support.api_client import Api

ROOM = 64 * 1024 * 1024
"""For what MongoDB's profiler writes."""


async def imported(api: Api, lines: list[dict[str, Any]]) -> None:
    content = b"\n".join(orjson.dumps({"schedule": "@daily", "api": "http://h/", **line}) for line in lines)
    answer = await api.call("POST", "/jobs/import", content, Content_Type="application/x-ndjson")
    assert answer.json["created"] == len(lines)


async def pages(
    api: Api, query: str, most: int, commands: list[dict[str, Any]] | None = None
) -> list[tuple[list[str], int]]:
    """The ids on each of the first pages, and how many jobs were read for its place in the order; `commands` gets what
    MongoDB was asked.
    """
    found: list[tuple[list[str], int]] = []
    cursor = ""
    seen = api.db.api["system.profile"]
    while len(found) < most:
        await seen.drop()
        await api.db.api.create_collection("system.profile", capped=True, size=ROOM)
        await api.db.api.command("profile", 2)
        page = (await api.call("GET", f"/jobs?{query}{cursor}")).json
        await api.db.api.command("profile", 0)
        ids = [j["jobId"] for j in page["items"]]
        asked = await seen.find({"ns": f"{api.db.api.name}.jobs"}).to_list()
        if commands is not None:
            commands += [d["command"] for d in asked]
        # The jobs of the page are read once more by their ids: what shows whether they changed, and whole if they did.
        of_page = [d for d in asked if _is_of_page(d["command"])]
        read = [d.get("docsExamined", 0) for d in asked if d not in of_page]
        found.append((ids, sum(read)))
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={quote(page['nextCursor'])}"
    await seen.drop()
    return found


def _is_of_page(command: dict[str, Any]) -> bool:
    """Whether this command reads the documents of a page that has been found."""
    projection = command.get("projection", {})
    return list(command.get("filter", {})) == ["_id"] and ("revision" in projection or projection.get("past") == 0)
