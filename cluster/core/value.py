"""Frozen dataclasses that are cheap to make, for the values of which the engine makes several for each execution.

The constructor of a frozen dataclass sets each field through `object.__setattr__`: four microseconds for an execution.
The one made here sets them on an instance that is still of a plain class with the same slots, and then gives it its own
class: under one microsecond. Everything else (equality, hash, `replace`, errors on assignment) is the dataclass's.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

__all__ = ["value"]

T = TypeVar("T")

if TYPE_CHECKING:
    from dataclasses import dataclass as value
else:

    def value(*, frozen: bool, slots: bool) -> Any:
        """As `dataclasses.dataclass(frozen=True, slots=True)`; classes without bases, and without `init=False` fields."""
        return lambda cls: _with_fast_init(dataclasses.dataclass(frozen=frozen, slots=slots)(cls))


def _with_fast_init(cls: type[T]) -> type[T]:
    """Replace `__init__` of a frozen dataclass with slots."""
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]  # it is a dataclass
    scope: dict[str, Any] = {
        "_set_class": object.__dict__["__class__"].__set__,
        "_own": cls,
        "_plain": type(cls.__name__, (), {"__slots__": tuple(f.name for f in fields)}),
    }
    parameters = ["self"]
    lines = ["_set_class(self, _plain)"]
    for f in fields:
        name = f.name
        if f.default_factory is not dataclasses.MISSING:
            raise TypeError(f"{cls.__name__}.{name} has a default factory")
        if f.default is not dataclasses.MISSING:
            scope[f"_default_{name}"] = f.default
            name = f"{name}=_default_{name}"
        if f.kw_only:
            raise TypeError(f"{cls.__name__}.{f.name} is for keywords only")
        parameters.append(name)
        lines.append(f"self.{f.name} = {f.name}")
    lines.append("self.__class__ = _own")
    body = "\n    ".join(lines)
    exec(f"def __init__({', '.join(parameters)}):\n    {body}\n", scope)  # noqa: S102 - as dataclasses does; only names of fields
    type.__setattr__(cls, "__init__", scope["__init__"])
    return cls
