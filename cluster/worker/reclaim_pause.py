"""Whether this node may take over batches of other nodes whose leases look ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.clock import Clock


class ReclaimPause:
    """After trouble with the database or its clock only batches without an owner are claimed for one lease (`seconds`).

    Owners could not renew meanwhile, or their leases look ended to another clock: they get the time to renew first.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._until = 0.0

    def begin(self) -> None:
        """The pause begins now, or begins again."""
        self._until = self._clock.monotonic() + self._seconds

    @property
    def active(self) -> bool:
        """Whether only batches without an owner may be claimed."""
        return self._clock.monotonic() < self._until
