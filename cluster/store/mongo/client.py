"""Three clients per process, so that a flood of claims cannot starve the renewal of leases.

control: leader lease, heartbeat, batch renewal (2 s).  work: materialise, claim, record (15 s).  api: requests (5 s).

All of them write with majority and journal, because a write that a new primary does not have would undo a claim or lose a
result; read with majority from the primary, because decisions must not rest on writes that may be rolled back; and retry
within their deadline.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo import AsyncMongoClient, ReadPreference
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from cluster.store.mongo.decoded_jobs import DecodedJobs
from cluster.store.mongo.encryption import NO_KEYS, Keyring
from cluster.store.mongo.upcoming import Upcoming

if TYPE_CHECKING:
    from pymongo.asynchronous.database import AsyncDatabase

Document = dict[str, Any]

CODEC_OPTIONS: CodecOptions[Document] = CodecOptions(tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_MS)
"""Dates are decoded as `DatetimeMS`, whose `int()` is an instant in ms: no datetime objects on the hot path."""


HEARTBEAT_MS = 10_000
"""The questions of a client whether its members are there are a third of what an idle node asks of MongoDB. They are asked
in streaming mode: a member answers at once when it was elected or stepped down, and one that was killed closes its
connections. So only a member that is frozen or cut off is noticed by them, within these ms and two seconds. MongoDB itself
takes as long to elect another one in its place, and the new one tells at once that it was elected.
"""


def _client(uri: str, appname: str, timeout_ms: int, *, pool: int) -> AsyncMongoClient[Document]:
    return AsyncMongoClient(
        uri,
        appname=appname,
        timeoutMS=timeout_ms,
        connectTimeoutMS=2000,
        heartbeatFrequencyMS=HEARTBEAT_MS,
        serverSelectionTimeoutMS=5000,
        maxIdleTimeMS=60000,
        maxPoolSize=pool,
        retryWrites=True,
        retryReads=True,
        tz_aware=True,
    )


@dataclass(frozen=True, slots=True)
class Database:
    """One logical database through three clients; `control`, `work` and `api` are its handles."""

    control: AsyncDatabase[Document]
    work: AsyncDatabase[Document]
    api: AsyncDatabase[Document]
    _clients: tuple[AsyncMongoClient[Document], ...]
    keyring: Keyring = NO_KEYS
    decoded_jobs: DecodedJobs = field(default_factory=DecodedJobs)
    upcoming: Upcoming = field(default_factory=Upcoming)

    @classmethod
    def open(cls, uri: str, name: str, node: str, keyring: Keyring = NO_KEYS) -> Database:
        """Clients for the database `name`. They connect with their first operations, so nothing is raised here."""
        clients = (
            _client(uri, f"horae/{node}/control", 2000, pool=8),
            _client(uri, f"horae/{node}/work", 15000, pool=32),
            _client(uri, f"horae/{node}/api", 5000, pool=32),
        )
        handles = [
            client.get_database(
                name,
                codec_options=CODEC_OPTIONS,
                read_preference=ReadPreference.PRIMARY,
                write_concern=WriteConcern(w="majority", j=True),
                read_concern=ReadConcern("majority"),
            )
            for client in clients
        ]
        return cls(handles[0], handles[1], handles[2], clients, keyring)

    def primary(self) -> tuple[str, int] | None:
        """Host and port of the primary, as the driver of the work client knows it now; None if it knows none. No I/O."""
        servers = self.work.client.topology_description.server_descriptions()
        writable = (address for address, server in servers.items() if server.is_writable)
        address = next(writable, None)
        return None if address is None else (address[0], address[1] or 0)

    async def close(self) -> None:
        """Close every connection."""
        for client in self._clients:
            await client.close()
