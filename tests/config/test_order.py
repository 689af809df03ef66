"""Slow tests begin first, each worker with its share, and none is left out."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.support.order import for_workers

SECONDS = {"a": 100, "b": 60, "c": 50, "d": 10}


class FakeModule:
    own_markers: tuple[Any, ...] = ()


class FakeItem:
    """What `for_workers` asks of a test."""

    def __init__(self, name: str, seconds: float | None = None, module: Any = None) -> None:
        self.name = name
        self._mark = None if seconds is None else pytest.mark.takes(seconds).mark
        self._module = module or FakeModule()

    def get_closest_marker(self, _: str) -> Any:
        return self._mark

    def getparent(self, _: type) -> Any:
        return self._module


def stretches(items: list[Any], workers: int) -> list[list[str]]:
    """What `--dist worksteal` of xdist gives each worker at first."""
    left = [item.name for item in for_workers(items, workers)]
    found = []
    for worker in range(workers):
        count = len(left) // (workers - worker)
        found.append(left[:count])
        del left[:count]
    return found


def test_each_worker_begins_with_the_slow_tests_that_are_dealt_to_it() -> None:
    """The longest first, to the worker with the least; the quick ones fill up in their order."""
    quick = [FakeItem(f"q{i}") for i in range(11)]
    slow = [FakeItem(name, seconds) for name, seconds in SECONDS.items()]
    items = [*quick[:3], *slow, *quick[3:]]
    dealt = stretches(items, 2)
    assert [d[:2] for d in dealt] == [["a", "d"], ["b", "c"]]
    assert [len(d) for d in dealt] == [7, 8]
    assert [name for d in dealt for name in d if name.startswith("q")] == [q.name for q in quick]


def test_tests_of_a_marked_module_stay_together() -> None:
    """They share a fixture that is costly."""
    module = FakeModule()
    module.own_markers = (pytest.mark.takes(55).mark,)
    together = [FakeItem(f"m{i}", 55, module) for i in range(3)]
    items = [FakeItem("q0"), together[0], FakeItem("a", 100), together[1], FakeItem("q1"), together[2]]
    assert stretches(items, 2) == [["a", "q0", "q1"], ["m0", "m1", "m2"]]


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 5, 7])
def test_every_test_is_there_once(workers: int) -> None:
    """Whatever the number of workers, more than tests included."""
    items: list[Any] = [FakeItem(f"t{i}", 10 if i % 7 == 0 else None) for i in range(100)]
    for some in (items, items[:1], items[:3], items[:8]):
        assert Counter(i.name for i in for_workers(some, workers)) == Counter(i.name for i in some)
