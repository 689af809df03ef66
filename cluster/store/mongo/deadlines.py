"""One deadline for everything that one request asks of the database, so that two slow answers do not add up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pymongo

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


def within(seconds: float) -> AbstractContextManager[None]:
    """Database operations in this context end, one way or the other, so many seconds from its start."""
    return pymongo.timeout(seconds)
