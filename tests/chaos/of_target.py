"""Faults of the target itself."""

from __future__ import annotations

import signal
import time

from tests.chaos.hand import Hand


class OfTarget(Hand):
    """The process that receives."""

    def freeze_receiver(self) -> None:
        """The target hangs, and goes on with everything it was sent."""
        self._receiver.process.send_signal(signal.SIGSTOP)
        time.sleep(self._dice.uniform(2, 15))
        self._receiver.process.send_signal(signal.SIGCONT)

    def stop_receiver(self) -> None:
        """The target is stopped: every connection is closed at once."""
        self._receiver.process.send_signal(signal.SIGTERM)
        self._receiver.process.wait(10)
        time.sleep(self._dice.uniform(2, 15))
        self._receiver.start()
