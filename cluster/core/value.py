"""Frozen dataclasses that are cheap to make, for the values of which the engine makes several for each execution.

The constructor of a frozen dataclass sets each field through `object.__setattr__`: two to four microseconds for a value.
`msgspec` makes the same value in a fifth to a half of that. All else that a dataclass is (equality, hash, text, `fields`,
`replace`) is the dataclass's.

The garbage collector does not look at these values, which spares a good part of its work: a node has thousands of them at a
time. That is safe: a value refers only to what was made before it, so values make no cycles.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

__all__ = ["changed", "value"]

T = TypeVar("T")

if TYPE_CHECKING:
    from dataclasses import dataclass as value
else:

    def value(*, frozen: bool, slots: bool) -> Any:
        """As `dataclasses.dataclass(frozen=True, slots=True)`; classes without bases and without default factories."""
        assert frozen
        assert slots
        return _as_struct


_OF_THE_CLASS = ("__dict__", "__weakref__", "__init__", "__setattr__", "__delattr__", "__annotations__")


def _as_struct(cls: type) -> type:
    """The dataclass as a struct of msgspec, which has its fields as slots and a constructor in C."""
    plain: Any = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(plain)
    names = {f.name for f in fields}
    namespace = {n: v for n, v in vars(plain).items() if n not in names and n not in _OF_THE_CLASS}
    defaults = [(f.name, Any) if f.default is dataclasses.MISSING else (f.name, Any, f.default) for f in fields]
    return msgspec.defstruct(
        cls.__name__,
        defaults,
        namespace=namespace,
        module=cls.__module__,
        frozen=True,
        gc=False,
        eq=False,
        repr_omit_defaults=False,
    )


def changed(v: T, **fields: Any) -> T:
    """As `dataclasses.replace`, for a value that is made by `value`, in a tenth of the time."""
    made: Any = v
    other: T = msgspec.structs.replace(made, **fields)
    return other
