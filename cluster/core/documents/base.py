"""The base of all models of JSON documents."""

from __future__ import annotations

from functools import lru_cache
from itertools import islice
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

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


def empty(of: type[list[Any] | dict[str, Any]], /, **options: Any) -> Any:
    """A field that is empty unless it is given. As a plain default it would be copied by Python code for each document."""
    return Field(default_factory=of, json_schema_extra={"default": of()}, **options)


@lru_cache(maxsize=256)  # bounded: names in a path may be those of a caller
def fields_of(model: str, *path: str) -> tuple[str, ...]:
    """The fields, in JSON, of the models of this name (the title of a `ValidationError`), or of the objects that they have
    at `path`, a list of fields. None if there is no such model or object.
    """
    models = [cls for cls in _subclasses(Model) if cls.__name__ == model]
    for name in path:
        fields = [info for cls in models for info in cls.model_fields.values() if info.alias == name]
        models = [cls for info in fields for cls in _models_in(info.annotation)]
    return tuple(dict.fromkeys(str(info.alias) for cls in models for info in cls.model_fields.values()))


def _subclasses(cls: type[Model]) -> list[type[Model]]:
    return [found for direct in cls.__subclasses__() for found in (direct, *_subclasses(direct))]


def _models_in(annotation: Any) -> list[type[Model]]:
    """The models that a value of this annotation, or an entry of it, may be."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return [annotation]
    return [cls for part in get_args(annotation) for cls in _models_in(part)]
