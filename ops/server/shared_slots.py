"""Shared memory of the workers of one `horae serve`: one slot per worker, so that any worker can report all metrics.

Several processes share one port, and the kernel chooses the worker that answers a scrape. So each worker writes its
readings here once a second, and the chosen worker reads all slots. The memory is mapped before the fork: there are no
files to clean up, and no locks that a killed worker could hold. A reader that meets a write in progress sees a wrong
checksum and reads again. The master process clears the slot of a dead worker.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from typing import TYPE_CHECKING

from cluster.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOT_BYTES = 256 * 1024
TRIES = 5
_HEAD = struct.Struct("<dII")  # time on the monotonic clock, which all processes of a machine share; length; checksum


class SharedSlots:
    """Slots 0 .. `slots`-1. Unused slots take no physical memory."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._memory = mmap.mmap(-1, slots * SLOT_BYTES)

    def write(self, slot: int, text: bytes) -> None:
        """Replace the content of a slot. Only one process may write a slot. Raises `ValueError` if `text` is too long."""
        if len(text) > SLOT_BYTES - _HEAD.size:
            raise ValueError(f"{len(text)} bytes do not fit into a slot of {SLOT_BYTES} bytes")
        at = slot * SLOT_BYTES
        self._memory[at : at + _HEAD.size] = _HEAD.pack(Clock.monotonic(), len(text), zlib.crc32(text))
        self._memory[at + _HEAD.size : at + _HEAD.size + len(text)] = text

    def clear(self, slot: int) -> None:
        """Empty the slot of a worker that has ended."""
        self._memory[slot * SLOT_BYTES : slot * SLOT_BYTES + _HEAD.size] = bytes(_HEAD.size)

    def read(self) -> Iterator[tuple[int, float, bytes]]:
        """Every slot in use: its number, its age in seconds, and its content."""
        for slot in range(self.slots):
            content = self._read(slot)
            if content is not None:
                yield slot, max(0.0, Clock.monotonic() - content[0]), content[1]

    def _read(self, slot: int) -> tuple[float, bytes] | None:
        at = slot * SLOT_BYTES
        for _ in range(TRIES):
            when, length, checksum = _HEAD.unpack(self._memory[at : at + _HEAD.size])
            if not length:
                return None
            text = self._memory[at + _HEAD.size : at + _HEAD.size + length]
            if zlib.crc32(text) == checksum:
                return when, text
        return None  # the writer was killed during a write; the master will clear the slot
