"""One `make run` or `make cluster` at a time in a directory.

A second one would find the first one's nodes and database, and move the sample jobs to a receiver of its own.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cluster.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def only_run(directory: Path, address: str) -> Iterator[None]:
    """Hold the directory for a run whose page is at `address`.

    Raises `ConfigurationError` that names the run which holds it. The lock ends with this process, however that ends: a
    child does not inherit it.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = (directory / "run.lock").open("a+")
    except OSError as exc:
        problem = f"the data directory {directory} cannot be used ({exc.strerror or exc})"
        raise ConfigurationError([f"{problem}: set HORAE_DATA_DIR to a directory that belongs to this user"]) from exc
    with held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.seek(0)
            other = held.read().strip() or "it has just begun"
            advice = "end it with Ctrl-C first, or give this one a directory (HORAE_DATA_DIR) and ports of its own"
            raise ConfigurationError([f"another run uses {directory} ({other}): {advice}"]) from None
        held.truncate(0)
        held.write(f"process {os.getpid()}, {address}\n")
        held.flush()
        yield
