"""The live view of `horae top` ends when it is asked to, whatever happens at that instant."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from typing import Any

import pytest
from rich.console import Console

from cluster.core.errors import StoreUnavailable
from ops.commands.top_view import watch


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_with_new_data_is_not_lost(number: signal.Signals, terminal: bool) -> None:
    """On Python 3.11 `wait_for` loses a cancellation that arrives together with what it waits for."""
    reads = 0

    async def read() -> dict[str, Any]:
        nonlocal reads
        reads += 1
        assert reads < 50, "it went on after the signal"
        if reads == 3:
            os.kill(os.getpid(), number)
        raise StoreUnavailable("MongoDB is away")

    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    shown = io.StringIO()
    asyncio.run(watch(read, 0.0, Console(file=shown, force_terminal=terminal, width=80, height=24)))
    assert 3 <= reads < 50
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    if not terminal:
        assert shown.getvalue().count("UNAVAILABLE") == 2, "one for each that was read before the signal"


def test_a_second_signal_ends_what_the_first_one_has_not() -> None:
    """A terminal that takes no output, a database that does not answer."""
    never = asyncio.Event()

    async def read() -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await never.wait()
        finally:
            os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(watch(read, 0.0, Console(file=io.StringIO(), force_terminal=False)))
