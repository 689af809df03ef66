"""How many connections one worker keeps open: in all, and from one address. Who has none to spare gets no new one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import structlog

from api.http.addresses import is_among, limit_name
from cluster.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.targets import IPNetwork

log = structlog.get_logger()

LOG_REFUSED_SECONDS = 60.0


class Connection(Protocol):
    """What the limits need of a connection."""

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request."""

    def close_idle(self) -> None:
        """Close it: another connection needs its place."""


class ConnectionLimits:
    """The open connections of one worker, by listener and address.

    Every listener has `most` places of its own, so that the API's connections never keep Prometheus out. Connections of
    trusted proxies carry the requests of many clients: they count for `most` only.
    """

    def __init__(self, most: int, most_per_address: int, trusted: Sequence[IPNetwork] = ()) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._trusted = trusted
        self._open: dict[int, dict[str, dict[Connection, None]]] = {}
        self._places: dict[Connection, tuple[int, str]] = {}
        self._counts: dict[int, int] = {}
        self._proxies: set[str] = set()
        self._refused = 0
        self._logged_at: float | None = None

    def admit(self, connection: Connection, address: str, listener: int) -> bool:
        """Give the connection a place until `leave`. False: there is none for it."""
        name = limit_name(address)
        by_address = self._open.setdefault(listener, {})
        is_proxy = is_among(address, self._trusted)
        if not is_proxy and len(by_address.get(name, ())) >= self._most_per_address:
            return self._refuse(name)
        if self._counts.get(listener, 0) >= self._most and not self._make_room(by_address):
            return self._refuse(name)
        if is_proxy:
            self._proxies.add(name)
        by_address.setdefault(name, {})[connection] = None
        self._places[connection] = (listener, name)
        self._counts[listener] = self._counts.get(listener, 0) + 1
        return True

    def leave(self, connection: Connection) -> None:
        """The connection is closed, or as good as closed. Safe to repeat."""
        place = self._places.pop(connection, None)
        if place is None:
            return
        listener, name = place
        of_address = self._open[listener][name]
        del of_address[connection]
        if not of_address:
            del self._open[listener][name]
        self._counts[listener] -= 1

    def _make_room(self, by_address: dict[str, dict[Connection, None]]) -> bool:
        """Close the oldest idle connection of the address that has most. False if no connection is idle.

        So an address that fills all places loses its own first, and everybody else still gets in.
        """
        for name in sorted(by_address.keys() - self._proxies, key=lambda n: len(by_address[n]), reverse=True):
            for connection in by_address[name]:
                if connection.is_idle:
                    self.leave(connection)
                    connection.close_idle()
                    return True
        return False

    def _refuse(self, name: str) -> bool:
        self._refused += 1
        now = Clock.monotonic()
        if self._logged_at is None or now - self._logged_at > LOG_REFUSED_SECONDS:
            log.warning("connections_refused", refused=self._refused, address=name, open=len(self._places))
            self._logged_at, self._refused = now, 0
        return False
