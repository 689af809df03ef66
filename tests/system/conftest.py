"""Clusters of real processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.processes import Nodes, Receiver, end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    """A receiver that logs what comes."""
    r = Receiver(tmp_path)
    yield r
    end(r.process)


@pytest.fixture
def cluster(tmp_path: Path, mongodb_uri: str, db_name: str) -> Iterator[Callable[..., Nodes]]:
    """Makes a cluster: `cluster(3)`."""
    made: list[Nodes] = []

    def make(nodes: int, **environment: str) -> Nodes:
        n = Nodes(tmp_path, mongodb_uri, db_name, nodes, **environment)
        made.append(n)
        return n

    yield make
    for n in made:
        n.close()
