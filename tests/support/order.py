"""The order of the tests for the workers of xdist: each begins with some of the slow ones, and none is left for the end.

`--dist worksteal` gives each worker one stretch of the list; a worker without work takes half of what another one still
has. So the slow tests are dealt out, the longest first, to the worker that has the least so far; the others fill up.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence


class Unit(NamedTuple):
    """Tests that stay together, and how long they take (s) when nothing else runs."""

    seconds: float
    items: list[pytest.Item]


def for_workers(items: Sequence[pytest.Item], workers: int) -> list[pytest.Item]:
    """The same tests: the stretch of each worker begins with the slow ones that are dealt to it."""
    slow, others = _units(items)
    sizes = [len(items) // workers + (worker >= workers - len(items) % workers) for worker in range(workers)]
    stretches: list[list[pytest.Item]] = [[] for _ in range(workers)]
    seconds = [0.0] * workers
    for unit in sorted(slow, key=lambda u: -u.seconds):
        worker = min(range(workers), key=lambda w: seconds[w])
        stretches[worker] += unit.items
        seconds[worker] += unit.seconds
    for stretch, size in zip(stretches, sizes, strict=True):
        room = max(0, size - len(stretch))
        stretch.extend(others[:room])
        del others[:room]
    return [item for stretch in stretches for item in stretch] + others


def _units(items: Sequence[pytest.Item]) -> tuple[list[Unit], list[pytest.Item]]:
    """The slow ones, and the others in their order. A mark on a module keeps its tests together: they share a fixture."""
    modules: defaultdict[pytest.Module, list[pytest.Item]] = defaultdict(list)
    slow: list[Unit] = []
    others: list[pytest.Item] = []
    for item in items:
        mark = item.get_closest_marker("takes")
        module = item.getparent(pytest.Module)
        if module is not None and any(m.name == "takes" for m in module.own_markers):
            modules[module].append(item)
        elif mark is not None:
            slow.append(Unit(mark.args[0], [item]))
        else:
            others.append(item)
    slow += [Unit(next(m.args[0] for m in of.own_markers if m.name == "takes"), found) for of, found in modules.items()]
    return slow, others
