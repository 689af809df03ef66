"""Found by Python at its start when this folder is in PYTHONPATH: breaks a build, and stops it at a chosen write.

Nothing of the product knows of this. `HORAE_BREAK` names an entry of `broken.json`, or of the file that
`HORAE_BREAK_TABLE` names: source texts that are replaced while their module is imported, and an error if a text is not
there exactly once. `HORAE_POINTS` is a folder: when it
has a file named like a point (`cluster.store.schedules.advance`), the next process that comes to that function takes
the file away and does what it says before it goes on: `kill`, or `block 12`, which blocks the event loop for 12 s.
`HORAE_CLOCKS` is a folder: under libfaketime, a node's wall clock is off by what the file named by its pid says.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, ModuleType

POINTS = {
    "cluster.store.schedules": ("advance",),
    "cluster.store.executions": ("insert", "move"),
    "cluster.store.batches": ("renew",),
}


class Loader(importlib.machinery.SourceFileLoader):
    """Loads one module from changed source, past the cache of compiled files, and puts the points in."""

    changes: tuple[tuple[str, str], ...] = ()

    def get_code(self, fullname: str) -> CodeType | None:
        source = Path(self.path).read_text()
        for old, new in self.changes:
            if source.count(old) != 1:
                message = f"{fullname} has this {source.count(old)} times, not once: {old}"
                raise ImportError(message)
            source = source.replace(old, new)
        return compile(source, self.path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        folder = os.environ.get("HORAE_POINTS")
        for name in POINTS.get(module.__name__, ()) if folder else ():
            setattr(module, name, pointed(Path(str(folder)) / f"{module.__name__}.{name}", getattr(module, name)))


def pointed(file: Path, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which looks first whether something is to be done here."""

    @functools.wraps(function)
    async def inner(*args: Any, **named: Any) -> Any:
        if file.exists():
            taken = file.with_suffix(f".taken{os.getpid()}")
            try:
                file.rename(taken)  # of several processes one succeeds
            except OSError:
                return await function(*args, **named)
            word, _, seconds = taken.read_text().partition(" ")
            if word == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(float(seconds))  # blocks the event loop
        return await function(*args, **named)

    return inner


class Finder(importlib.abc.MetaPathFinder):
    """Takes the modules that are to be changed, and leaves all others to the usual way."""

    def __init__(self, changes: dict[str, list[list[str]]]) -> None:
        self._changes = changes

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._changes and fullname not in POINTS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None:
            return None
        loader = Loader(fullname, spec.origin)
        loader.changes = tuple((old, new) for old, new in self._changes.get(fullname, []))
        spec.loader = loader
        return spec


def own_clock() -> None:
    """Each process of its own from now on, the nodes being forks of one."""
    os.environ["FAKETIME_TIMESTAMP_FILE"] = str(Path(os.environ["HORAE_CLOCKS"]) / str(os.getpid()))


def sleep(seconds: Any) -> None:
    """time.sleep that works: the real one asks for a clock that libfaketime does not serve."""
    select.select([], [], [], seconds)


if "faketime" in os.environ.get("LD_PRELOAD", ""):
    time.sleep = sleep
if os.environ.get("HORAE_CLOCKS"):
    own_clock()
    os.register_at_fork(after_in_child=own_clock)

name = os.environ.get("HORAE_BREAK")
if name or os.environ.get("HORAE_POINTS"):
    file = os.environ.get("HORAE_BREAK_TABLE") or Path(__file__).parent / "broken.json"
    table = json.loads(Path(file).read_text())
    sys.meta_path.insert(0, Finder(table[name] if name else {}))
