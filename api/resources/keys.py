"""`/keys` and `/nodes/{nodeId}/drain`: what `horae keys` and `horae nodes` do. They need the scope admin."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from api.http.auth import key_digest
from api.http.requests import QueryParameters, read_json
from api.http.responses import send_json
from api.resources.jobs import Resource
from cluster.core.documents.base import Model
from cluster.core.documents.job_json import faults_of
from cluster.core.errors import Conflict, InvalidInput, NotFound
from cluster.core.instants import format_instant, format_optional_instant
from cluster.store import api_keys, nodes
from cluster.store.api_keys import StoredApiKey

if TYPE_CHECKING:
    from falcon.asgi import Request, Response

NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z", re.ASCII)
_LENGTH = re.compile(r"(\d{1,6})([smhd])\Z", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
SILENT_MS = 5000


def _name(name: str) -> str:
    if not NAME.match(name):
        raise PydanticCustomError("name", "must have 1 to 64 of the characters A-Z a-z 0-9 _ . -")
    return name


def _length(text: str) -> str:
    match = _LENGTH.match(text)
    if match is None or int(match[1]) == 0:
        raise PydanticCustomError("length", "must be a duration such as 30d, 12h or 90m")
    return text


class KeySpec(Model):
    """A key to create."""

    name: Annotated[str, AfterValidator(_name)] = Field(max_length=64)
    scope: Literal["read", "write", "admin"] = "write"
    expires: Annotated[str, AfterValidator(_length)] | None = Field(
        default=None, max_length=8, description="How long the key is valid, such as `30d`; forever if absent."
    )


class Keys(Resource):
    """`/keys`."""

    async def on_get(self, req: Request, resp: Response) -> None:
        """The keys in the database, without their values. Keys in HORAE_API_KEYS are not listed."""
        QueryParameters(req, ()).raise_faults()
        now_ms = self.clock.now_ms()
        send_json(resp, {"items": [_key_json(k, now_ms) for k in await api_keys.list_all(self.db)]})

    async def on_post(self, req: Request, resp: Response) -> None:
        """Create a key. Its value is in this answer and nowhere else."""
        try:
            spec = KeySpec.model_validate(await read_json(req))
        except ValidationError as exc:
            raise InvalidInput(faults_of(exc)) from exc
        now_ms = self.clock.now_ms()
        value = f"hk_{secrets.token_urlsafe(32)}"
        key = StoredApiKey(spec.name, key_digest(value), spec.scope, now_ms, _expiry(spec.expires, now_ms))
        if any(spec.name == k.name for k in self.services.settings.keys) or not await api_keys.create(self.db, key):
            raise Conflict(f"a key named '{spec.name}' exists already: choose another name, or revoke that key first")
        resp.set_header("Location", f"/keys/{spec.name}")
        send_json(resp, {**_key_json(key, now_ms), "key": value}, 201)


class Key(Resource):
    """`/keys/{name}`."""

    async def on_delete(self, _req: Request, resp: Response, name: str) -> None:
        """Revoke a key. Every node refuses it within two seconds."""
        if not NAME.match(name) or not await api_keys.revoke(self.db, name, self.clock.now_ms()):
            raise NotFound(f"there is no valid key named '{name[:64]}' in the database")
        resp.status = 204


class Drain(Resource):
    """`/nodes/{nodeId}/drain` and `/undrain`."""

    async def on_post_drain(self, _req: Request, resp: Response, node_id: str) -> None:
        """Ask a node to give its work away and to claim no more; it keeps running."""
        await self._ask(resp, node_id, drain=True)

    async def on_post_undrain(self, _req: Request, resp: Response, node_id: str) -> None:
        """Take that back."""
        await self._ask(resp, node_id, drain=False)

    async def _ask(self, resp: Response, node_id: str, *, drain: bool) -> None:
        if len(node_id) > 200 or not await nodes.request_drain(self.db, node_id, self.clock.now_ms(), drain=drain):
            raise NotFound(f"there is no node '{node_id[:64]}'; GET /cluster lists them")
        present, now_ms = await nodes.nodes_and_clock(self.db)
        others = sum(n.id != node_id and now_ms - n.seen_ms < SILENT_MS and not n.draining for n in present)
        send_json(resp, {"nodeId": node_id, "draining": drain, "otherNodes": others}, 202)


def _expiry(text: str | None, now_ms: int) -> int | None:
    match = None if text is None else _LENGTH.match(text)
    return None if match is None else now_ms + int(match[1]) * _UNITS[match[2]] * 1000


def _key_json(k: StoredApiKey, now_ms: int) -> dict[str, Any]:
    return {
        "name": k.name,
        "scope": k.scope,
        "state": "revoked" if k.revoked_ms is not None else "live" if k.is_active(now_ms) else "expired",
        "createdAt": format_instant(k.created_ms),
        "expiresAt": format_optional_instant(k.expires_ms),
        "lastUsedAt": format_optional_instant(k.used_ms),
    }
