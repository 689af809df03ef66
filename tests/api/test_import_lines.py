"""The lines of an import, however the chunks cut them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from api.http import requests
from cluster.core.documents.job import BODY_LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    import pytest


async def _stream(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def _lines(chunks: Iterable[bytes]) -> list[bytes | None]:
    return [line async for line in requests.split_lines(_stream(chunks))]


@given(st.lists(st.text("ab\n", max_size=6).map(str.encode), max_size=8))
async def test_chunks_do_not_change_the_lines(chunks: list[bytes]) -> None:
    """The same lines as of the whole text; what follows the last line end is a line unless it is empty."""
    lines = b"".join(chunks).split(b"\n")
    assert await _lines(chunks) == (lines if lines[-1] else lines[:-1])


async def test_too_long_lines_are_left_out_at_any_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """None for each of them, and the lines around it as they are."""
    monkeypatch.setattr(requests, "BODY_LIMIT", 4)
    whole = b"1234\n12345\n12\n1234567890\n3"
    for size in range(1, len(whole) + 1):
        chunks = [whole[i : i + size] for i in range(0, len(whole), size)]
        assert await _lines(chunks) == [b"1234", None, b"12", None, b"3"], size


async def test_a_line_in_single_bytes_takes_linear_time() -> None:
    """1 MiB of them, in seconds of a processor."""
    began = time.process_time()
    (line,) = await _lines(b"x" for _ in range(BODY_LIMIT))
    assert line is not None
    assert len(line) == BODY_LIMIT
    assert time.process_time() - began < 5
