"""Waiting for conditions with a deadline: tests never sleep for a guessed time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


async def eventually(condition: Callable[[], Awaitable[T | None]], seconds: float = 15.0, what: str = "") -> T:
    """The first true result of a condition; fails after so many seconds with the last one."""
    deadline = time.monotonic() + seconds
    while True:
        result = await condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or condition} (last: {result!r})")
        await asyncio.sleep(0.02)


def wait_until(condition: Callable[[], T | None], seconds: float = 15.0, what: str = "") -> T:
    """The same for code without a loop."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or condition} (last: {result!r})")
        time.sleep(0.05)
