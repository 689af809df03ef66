"""The secret fields of a job: encrypted into its document, and decrypted from it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from cluster.core.job.definition import Auth, Definition

if TYPE_CHECKING:
    from cluster.store.mongo.client import Document
    from cluster.store.mongo.encryption import Keyring

SIGNING_FIELDS = {"signing_secret": "signingSecret", "previous_signing_secret": "previousSigningSecret"}
AUTH = "auth"
SECRET_FIELDS = (*SIGNING_FIELDS, "secret_headers", AUTH)


def _header(name: str) -> str:
    return f"headers.{name}"


def encrypted_fields(d: Definition, job_id: str, keyring: Keyring) -> Document:
    """The stored form of all secret fields. Raises `InvalidInput` if there is a secret and no key."""
    document: Document = {
        name: None if (value := getattr(d, name)) is None else keyring.encrypt(value, job_id, field)
        for name, field in SIGNING_FIELDS.items()
    }
    document["secret_headers"] = [[n, keyring.encrypt(value, job_id, _header(n))] for n, value in d.secret_headers]
    document["auth"] = None
    if d.auth is not None:
        document["auth"] = {
            "kind": d.auth.kind,
            "user": d.auth.user,
            "secret": keyring.encrypt(d.auth.secret, job_id, AUTH),
        }
    return document


def definition_fields(d: Document, keyring: Keyring) -> dict[str, Any]:
    """The secret fields of a `Definition`, for changing jobs. A secret that no key decrypts stays locked."""
    job_id = d["_id"]
    fields: dict[str, Any] = {
        name: None if (stored := d.get(name)) is None else keyring.decrypt_or_lock(stored, job_id, field)
        for name, field in SIGNING_FIELDS.items()
    }
    fields["secret_headers"] = tuple(
        (n, keyring.decrypt_or_lock(stored, job_id, _header(n))) for n, stored in d.get("secret_headers") or ()
    )
    auth = d.get("auth")
    fields["auth"] = auth and Auth(auth["kind"], auth["user"], keyring.decrypt_or_lock(auth["secret"], job_id, AUTH))
    return fields


def decrypt_headers(keyring: Keyring, d: Document) -> tuple[tuple[str, str], ...]:
    """The secret headers of a job document, for sending. Raises `UndecryptableSecret`."""
    return tuple((n, keyring.decrypt(stored, d["_id"], _header(n))) for n, stored in d.get("secret_headers") or ())


def decrypt_auth(keyring: Keyring, d: Document) -> Auth | None:
    """The credentials of a job document, for sending; None if it has none. Raises `UndecryptableSecret`."""
    auth = d.get("auth")
    return None if auth is None else Auth(auth["kind"], auth["user"], keyring.decrypt(auth["secret"], d["_id"], AUTH))


def authorization_value(auth: Auth) -> str:
    """The value of the `Authorization` header (RFC 7617, RFC 6750)."""
    if auth.kind == "bearer":
        return f"Bearer {auth.secret}"
    return "Basic " + base64.b64encode(f"{auth.user}:{auth.secret}".encode()).decode()


def needs_rotation(d: Document, keyring: Keyring) -> bool:
    """Whether a secret of the job document is not encrypted with the first key."""
    stored = [d.get(name) for name in SIGNING_FIELDS]
    stored += [value for _, value in d.get("secret_headers") or ()]
    stored.append((d.get("auth") or {}).get("secret"))
    return any(keyring.needs_rotation(value) for value in stored if value is not None)


def require_decryptable(d: Document, keyring: Keyring) -> None:
    """Raises `UndecryptableSecret` unless every secret of the job document can be decrypted."""
    for name, field in SIGNING_FIELDS.items():
        keyring.decrypt_optional(d.get(name), d["_id"], field)
    decrypt_headers(keyring, d)
    decrypt_auth(keyring, d)
