"""MongoDB for tests: the one in TEST_MONGODB_URI, else the embedded one, else a container. Real in every case."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.core.errors import ConfigurationError
from ops.embedded import Embedded, binary

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def server() -> Iterator[str]:
    """The URI of a replica set for one test session."""
    given = os.environ.get("TEST_MONGODB_URI")
    if given:
        yield given
        return
    try:
        binary()
    except ConfigurationError:
        yield from container()
        return
    directory = Path(tempfile.mkdtemp(prefix="horae-test-"))
    embedded = Embedded(directory)
    try:
        yield embedded.acquire().uri
    finally:
        embedded.release()
        shutil.rmtree(directory, ignore_errors=True)


def container() -> Iterator[str]:
    """A replica set of one in a container: where there is a Docker engine and no mongod."""
    from pymongo import MongoClient
    from testcontainers.mongodb import MongoDbContainer

    with MongoDbContainer("mongo:6.0").with_command("--replSet horae") as mongo:
        uri = f"mongodb://{mongo.get_container_host_ip()}:{mongo.get_exposed_port(27017)}/?directConnection=true"
        with MongoClient[dict[str, object]](uri) as client:
            client.admin.command("replSetInitiate")
        yield uri
