"""Sealing every stored secret again with the first key. Each job is one write on what was read, so it may be stopped
and begun again at any time, while nodes run and jobs change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.core.errors import UndecryptableSecret
from cluster.store import channels
from cluster.store.jobs import stored_job
from cluster.store.mongo import job_secrets
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database, Document

PAGE = 500


@dataclass(frozen=True, slots=True)
class RotationResult:
    """Jobs with secrets: how many were sealed again, how many had been, and what no key opens, by job."""

    reencrypted: int = 0
    current: int = 0
    undecryptable: tuple[tuple[str, str], ...] = ()


def _with_secrets() -> Document:
    return {
        "$or": [
            *({name: {"$type": "string"}} for name in job_secrets.SIGNING_FIELDS),
            {"secret_headers.0": {"$exists": True}},
            {"auth": {"$type": "object"}},
        ]
    }


async def rotate(db: Database, *, dry_run: bool = False) -> RotationResult:
    """Go over every job with secrets. With `dry_run` nothing is written, and `sealed` is what would be."""
    sealed = current = 0
    locked: list[tuple[str, str]] = []
    after = ""
    while True:
        with operation():
            found = (
                await db.work["jobs"]
                .find({**_with_secrets(), "_id": {"$gt": after}})
                .sort("_id", 1)
                .limit(PAGE)
                .to_list()
            )
        for d in found:
            if not job_secrets.needs_rotation(d, db.keyring):
                current += 1
                continue
            try:
                done = dry_run or await _again(db, d)
            except UndecryptableSecret as exc:
                locked.append((d["_id"], str(exc)))
                continue
            sealed += done
        if len(found) < PAGE:
            of_channels = await channels.reencrypt(db, dry_run=dry_run)
            return RotationResult(sealed + of_channels[0], current + of_channels[1], (*locked, *of_channels[2]))
        after = found[-1]["_id"]


async def _again(db: Database, d: Document) -> bool:
    """Seal one job's secrets again; False if it has none any more."""
    job_id = d["_id"]
    while job_secrets.needs_rotation(d, db.keyring):
        job_secrets.require_decryptable(d, db.keyring)
        fresh = job_secrets.encrypted_fields(stored_job(d, db.keyring).definition, job_id, db.keyring)
        # On the very secrets that were read: a change made meanwhile wins, and is looked at again.
        same: Document = {"_id": job_id, **{name: d.get(name) for name in job_secrets.SECRET_FIELDS}}
        with operation():
            result = await db.work["jobs"].update_one(same, {"$set": fresh})
            if result.matched_count:
                return True
            d = await db.work["jobs"].find_one({"_id": job_id}) or {}
    return False
