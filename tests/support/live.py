"""A whole node in a process of its own, for tests that speak to it over a socket."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError

from ops.support.embedded_mongodb import free_port
from tests.support import warm
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET_KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


@contextmanager
def node(mongodb_uri: str, db_name: str, **environment: str) -> Iterator[str]:
    """The base URL of one node on this database; it is drained at the end."""
    with process(mongodb_uri, db_name, **environment) as (url, _):
        yield url


@contextmanager
def process(mongodb_uri: str, db_name: str, **environment: str) -> Iterator[tuple[str, int]]:
    """The same with the id of its master process."""
    with begun(mongodb_uri, db_name, **environment) as (url, started):

        def ready() -> bool:
            assert started.poll() is None, "the node ended"
            try:
                with urllib.request.urlopen(f"{url}/readyz", timeout=2) as answer:
                    return bool(answer.status == 200)
            except (URLError, OSError):
                return False

        wait_until(ready, 30, "the node is ready")
        yield url, started.pid


@contextmanager
def begun(mongodb_uri: str, db_name: str, **environment: str) -> Iterator[tuple[str, warm.Warm]]:
    """The same, not waited for: where it will answer, and its master process."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    known = {k: v for k, v in os.environ.items() if not k.startswith("HORAE_")}
    settings = {
        "MONGODB_URI": mongodb_uri,
        "DB_NAME": db_name,
        "HORAE_ALLOWED_NETWORKS": "127.0.0.0/8",
        "HORAE_LOG_FORMAT": "json",
        "HORAE_SECRET_KEY": SECRET_KEY,
        **environment,
    }
    with tempfile.NamedTemporaryFile() as log:
        started = warm.start(["serve", "--nodes", "1", "--port", str(port)], Path(log.name), known | settings)
        try:
            yield url, started
        finally:
            started.send_signal(signal.SIGTERM)
            try:
                started.wait(20)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()
