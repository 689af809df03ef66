"""A job as a text to edit (YAML), and the faults of the edited text, each at the line that it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from ops.support.formats import to_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable

FAULT = "#^ horae: "
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
    """YAML without dates: a time stays the text that was written."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the base class has it as a variable of instances
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def text_of(job_id: str, definition: dict[str, Any]) -> str:
    """The text to edit."""
    return HEAD.format(job_id=job_id) + to_yaml(definition)


def read_text(text: str) -> dict[str, Any]:
    """The definition in an edited text. Raises `InvalidText`."""
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 - a safe loader
    except yaml.MarkedYAMLError as exc:
        at = exc.problem_mark or exc.context_mark
        raise InvalidText(str(exc.problem or exc.context), at.line if at is not None else 0) from exc
    except (yaml.YAMLError, ValueError) as exc:
        raise InvalidText(" ".join(str(exc).split())) from exc
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise InvalidText("must be one object: lines such as `schedule: '@daily'`")
    return value


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
