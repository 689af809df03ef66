"""Bodies in chunks that the strict parser refuses, read as curl reads them.

Taken: anything behind the size of a chunk (extensions of any bytes, a blank before them), lines that end in LF, trailers
of any form. Refused as curl refuses them: a size that is no number, a chunk that does not end where its size says.
"""

from __future__ import annotations

import re

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t;]|\Z)")


class NotChunks(Exception):
    """The bytes cannot be read as chunks."""


class TolerantChunks:
    """One body, as it comes in. Whoever feeds it bounds the bytes."""

    def __init__(self, most_bytes: int, most_pieces: int) -> None:
        self.pieces: list[bytes] = []
        self._most_bytes = most_bytes
        self._most_pieces = most_pieces
        self._size = 0
        self._left = 0
        """So much of the chunk is still to come."""
        self._line = bytearray()
        self._reads = self._read_size

    def feed(self, data: bytes) -> bool:
        """Take what was received. True: the body is complete, or enough of it was read. Raises `NotChunks`."""
        at = 0
        while at < len(data):
            if self._left:
                piece = data[at : at + self._left]
                self._left -= len(piece)
                at += len(piece)
                self._size += len(piece)
                self.pieces.append(piece)
                if self._size > self._most_bytes or len(self.pieces) > self._most_pieces:
                    return True
                continue
            end = data.find(b"\n", at)
            if end < 0:
                self._line += data[at:]
                return False
            line = bytes(self._line + data[at:end]).removesuffix(b"\r")
            self._line.clear()
            at = end + 1
            if self._reads(line):
                return True
        return False

    def _read_size(self, line: bytes) -> bool:
        size = _SIZE.match(line)
        if size is None:
            raise NotChunks("the size of a chunk is no number")
        self._left = int(size[1], 16)
        self._reads = self._read_end if self._left else self._read_trailer
        return False

    def _read_end(self, line: bytes) -> bool:
        if line:
            raise NotChunks("a chunk does not end where its size says")
        self._reads = self._read_size
        return False

    def _read_trailer(self, line: bytes) -> bool:
        return not line
