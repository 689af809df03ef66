"""The base of all models of JSON documents."""

from __future__ import annotations

from functools import cache
from itertools import islice
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

MAX_READ = 100
"""More unknown fields of one object, and more entries of one array, are left out unread: each may be a fault, and faults
are costly. No array may have so many, so that a shortened one is still refused."""


def to_camel(name: str) -> str:
    """The name of a field in JSON."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


class Model(BaseModel):
    """camelCase in JSON, unknown fields are faults, no value is converted to another type."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _shorten(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not (
            len(value) > MAX_READ or any(isinstance(v, list) and len(v) > MAX_READ for v in value.values())
        ):
            return value
        known: dict[str, Any] = {}
        for info in cls.model_fields.values():
            name = str(info.alias)
            if name in value:
                field = value[name]
                is_long = isinstance(field, list) and len(field) > MAX_READ and info.annotation is not Any
                known[name] = field[: MAX_READ + 1] if is_long else field
        return known | dict(islice(((n, v) for n, v in value.items() if n not in known), MAX_READ))


@cache
def fields_of(model: str) -> tuple[str, ...]:
    """The fields, in JSON, of the models of this name (the title of a `ValidationError`); none if there is no such model."""
    found: list[str] = []
    waiting: list[type[BaseModel]] = [Model]
    while waiting:
        cls = waiting.pop()
        waiting += cls.__subclasses__()
        if cls.__name__ == model:
            found += [str(info.alias or to_camel(name)) for name, info in cls.model_fields.items()]
    return tuple(dict.fromkeys(found))
