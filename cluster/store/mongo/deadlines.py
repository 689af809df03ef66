"""One deadline for all database operations of one request, so that slow answers do not add up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pymongo

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


def within(seconds: float) -> AbstractContextManager[None]:
    """A context in which every database operation ends, or fails, within so many seconds from the start of the context."""
    return pymongo.timeout(seconds)
