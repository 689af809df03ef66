"""Where an embedded mongod listens, and what keeps other users of the machine out: closed directories, a password."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE = 0o700
SOCKET_PATH_BYTES = 100
"""The longest path of a Unix socket is 107 bytes on Linux and 103 on macOS."""
NO_SUCH_USER = 18


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where the server listens: the path of a socket, or `host:port` with a password."""

    host: str
    password: str | None = field(default=None, repr=False)

    @property
    def uri(self) -> str:
        """The address as a URI, without options."""
        if self.password is None:
            host = quote(self.host, safe="") if self.host.startswith("/") else self.host
            return f"mongodb://{host}/"
        return f"mongodb://horae:{self.password}@{self.host}/"

    def connect(self, *, anonymous: bool = False) -> MongoClient[dict[str, Any]]:
        """A client for this one server, in whatever state it is."""
        uri = f"mongodb://{self.host}/" if anonymous and self.password is not None else self.uri
        return MongoClient(uri, directConnection=True, serverSelectionTimeoutMS=1000, socketTimeoutMS=5000)


def fits_a_socket(path: str) -> bool:
    """Whether server and driver can use a Unix socket with this path.

    A list of addresses is divided at commas, and an address at its colon. The driver finds the members of a replica set by
    their names in lower case, as if they were names of hosts.
    """
    return len(os.fsencode(path)) <= SOCKET_PATH_BYTES and path == path.lower() and not set(path) & set(",:")


def make_private(directory: Path) -> None:
    """Create the directory, or close an existing one, for all other users."""
    directory.mkdir(mode=PRIVATE, exist_ok=True)
    directory.chmod(PRIVATE)


def kept_secret(file: Path) -> str:
    """The secret in a file that only its owner may read. It is made at the first use."""
    with suppress(FileExistsError):
        file_number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file_number, "w") as made:
            made.write(secrets.token_hex(24))
    return file.read_text()


def answers(address: ServerAddress) -> bool:
    """Whether a server answers there, whoever may use it."""
    with address.connect(anonymous=True) as client:
        try:
            client.admin.command("ping")
        except PyMongoError:
            return False
        return True


def has_user(address: ServerAddress) -> bool:
    """Whether the server knows the user of its password."""
    with address.connect() as client:
        try:
            client.admin.command("ping")
        except OperationFailure as exc:
            if exc.code != NO_SUCH_USER:
                raise
            return False
        return True
