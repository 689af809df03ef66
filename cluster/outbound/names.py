"""Names and their addresses as one node knows them.

- At most one look-up a name is under way, with a deadline. A name whose servers do not answer delays only its own host.
- An answer is fresh for a while. Before that ends, whoever uses it starts the next look-up, so that hosts in use never wait.
- When the servers fail, the last good answer is used for up to an hour. When they say that the name is gone, it is gone.
- That a name has no address is remembered shortly, so that a job with a wrong name does not ask each time.

An address may be old here. That is safe because the address guard judges each address when its socket is created.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cluster.outbound.errors import NameNotFound, NameServersFailed

if TYPE_CHECKING:
    from cluster.outbound.name_servers import Resolver

LOOKUP_SECONDS = 5.0
"""A look-up that takes longer has failed. Less than a connection may take, so that the error names the cause."""
FRESH_SECONDS = 10.0
REFRESH_SECONDS = 5.0
"""An answer older than this is looked up again while it is still used."""
GOOD_SECONDS = 3600.0
"""So long the last good answer is used while the name servers fail."""
PATIENCE_SECONDS = 0.5
"""So long a request waits for a look-up when there is a last good answer."""
NEGATIVE_SECONDS = 2.0
"""So long it is remembered that a name has no address, or that its servers failed."""
MAX_NAMES = 16_384
MOST_ADDRESSES = 64
"""So many addresses of a name are kept: each is judged before every new connection, and an answer may have thousands."""


@dataclass(slots=True)
class _Name:
    """What is known of a name."""

    addresses: list[str] | None = None
    good_at: float = 0.0
    error: OSError | None = None
    failed_at: float = 0.0
    lookup: asyncio.Task[None] | None = field(default=None, repr=False)
    asked_at: float = 0.0

    def found(self, addresses: list[str], now: float) -> None:
        self.addresses, self.good_at, self.error = addresses, now, None

    def failed(self, error: OSError, now: float) -> None:
        self.error, self.failed_at = error, now
        if isinstance(error, NameNotFound):
            self.addresses = None

    def begin(self, lookup: asyncio.Task[None], now: float) -> None:
        self.lookup, self.asked_at = lookup, now


class Names:
    """The names that requests go to, kept above any resolver."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._names: OrderedDict[str, _Name] = OrderedDict()

    async def addresses(self, host: str) -> list[str]:
        """The addresses of a name. Raises `NameNotFound` or `NameServersFailed`."""
        name = self._known(host)
        now = time.monotonic()
        age = now - name.good_at
        if name.addresses is not None and age < FRESH_SECONDS:
            if age > REFRESH_SECONDS and now - name.failed_at > NEGATIVE_SECONDS:
                self._look_up(host, name)
            return name.addresses
        good = name.addresses if age < GOOD_SECONDS else None
        if name.error is not None and now - name.failed_at < NEGATIVE_SECONDS:
            if good is None:
                raise name.error
            return good
        lookup = self._look_up(host, name)
        patience = None if good is None else max(0.0, name.asked_at + PATIENCE_SECONDS - now)
        # A cancelled wait does not cancel the look-up, which others may wait for.
        await asyncio.wait([lookup], timeout=patience)
        if name.addresses is not None and (good is not None or name.error is None):
            return name.addresses
        raise name.error or NameServersFailed("the look-up was given up")

    def forget(self) -> None:
        """Know nothing any more."""
        self._names.clear()

    async def close(self) -> None:
        """Give up all look-ups."""
        lookups = [name.lookup for name in self._names.values() if name.lookup is not None]
        for lookup in lookups:
            lookup.cancel()
        await asyncio.gather(*lookups, return_exceptions=True)
        self._names.clear()
        await self._resolver.close()

    def _known(self, host: str) -> _Name:
        name = self._names.get(host)
        if name is None:
            name = self._names[host] = _Name()
            if len(self._names) > MAX_NAMES:
                self._names.popitem(last=False)
        else:
            self._names.move_to_end(host)
        return name

    def _look_up(self, host: str, name: _Name) -> asyncio.Task[None]:
        """The look-up of a name that is under way, else a new one."""
        if name.lookup is None or name.lookup.done():
            name.begin(asyncio.create_task(self._ask(host, name)), time.monotonic())
        assert name.lookup is not None
        return name.lookup

    async def _ask(self, host: str, name: _Name) -> None:
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                addresses = (await self._resolver.resolve(host))[:MOST_ADDRESSES]
        except TimeoutError:
            name.failed(
                NameServersFailed(f"no answer of the name servers within {LOOKUP_SECONDS:g} s"), time.monotonic()
            )
        except (NameNotFound, NameServersFailed) as exc:
            name.failed(exc, time.monotonic())
        except Exception as exc:  # whatever it is, those who wait must get an error of this name
            name.failed(NameServersFailed(f"{type(exc).__name__}: {exc}"), time.monotonic())
        else:
            name.found(addresses, time.monotonic())
