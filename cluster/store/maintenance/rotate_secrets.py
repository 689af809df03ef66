"""Key rotation: encrypt every stored secret with the first key. Each job is one write on the secrets that were read, so it
may be interrupted and repeated at any time, while nodes run and jobs change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.core.errors import UndecryptableSecret
from cluster.store import channels
from cluster.store.jobs import stored_job
from cluster.store.maintenance.rotate_message_secrets import rotate_messages
from cluster.store.mongo import callback_fields, job_secrets
from cluster.store.mongo.callback_fields import CALLBACK_FIELDS
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database, Document

PAGE = 500


@dataclass(frozen=True, slots=True)
class RotationResult:
    """Numbers of jobs, channels and messages with secrets: encrypted now, or current already; `undecryptable`: `(name, why)`."""

    reencrypted: int = 0
    current: int = 0
    undecryptable: tuple[tuple[str, str], ...] = ()


def _has_secrets() -> Document:
    return {
        "$or": [
            *({name: {"$type": "string"}} for name in job_secrets.SIGNING_FIELDS),
            {"secret_headers.0": {"$exists": True}},
            {"auth": {"$type": "object"}},
            *({f"{name}.signing_secret": {"$exists": True}} for name in CALLBACK_FIELDS),
            *({f"{name}.secret_headers": {"$exists": True}} for name in CALLBACK_FIELDS),
        ]
    }


async def rotate(db: Database, *, dry_run: bool = False) -> RotationResult:
    """Encrypt the secrets of every job, channel and message with the first key. With `dry_run` they are counted only."""
    reencrypted = current = 0
    undecryptable: list[tuple[str, str]] = []
    after = ""
    while True:
        with operation():
            page = (
                await db.work["jobs"]
                .find({**_has_secrets(), "_id": {"$gt": after}})
                .sort("_id", 1)
                .limit(PAGE)
                .to_list()
            )
        for d in page:
            if not _needs_rotation(d, db):
                current += 1
                continue
            try:
                reencrypted += dry_run or await _reencrypt(db, d)
            except UndecryptableSecret as exc:
                undecryptable.append((d["_id"], str(exc)))
        if len(page) < PAGE:
            of_channels = await channels.reencrypt(db, dry_run=dry_run)
            of_messages = await rotate_messages(db, dry_run=dry_run)
            return RotationResult(
                reencrypted + of_channels[0] + of_messages[0],
                current + of_channels[1] + of_messages[1],
                (*undecryptable, *of_channels[2], *of_messages[2]),
            )
        after = page[-1]["_id"]


def _needs_rotation(d: Document, db: Database) -> bool:
    return job_secrets.needs_rotation(d, db.keyring) or callback_fields.needs_rotation(d, db.keyring)


async def _reencrypt(db: Database, d: Document) -> bool:
    """Encrypt the secrets of one job with the first key; False if it has none any more."""
    job_id = d["_id"]
    while _needs_rotation(d, db):
        job_secrets.require_decryptable(d, db.keyring)
        callback_fields.require_decryptable(d, job_id, db.keyring)
        fresh = job_secrets.encrypted_fields(stored_job(d, db.keyring).definition, job_id, db.keyring)
        fresh |= callback_fields.reencrypted(d, job_id, db.keyring)
        # Only on the secrets that were read: a change made meanwhile wins, and the job is read and checked once more.
        names = (*job_secrets.SECRET_FIELDS, *CALLBACK_FIELDS)
        unchanged: Document = {"_id": job_id, **{name: d.get(name) for name in names}}
        with operation():
            result = await db.work["jobs"].update_one(unchanged, {"$set": fresh})
            if result.matched_count:
                return True
            d = await db.work["jobs"].find_one({"_id": job_id}) or {}
    return False
