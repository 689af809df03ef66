"""Values that are cheap to make are frozen dataclasses all the same."""

from __future__ import annotations

import copy
import pickle
from dataclasses import asdict, field, fields, replace

import pytest

from cluster.core.value import changed, value


@value(frozen=True, slots=True)
class Point:
    """A value of a test."""

    x: int
    names: tuple[str, ...] = ()


def test_a_value_is_a_frozen_dataclass() -> None:
    """Equality, hash, order of fields, defaults, copies, and no assignment."""
    point = Point(1)
    assert type(point) is Point
    assert (point.x, point.names, repr(point)) == (1, (), "Point(x=1, names=())")
    assert point == Point(x=1)
    assert point != Point(2)
    assert hash(point) == hash(Point(1, ()))
    assert replace(point, names=("a",)) == changed(point, names=("a",)) == Point(1, ("a",))
    assert asdict(point) == {"x": 1, "names": ()}
    assert [f.name for f in fields(Point)] == ["x", "names"]
    assert copy.deepcopy(point) == pickle.loads(pickle.dumps(point)) == point
    with pytest.raises(AttributeError):
        point.x = 2  # type: ignore[misc]  # it is frozen
    assert not hasattr(point, "__dict__")


@value(frozen=True, slots=True)
class Sealed:
    """A value of a test, with a field that is not shown and does not count."""

    name: str
    secret: object = field(default=None, compare=False, repr=False)


def test_what_a_field_leaves_out_of_texts_and_comparisons_stays_left_out() -> None:
    """A secret in a value is in no log by its text."""
    assert repr(Sealed("a", {"token": 1})) == "Sealed(name='a')"
    assert Sealed("a", {"token": 1}) == Sealed("a", [2])
    assert hash(Sealed("a", {"token": 1})) == hash(Sealed("a"))


def test_a_value_that_lacks_a_field_is_refused() -> None:
    """As by any constructor."""
    with pytest.raises(TypeError, match="x"):
        Point()  # type: ignore[call-arg]  # that is the point
    with pytest.raises(TypeError, match="other"):
        Point(1, other=2)  # type: ignore[call-arg]  # the same
