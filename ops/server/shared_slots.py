"""The board: memory that the workers of one `horae serve` share, one slot each, so that any of them can speak for all.

One port, several processes: a scrape reaches whichever worker the kernel picks. Each worker therefore writes its
readings here once a second, and whoever is asked reads everybody's. Plain shared memory made before the fork: no files
to clean up, no locks, nothing that a killed worker could hold. A slot that is being written fails its checksum and is
read again; a worker that died has its slot cleared by the master.
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
_HEAD = struct.Struct("<dII")  # when, on the clock all processes of a machine share; length; checksum


class SharedSlots:
    """Slots 0 .. `slots`-1. Memory is taken only by what is written."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._memory = mmap.mmap(-1, slots * SLOT_BYTES)

    def write(self, slot: int, text: bytes) -> None:
        """Replace what a slot holds. Raises `ValueError` for what does not fit. One writer per slot."""
        if len(text) > SLOT_BYTES - _HEAD.size:
            raise ValueError(f"{len(text)} bytes do not fit into a slot of {SLOT_BYTES}")
        at = slot * SLOT_BYTES
        self._memory[at : at + _HEAD.size] = _HEAD.pack(Clock.monotonic(), len(text), zlib.crc32(text))
        self._memory[at + _HEAD.size : at + _HEAD.size + len(text)] = text

    def clear(self, slot: int) -> None:
        """Empty a slot: its worker has ended."""
        self._memory[slot * SLOT_BYTES : slot * SLOT_BYTES + _HEAD.size] = bytes(_HEAD.size)

    def read(self) -> Iterator[tuple[int, float, bytes]]:
        """Every slot in use: its number, how many seconds ago it was written, and what."""
        for slot in range(self.slots):
            found = self._read(slot)
            if found is not None:
                yield slot, max(0.0, Clock.monotonic() - found[0]), found[1]

    def _read(self, slot: int) -> tuple[float, bytes] | None:
        at = slot * SLOT_BYTES
        for _ in range(TRIES):
            when, length, checksum = _HEAD.unpack(self._memory[at : at + _HEAD.size])
            if not length:
                return None
            text = self._memory[at + _HEAD.size : at + _HEAD.size + length]
            if zlib.crc32(text) == checksum:
                return when, text
        return None  # its writer was killed in the middle: the master clears it
