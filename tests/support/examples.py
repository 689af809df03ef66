"""How many examples the properties are tried with: two fifths of them in `make test`, all of them in `make test-long`."""

from __future__ import annotations

import os

ALL = os.environ.get("ALL_EXAMPLES", "") == "1"


def examples(count: int) -> int:
    """Of so many examples, those of this run."""
    return count if ALL else max(10, count * 2 // 5)
