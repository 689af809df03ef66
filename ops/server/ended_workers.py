"""Which workers of one `horae serve` have ended: the parent process writes it down, their siblings read it.

The memory is mapped before the fork. Each worker introduces itself with its pid and its node's id in its own slot. When
the operating system reports to the parent that a child has ended, the parent appends the node's id to a ring, and only
then counts it. So a reader that sees the count sees the entry. Nobody locks anything, and a killed worker can leave
nothing half done that others wait for: an introduction that was not finished has no pid.
"""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING

from cluster.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

KEPT = 64
"""Ended workers that are kept. A reader looks ten times a second, so more would have to end within that time."""
RECENT_SECONDS = 30.0
"""A worker that begins takes in who has ended within so long before: longer than a lease, and it may be their heir."""
_COUNT = struct.Struct("<Q")
_INTRODUCTION = struct.Struct("<I96s")  # pid (0: none), node id
_ENTRY = struct.Struct("<d96s")  # time on the monotonic clock, which all processes of a machine share; node id


class EndedWorkers:
    """For workers in slots 0 .. `slots`-1."""

    def __init__(self, slots: int) -> None:
        self._ring_at = _COUNT.size + slots * _INTRODUCTION.size
        self._memory = mmap.mmap(-1, self._ring_at + KEPT * _ENTRY.size)

    def introduce(self, slot: int, pid: int, node: str) -> None:
        """In the worker: this slot is used by the node of this id."""
        at = _COUNT.size + slot * _INTRODUCTION.size
        name = node.encode()[:96]
        _INTRODUCTION.pack_into(self._memory, at, 0, name)
        struct.pack_into("<I", self._memory, at, pid)  # last: without it the introduction does not count

    def note(self, slot: int, pid: int) -> None:
        """In the parent: the worker with this pid, which used this slot, has ended."""
        at = _COUNT.size + slot * _INTRODUCTION.size
        introduced, name = _INTRODUCTION.unpack_from(self._memory, at)
        if introduced != pid:
            return  # it ended before it introduced itself, and has claimed nothing
        struct.pack_into("<I", self._memory, at, 0)
        count = self._count()
        _ENTRY.pack_into(self._memory, self._ring_at + count % KEPT * _ENTRY.size, Clock.monotonic(), name)
        _COUNT.pack_into(self._memory, 0, count + 1)

    def reader(self) -> Callable[[], Sequence[str]]:
        """In a worker: a function that returns the ids of the nodes that have ended since it was called last."""
        begun = Clock.monotonic()
        seen: int | None = None

        def read() -> Sequence[str]:
            nonlocal seen
            count = self._count()
            if count == seen:
                return ()
            first = max(0, count - KEPT) if seen is None else max(seen, count - KEPT)
            entries = [
                _ENTRY.unpack_from(self._memory, self._ring_at + n % KEPT * _ENTRY.size) for n in range(first, count)
            ]
            seen = count
            return [name.rstrip(b"\0").decode() for at, name in entries if at > begun - RECENT_SECONDS]

        return read

    def _count(self) -> int:
        return int(_COUNT.unpack_from(self._memory, 0)[0])
