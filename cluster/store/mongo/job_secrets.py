"""The secret fields of a job: as they are stored, and back."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from cluster.core.job.definition import Auth, Definition

if TYPE_CHECKING:
    from cluster.store.mongo.client import Document
    from cluster.store.mongo.encryption import Vault

SIGNING = {"signing_secret": "signingSecret", "previous_signing_secret": "previousSigningSecret"}
AUTH = "auth"
NAMES = (*SIGNING, "secret_headers", AUTH)


def _header(name: str) -> str:
    return f"headers.{name}"


def fields(d: Definition, job_id: str, vault: Vault) -> Document:
    """The stored form of everything secret. Raises `InvalidInput` if there is something and no key."""
    document: Document = {
        name: None if (value := getattr(d, name)) is None else vault.seal(value, job_id, field)
        for name, field in SIGNING.items()
    }
    document["secret_headers"] = [[n, vault.seal(value, job_id, _header(n))] for n, value in d.secret_headers]
    document["auth"] = None
    if d.auth is not None:
        document["auth"] = {
            "kind": d.auth.kind,
            "user": d.auth.user,
            "secret": vault.seal(d.auth.secret, job_id, AUTH),
        }
    return document


def values(d: Document, vault: Vault) -> dict[str, Any]:
    """The fields of a `Definition`, for those who change jobs. What no key opens stays locked."""
    job_id = d["_id"]
    found: dict[str, Any] = {
        name: None if (stored := d.get(name)) is None else vault.peek(stored, job_id, field)
        for name, field in SIGNING.items()
    }
    found["secret_headers"] = tuple(
        (n, vault.peek(stored, job_id, _header(n))) for n, stored in d.get("secret_headers") or ()
    )
    auth = d.get("auth")
    found["auth"] = auth and Auth(auth["kind"], auth["user"], vault.peek(auth["secret"], job_id, AUTH))
    return found


def open_headers(vault: Vault, d: Document) -> tuple[tuple[str, str], ...]:
    """The secret headers of a job document, for sending. Raises `SecretUnreadable`."""
    return tuple((n, vault.open(stored, d["_id"], _header(n))) for n, stored in d.get("secret_headers") or ())


def open_auth(vault: Vault, d: Document) -> Auth | None:
    """What a job document says of authorization, for sending. Raises `SecretUnreadable`."""
    auth = d.get("auth")
    return None if auth is None else Auth(auth["kind"], auth["user"], vault.open(auth["secret"], d["_id"], AUTH))


def authorization(auth: Auth) -> str:
    """The value of the `Authorization` header (RFC 7617, RFC 6750)."""
    if auth.kind == "bearer":
        return f"Bearer {auth.secret}"
    return "Basic " + base64.b64encode(f"{auth.user}:{auth.secret}".encode()).decode()


def stale(d: Document, vault: Vault) -> bool:
    """Whether anything in the job document is not sealed with the first key."""
    stored = [d.get(name) for name in SIGNING]
    stored += [value for _, value in d.get("secret_headers") or ()]
    stored.append((d.get("auth") or {}).get("secret"))
    return any(vault.stale(value) for value in stored if value is not None)


def check(d: Document, vault: Vault) -> None:
    """Raises `SecretUnreadable` unless everything secret in the job document can be opened."""
    for name, field in SIGNING.items():
        vault.open_optional(d.get(name), d["_id"], field)
    open_headers(vault, d)
    open_auth(vault, d)
