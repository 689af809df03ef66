"""A job as a text to edit (YAML), and the faults of the edited text, each at the line that it is about."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from cluster.core.documents.json_source import JsonText
from ops.support.digits import Digits, json_of, whole
from ops.support.formats import to_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable

FAULT = "#^ horae: "
MOST_LEVELS = 100
HEAD = """\
# Job {job_id}. Save to apply; leave the text as it is to change nothing. Lines that begin with # are ignored.
# A secret is shown as {{secret: true}}; leave it so to keep it.
"""


class InvalidText(ValueError):
    """The text is no YAML object. The message says where; `line` counts from 0."""

    def __init__(self, message: str, line: int = 0) -> None:
        self.line = line
        super().__init__(message)


class _Loader(yaml.SafeLoader):
    """YAML whose plain scalars are those of JSON: a time, `on`, `12:30` and `0777` stay the texts that were written."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - the base class has it as a variable of instances

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        """As the base class, which takes the last one of two fields with one name."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the field {key.value} occurs twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep=deep)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"null|Null|NULL|~|", ["n", "N", "~", ""]),
    ("int", r"-?(0|[1-9][0-9]*)", "-0123456789"),
    ("float", r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?", "-0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first))


def _as_number(_: yaml.SafeLoader, node: yaml.ScalarNode) -> int | Digits:
    text = str(node.value)
    return whole(text) if set(text) <= set("-0123456789") else Digits(text)  # YAML 1.1 wants a point before an exponent


_Loader.add_constructor("tag:yaml.org,2002:int", _as_number)
_Loader.add_constructor("tag:yaml.org,2002:float", _as_number)


def text_of(job_id: str, definition: dict[str, Any]) -> str:
    """The text to edit."""
    return HEAD.format(job_id=job_id) + to_yaml(definition)


def read_text(text: str) -> dict[str, Any]:
    """The definition in an edited text. Raises `InvalidText`."""
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 - a safe loader
    except yaml.MarkedYAMLError as exc:
        at = exc.problem_mark or exc.context_mark
        message = str(exc.problem or exc.context)
        if at is not None and _needs_quotes(text, at):
            message += "; a value that begins with a sign of YAML must stand in quotes, as '@daily' does"
        raise InvalidText(message, at.line if at is not None else 0) from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise InvalidText(" ".join(str(exc).split())) from exc
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise InvalidText("must be one object: lines such as `schedule: '@daily'`")
    _require_json(value)
    return value


def _needs_quotes(text: str, at: yaml.Mark) -> bool:
    """Whether the value of the line begins with a sign that means something else in YAML."""
    lines = text.splitlines()
    if at.line >= len(lines):
        return False
    value = lines[at.line].partition(": ")[2].strip()
    return value[:1] in set("@*`%!&") and bool(value)


def _require_json(value: Any, path: str = "", depth: int = 0) -> None:
    """Raises `InvalidText` for what YAML has and JSON has not."""
    if depth > MOST_LEVELS:
        raise InvalidText(f"{path[:80]}...: has more than {MOST_LEVELS} levels, or contains itself")
    if isinstance(value, dict):
        for name, inner in value.items():
            if not isinstance(name, str):
                raise InvalidText(
                    f"{path or 'the text'}: the name {name} must stand in quotes: names of fields are texts"
                )
            _require_json(inner, f"{path}.{name}" if path else name, depth + 1)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _require_json(inner, f"{path}.{number}", depth + 1)
    elif not isinstance(value, str | int | Digits | None):
        raise InvalidText(f"{path}: must be a value that JSON has")


def is_empty(text: str) -> bool:
    """Whether nothing is left but comments and blank lines."""
    return all(not line.strip() or line.lstrip().startswith("#") for line in text.splitlines())


def as_request(definition: dict[str, Any]) -> dict[str, Any]:
    """The fields as JSON texts: numbers are sent as they were written."""
    return {
        name: value if isinstance(value, JsonText) else JsonText(json_of(value)) for name, value in definition.items()
    }


def without_faults(text: str) -> str:
    """The text without the lines that `with_faults` added."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.lstrip().startswith(FAULT))


def with_faults(text: str, faults: Iterable[tuple[str, str]]) -> str:
    """The text with each fault (path, message) below its line; those of no line at the top."""
    lines = text.splitlines()
    added: dict[int, list[str]] = {}
    for path, message in faults:
        at = _line_of(text, path)
        added.setdefault(at, []).append(f"{FAULT}{path + ': ' if path else ''}{message}")
    return "".join(
        f"{line}\n"
        for number, own in enumerate(["", *lines])
        for line in ([own] if number else []) + added.get(number, [])
    )


def with_fault_at(text: str, exc: InvalidText) -> str:
    """The text with what keeps it from being read, below the line where it was seen."""
    lines = text.splitlines()
    at = min(exc.line + 1, len(lines))
    return "".join(f"{line}\n" for line in [*lines[:at], f"{FAULT}{exc}", *lines[at:]])


def _line_of(text: str, path: str) -> int:
    """How many lines stand before the end of the field's line: 0 for a field that the text does not have."""
    try:
        node = yaml.compose(text, _Loader)
    except yaml.YAMLError:
        return 0
    found = 0
    for name in path.split("."):
        fields = node.value if isinstance(node, yaml.MappingNode) else []
        entry = next(((key, value) for key, value in fields if key.value == name), None)
        if entry is None and isinstance(node, yaml.SequenceNode) and name.isdigit() and int(name) < len(node.value):
            entry = (node.value[int(name)], node.value[int(name)])
        if entry is None:
            break
        found, node = entry[0].start_mark.line + 1, entry[1]
    return found
