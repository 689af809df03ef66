"""Key rotation for messages: those that wait, are owed, or may be replayed. Each is one write on the secrets that were read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.core.errors import UndecryptableSecret
from cluster.store.mongo import callback_fields, job_secrets
from cluster.store.mongo.callback_fields import CALLBACK_FIELDS
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database, Document
    from cluster.store.mongo.encryption import Keyring

COLLECTIONS = ("messages", "executions", "history")
"""In the order in which a message moves: one that moves meanwhile is met again."""
PAGE = 500
FIELDS = ("signing_secret", "secret_headers", "auth")


async def rotate_messages(db: Database, *, dry_run: bool) -> tuple[int, int, list[tuple[str, str]]]:
    """Encrypt the secrets of all messages with the first key. How many were, how many had been, and `(id, why)` of others."""
    done = current = 0
    undecryptable: list[tuple[str, str]] = []
    for collection in COLLECTIONS:
        after = "cb."
        while True:
            some = [{f"message.{name}": {"$exists": True}} for name in (*FIELDS, *CALLBACK_FIELDS)]
            # Those of callbacks, and those of messages. Few other ids are between them, and none of these has the fields.
            query: Document = {"_id": {"$gt": after, "$lt": "msg/"}, "$or": some}
            names = (*FIELDS, *CALLBACK_FIELDS, "bound_to")
            fields = {"job_id": 1, **{f"message.{name}": 1 for name in names}}
            with operation():
                page = await db.work[collection].find(query, fields).sort("_id", 1).limit(PAGE).to_list()
            for d in page:
                secrets = {**d["message"], "_id": d["message"].get("bound_to", d["job_id"])}
                if not job_secrets.needs_rotation(secrets, db.keyring) and not callback_fields.needs_rotation(
                    secrets, db.keyring
                ):
                    current += 1
                    continue
                try:
                    fresh = _fresh(secrets, db.keyring)
                    done += dry_run or await _reencrypt(db, collection, d, fresh)
                except UndecryptableSecret as exc:
                    undecryptable.append((d["_id"], str(exc)))
            if len(page) < PAGE:
                break
            after = page[-1]["_id"]
    return done, current, undecryptable


def _fresh(d: Document, keyring: Keyring) -> Document:
    """The secrets of a message under the first key. Raises `UndecryptableSecret`."""
    job_secrets.require_decryptable(d, keyring)
    name = d["_id"]
    callback_fields.require_decryptable(d, name, keyring)
    fresh: Document = callback_fields.reencrypted(d, name, keyring)
    if d.get("signing_secret") is not None:
        field = job_secrets.SIGNING_FIELDS["signing_secret"]
        fresh["signing_secret"] = keyring.encrypt(keyring.decrypt(d["signing_secret"], name, field), name, field)
    if d.get("secret_headers"):
        headers = job_secrets.decrypt_headers(keyring, d)
        fresh["secret_headers"] = [[n, keyring.encrypt(value, name, f"headers.{n}")] for n, value in headers]
    auth = job_secrets.decrypt_auth(keyring, d)
    if auth is not None:
        secret = keyring.encrypt(auth.secret, name, job_secrets.AUTH)
        fresh["auth"] = {"kind": auth.kind, "user": auth.user, "secret": secret}
    return fresh


async def _reencrypt(db: Database, collection: str, d: Document, fresh: Document) -> bool:
    """Whether the message was still there with these secrets."""
    unchanged = {"_id": d["_id"], **{f"message.{name}": d["message"][name] for name in fresh}}
    with operation():
        result = await db.work[collection].update_one(
            unchanged, {"$set": {f"message.{name}": value for name, value in fresh.items()}}
        )
    return result.matched_count > 0
