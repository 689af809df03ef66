"""Secrets at rest: AES-256-GCM under the operator's keys. The first key seals, all of them open.

What is sealed is bound to its job and field, so nobody who can write the database can move it to another job and have
it sent there. The id of the key is written beside it, in the clear: which keys are still needed can be counted.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cluster.core.documents.secret_marks import LOCKED, NEEDS_KEY
from cluster.core.errors import Fault, InvalidInput, SecretUnreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

PREFIX = "sealed:1:"
NONCE_BYTES = 12
KEPT_OPEN = 16_384


def key_id(key: bytes) -> str:
    """Eight hex digits that tell keys apart and say nothing of them."""
    return hashlib.sha256(b"horae key id\0" + key).hexdigest()[:8]


class Vault:
    """The keys of one process. What was opened is kept in memory, so that sending does not pay for it again."""

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        self._ciphers = {key_id(key): AESGCM(key) for key in keys}
        self.current = key_id(keys[0]) if keys else None
        self._opened = lru_cache(maxsize=KEPT_OPEN)(self._open)

    def seal(self, text: str, job_id: str, field: str) -> str:
        """The form in which `text` is stored. What came locked stays as it was. Raises `InvalidInput` without a key."""
        if text.startswith(LOCKED):
            return text.removeprefix(LOCKED)
        if self.current is None:
            raise InvalidInput([Fault(field, NEEDS_KEY)])
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + self._ciphers[self.current].encrypt(nonce, text.encode(), _bound(job_id, field))
        return f"{PREFIX}{self.current}:{base64.b64encode(sealed).decode()}"

    def open(self, stored: str, job_id: str, field: str) -> str:
        """The inverse of `seal`. What an earlier release stored unsealed is given as it is. Raises `SecretUnreadable`."""
        return self._opened(stored, job_id, field) if stored.startswith(PREFIX) else stored

    def open_optional(self, stored: str | None, job_id: str, field: str) -> str | None:
        """The same, None kept."""
        return None if stored is None else self.open(stored, job_id, field)

    def peek(self, stored: str, job_id: str, field: str) -> str:
        """As `open`; what no key opens is given locked, to be written back as it was."""
        try:
            return self.open(stored, job_id, field)
        except SecretUnreadable:
            return LOCKED + stored

    def stale(self, stored: str) -> bool:
        """Whether it is sealed with another key than the first, or not at all."""
        return not stored.startswith(f"{PREFIX}{self.current}:")

    def _open(self, stored: str, job_id: str, field: str) -> str:
        name, _, text = stored.removeprefix(PREFIX).partition(":")
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise SecretUnreadable(f"{field} is sealed with key {name}, which HORAE_SECRET_KEY does not hold")
        try:
            raw = base64.b64decode(text, validate=True)
            return cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], _bound(job_id, field)).decode()
        except (binascii.Error, InvalidTag, ValueError):
            raise SecretUnreadable(f"{field} was damaged, or sealed for another job") from None


def _bound(job_id: str, field: str) -> bytes:
    return f"{job_id}\0{field}".encode()


NO_KEYS = Vault()
