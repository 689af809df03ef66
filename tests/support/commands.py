"""The `horae` command for tests: in this process, and as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from cluster.store.mongo.client import Database
from ops.cli import cli
from tests.support import warm

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from click.testing import Result


class Commands:
    """Runs `horae` commands in this process, on a database of the test."""

    def __init__(self, uri: str, name: str) -> None:
        self.uri = uri
        self.name = name

    def __call__(self, *arguments: str, text: str | None = None) -> Result:
        environment = {"MONGODB_URI": self.uri, "DB_NAME": self.name}
        return CliRunner().invoke(cli, list(arguments), env=environment, input=text)

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json").stdout)

    def on(self, use: Callable[[Database], Awaitable[Any]]) -> Any:
        """Use the database."""

        async def once() -> Any:
            db = Database.open(self.uri, self.name, "test")
            try:
                return await use(db)
            finally:
                await db.close()

        return asyncio.run(once())


def run_horae(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `horae` as a process in `cwd`, so that .env and .horae of this repository are not used."""
    with tempfile.TemporaryDirectory() as directory:
        out, errors = Path(directory, "out"), Path(directory, "errors")
        running = warm.start(arguments, out, {**os.environ, **environment}, errors=errors, cwd=cwd)
        try:
            status = running.wait(60)
        finally:
            running.kill()
        return subprocess.CompletedProcess(arguments, status, out.read_text(), errors.read_text())
