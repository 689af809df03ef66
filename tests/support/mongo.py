"""MongoDB for tests: the one in TEST_MONGODB_URI, else the embedded one, else a container. Real in every case."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from cluster.core.errors import ConfigurationError
from ops.support.embedded_mongodb import EmbeddedMongod, free_port, mongod_binary
from tests.support import leftovers
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

T = TypeVar("T")

needs_mongod = pytest.mark.skipif(
    not any((shutil.which("mongod"), importlib.util.find_spec("fiftyone"))),
    reason="there is no mongod here: TEST_MONGODB_URI or a container serves the other tests",
)


@contextmanager
def server() -> Iterator[str]:
    """The URI of the replica set of a run. All workers of xdist share one server: the last one to leave stops it."""
    given = os.environ.get("TEST_MONGODB_URI")
    if given:
        yield given
        return
    try:
        mongod_binary()
    except ConfigurationError:
        yield from container()
        return
    directory = leftovers.shared_directory()
    embedded = EmbeddedMongod(directory)
    try:
        uri = embedded.acquire().uri
        expire_nothing(uri)
        yield uri
    finally:
        embedded.release()
        if embedded.running_server() is None:
            shutil.rmtree(directory, ignore_errors=True)


def expire_nothing(uri: str) -> None:
    """Tests that set their clock years ago write what has expired: MongoDB would delete it once a minute, whatever they do."""
    with MongoClient[dict[str, object]](uri) as client:
        client.admin.command("setParameter", 1, ttlMonitorEnabled=False)


def container() -> Iterator[str]:
    """A replica set of one in a container: where there is a Docker engine and no mongod."""
    from testcontainers.mongodb import MongoDbContainer

    with MongoDbContainer("mongo:6.0").with_command("--replSet horae") as mongo:
        uri = f"mongodb://{mongo.get_container_host_ip()}:{mongo.get_exposed_port(27017)}/?directConnection=true"
        with MongoClient[dict[str, object]](uri) as client:
            client.admin.command("replSetInitiate")
        expire_nothing(uri)
        yield uri


class ReplicaSet:
    """Three real members on loopback, to be killed and frozen one by one.

    `front`: where others find a member, by its own port, if something stands before it. `environment`: what a member
    is started with, by its port.
    """

    def __init__(
        self,
        directory: Path,
        ports: Sequence[int] = (),
        front: Mapping[int, int] | None = None,
        environment: Mapping[int, dict[str, str]] | None = None,
    ) -> None:
        self._directory = directory
        self.ports = list(ports) or [free_port() for _ in range(3)]
        self._front = front or {}
        self._environment = environment or {}
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        for port in self.ports:
            self.start(port)
        members = [{"_id": i, "host": self.host(port)} for i, port in enumerate(self.ports)]
        try:
            for port in self.ports:
                with MongoClient[dict[str, object]]("127.0.0.1", port, directConnection=True) as client:
                    wait_until(lambda client=client: _try(lambda: client.admin.command("ping")), 30, "a member")  # type: ignore[misc]
            with MongoClient[dict[str, object]]("127.0.0.1", self.ports[0], directConnection=True) as client:
                client.admin.command("replSetInitiate", {"_id": "rs", "members": members})
            wait_until(self.primary, 60, "a primary")
        except BaseException:
            self.stop()
            raise

    def host(self, port: int) -> str:
        """What others call a member."""
        return f"127.0.0.1:{self._front.get(port, port)}"

    @property
    def uri(self) -> str:
        return f"mongodb://{','.join(self.host(p) for p in self.ports)}/?replicaSet=rs"

    def data(self, port: int) -> Path:
        """Where a member keeps its files."""
        return self._directory / f"db{port}"

    def start(self, port: int) -> None:
        """Start a member, or start it again."""
        data = self.data(port)
        data.mkdir(exist_ok=True)
        command = [
            mongod_binary(),
            "--dbpath",
            str(data),
            "--port",
            str(port),
            "--bind_ip",
            "127.0.0.1",
            "--replSet",
            "rs",
        ]
        command += ["--nounixsocket", "--wiredTigerCacheSizeGB", "0.5", "--oplogSize", "256"]
        command += ["--logpath", str(data / "log"), "--logappend"]
        command += ["--setParameter", "diagnosticDataCollectionEnabled=false"]  # nobody reads it, and each second costs
        self.processes[port] = subprocess.Popen(
            command,
            env={**os.environ, **self._environment.get(port, {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def primary(self) -> int | None:
        """The port of the member that takes writes."""
        for port in self.ports:
            with MongoClient[dict[str, object]](
                "127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=300, socketTimeoutMS=1000
            ) as client:
                hello = _try(lambda client=client: client.admin.command("hello"))  # type: ignore[misc]
                if hello and hello.get("isWritablePrimary"):
                    return port
        return None

    def stop(self) -> None:
        """Kill every member."""
        for process in self.processes.values():
            process.kill()
            process.wait()


def _try(ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except PyMongoError:
        return None
