"""Bytes that are shown as hexadecimal: runs of pairs, and dumps as `hexdump -C` and `xxd` print them.

A dump shows each line twice, as pairs and as text; both are read here, without the offsets between the lines.
"""

from __future__ import annotations

import re

Listed = list[tuple[int, int, int]]
"""Bytes that a content stands for: from where to where each is written, and its value."""
_LINE = re.compile(
    rb"(?:(?<![0-9A-Za-z])|(?<=\\n))[0-9A-Fa-f]{4,16}:?[ \t]+"
    rb"((?:(?:[0-9A-Fa-f]{2}){1,8}[ \t]{1,2}){1,16})[ \t]*\|?([^\r\n]{1,16})"
)
_RUN = re.compile(rb"(?<![0-9A-Za-z])[0-9A-Fa-f]{2}(?:[ :,-]?[0-9A-Fa-f]{2}){3,}(?![0-9A-Za-z])")
_PAIR = re.compile(rb"[0-9A-Fa-f]{2}")


def hexadecimal(content: bytes) -> Listed:
    """The bytes that pairs of hexadecimal digits stand for."""
    spans = [m.span(1) for m in _LINE.finditer(content)] or [m.span() for m in _RUN.finditer(content)]
    return [
        (pair.start(), pair.end(), int(pair[0], 16))
        for begin, end in spans
        for pair in _PAIR.finditer(content, begin, end)
    ]


def columns(content: bytes) -> Listed:
    """The bytes in the columns of text of a dump."""
    return [(i, i + 1, content[i]) for m in _LINE.finditer(content) for i in range(*m.span(2))]
