"""Fields of stored documents as the API shows them: the audit log has the words of those who read it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson
from bson.datetime_ms import DatetimeMS

from cluster.core.documents.base import to_camel
from cluster.core.documents.secret_marks import SECRET_PLACEHOLDER
from cluster.core.instants import format_instant, format_optional_instant
from cluster.store.mongo.codec import instant
from cluster.store.outbox import HIDDEN

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.store.mongo.client import Document


def shown_fields(kind: str, fields: Document | None) -> dict[str, Any]:
    """The fields of a document of this kind (`queue`, `window`, ...) as JSON, secrets as placeholders; none of None.

    What is stored for the engine alone is left out.
    """
    if fields is None:
        return {}
    try:
        return _SHOWN.get(kind, _as_stored)(fields)
    except (KeyError, TypeError, ValueError):  # what another release wrote is shown as it is, not lost
        return _as_stored(fields)


def _as_stored(fields: Document) -> dict[str, Any]:
    return {to_camel(name): _value(value) for name, value in fields.items()}


def _channel(fields: Document) -> dict[str, Any]:
    url = fields["url"] if fields["secret_url"] is None else fields["secret_url"]
    shown = {"type": fields["kind"], "url": url, "to": fields["to"], "signing_secret": fields["signing_secret"]}
    return _as_stored(shown)


def _calendar(fields: Document) -> dict[str, Any]:
    return _as_stored(fields["document"])


def _window(fields: Document) -> dict[str, Any]:
    scope = {name: fields[name] for name in ("mode", "tags", "hosts", "queues", "timezone", "schedule")}
    return _as_stored(scope) | {
        "durationSeconds": None if fields["schedule"] is None else fields["lasts_ms"] // 1000,
        "from": format_optional_instant(instant(fields["from"])),
        "until": format_optional_instant(instant(fields["until"])),
        "spreadSeconds": fields["spread_ms"] // 1000,
    }


def _rules(fields: Document) -> dict[str, Any]:
    rules = orjson.loads(fields["rules"])
    if not isinstance(rules, dict):
        raise TypeError
    return rules


_SHOWN: dict[str, Callable[[Document], dict[str, Any]]] = {
    "channel": _channel,
    "calendar": _calendar,
    "window": _window,
    "rules": _rules,
}


def _value(value: Any) -> Any:
    """As JSON. Bytes have no place in a log."""
    if value == HIDDEN:
        return SECRET_PLACEHOLDER
    if isinstance(value, bytes):
        return {"bytes": len(value)}
    if isinstance(value, DatetimeMS):
        return format_instant(int(value))
    if isinstance(value, datetime):
        return format_instant(int(value.timestamp() * 1000))
    if isinstance(value, dict):
        return {str(name): _value(v) for name, v in value.items()}
    if isinstance(value, list):
        return [_value(v) for v in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
