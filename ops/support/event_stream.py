"""Reads the server-sent events of `GET /events`, with the standard library only."""

from __future__ import annotations

from http.client import HTTPException
from typing import TYPE_CHECKING, Any

import orjson

from ops.support.client import Client, Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SILENCE_SECONDS = 45.0
"""A node says something every 15 s; a connection that is silent for longer is broken."""


class EventStream:
    """The events behind an id; it remembers the last one, so that the next connection begins there."""

    def __init__(self, url: str | None, query: Mapping[str, Sequence[str]], after: str | None = None) -> None:
        self._client = Client(url)
        self._query = query
        self.last_id = after

    def events(self, seconds: float | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """`(name, data)` of each event until the connection ends, after so many seconds at the latest.

        Raises `Refused` or `Unreachable`.
        """
        query = dict(self._query)
        if seconds is not None:
            query["seconds"] = [str(max(1, round(seconds)))]
        headers = {"Accept": "text/event-stream"}
        if self.last_id:
            headers["Last-Event-ID"] = self.last_id
        name, data = "message", ""
        with self._client.stream("/events", query, headers, SILENCE_SECONDS) as response:
            while True:
                try:
                    raw = response.readline()
                except (OSError, HTTPException) as exc:
                    raise Unreachable(f"the connection to {self._client.url} broke ({exc})") from exc
                if not raw:
                    return
                line = raw.decode().rstrip("\r\n")
                field, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if field == "event":
                    name = value
                elif field == "data":
                    data += value
                elif field == "id":
                    self.last_id = value
                elif not line and data:
                    yield name, orjson.loads(data)
                    name, data = "message", ""
