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

from cluster.core.documents.secret_marks import LOCKED_PREFIX, NEEDS_KEY
from cluster.core.errors import Fault, InvalidInput, UndecryptableSecret

if TYPE_CHECKING:
    from collections.abc import Sequence

PREFIX = "sealed:1:"
NONCE_BYTES = 12
DECRYPTED_CACHE_SIZE = 16_384


def key_id(key: bytes) -> str:
    """Eight hex digits that tell keys apart and say nothing of them."""
    return hashlib.sha256(b"horae key id\0" + key).hexdigest()[:8]


class Keyring:
    """The keys of one process. What was opened is kept in memory, so that sending does not pay for it again."""

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        self._ciphers = {key_id(key): AESGCM(key) for key in keys}
        self.current_key_id = key_id(keys[0]) if keys else None
        self._opened = lru_cache(maxsize=DECRYPTED_CACHE_SIZE)(self._open)

    def encrypt(self, text: str, job_id: str, field: str) -> str:
        """The form in which `text` is stored. What came locked stays as it was. Raises `InvalidInput` without a key."""
        if text.startswith(LOCKED_PREFIX):
            return text.removeprefix(LOCKED_PREFIX)
        if self.current_key_id is None:
            raise InvalidInput([Fault(field, NEEDS_KEY)])
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + self._ciphers[self.current_key_id].encrypt(nonce, text.encode(), _bound(job_id, field))
        return f"{PREFIX}{self.current_key_id}:{base64.b64encode(sealed).decode()}"

    def decrypt(self, stored: str, job_id: str, field: str) -> str:
        """The inverse of `seal`. What an earlier release stored unsealed is given as it is. Raises `SecretUnreadable`."""
        return self._opened(stored, job_id, field) if stored.startswith(PREFIX) else stored

    def decrypt_optional(self, stored: str | None, job_id: str, field: str) -> str | None:
        """The same, None kept."""
        return None if stored is None else self.decrypt(stored, job_id, field)

    def decrypt_or_lock(self, stored: str, job_id: str, field: str) -> str:
        """As `open`; what no key opens is given locked, to be written back as it was."""
        try:
            return self.decrypt(stored, job_id, field)
        except UndecryptableSecret:
            return LOCKED_PREFIX + stored

    def needs_rotation(self, stored: str) -> bool:
        """Whether it is sealed with another key than the first, or not at all."""
        return not stored.startswith(f"{PREFIX}{self.current_key_id}:")

    def _open(self, stored: str, job_id: str, field: str) -> str:
        name, _, text = stored.removeprefix(PREFIX).partition(":")
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise UndecryptableSecret(f"{field} is sealed with key {name}, which HORAE_SECRET_KEY does not hold")
        try:
            raw = base64.b64decode(text, validate=True)
            return cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], _bound(job_id, field)).decode()
        except (binascii.Error, InvalidTag, ValueError):
            raise UndecryptableSecret(f"{field} was damaged, or sealed for another job") from None


def _bound(job_id: str, field: str) -> bytes:
    return f"{job_id}\0{field}".encode()


NO_KEYS = Keyring()
