"""A sender over the real transport, with names that resolve as a test wants them."""

from __future__ import annotations

import contextlib
import ipaddress
from typing import TYPE_CHECKING, Any

from cluster.core.execution.model import Target
from cluster.outbound.sender import Reply, Sender
from cluster.outbound.transport import HttpTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


class Names:
    """Names and their addresses as a test wants them; a list of lists is answered one after another."""

    def __init__(self, **names: list[str]) -> None:
        self.names = {name.replace("_", "."): found for name, found in names.items()}
        self.asked: list[str] = []

    async def resolve(self, host: str) -> list[str]:
        self.asked.append(host)
        return list(self.names[host])

    async def close(self) -> None:
        pass


@contextlib.asynccontextmanager
async def sending(connect: float = 10.0, networks: Any = LOOPBACK, **options: Any) -> AsyncIterator[Sender]:
    """A sender over the real transport, allowed to reach loopback."""
    sender = Sender(HttpTransport(networks, **options), connect)
    try:
        yield sender
    finally:
        await sender.aclose()


async def post(sender: Sender, url: str, seconds: float = 5.0, body: bytes = b"{}") -> Reply:
    """Prepare and send."""
    return await sender.send(sender.prepare(Target(url, timeout_seconds=seconds, body=body), [("X-Test", "1")]))
