"""Secrets at rest: AES-256-GCM under the operator's keys. The first key encrypts, all of them decrypt.

A ciphertext is bound to its job and field, so that write access to the database is not enough to move a secret to another
job and have it sent elsewhere. The id of the key is stored in the clear, which shows the keys that are still needed.
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
    """Eight hex digits that identify a key without revealing anything of it."""
    return hashlib.sha256(b"horae key id\0" + key).hexdigest()[:8]


class Keyring:
    """The keys of one process. Decrypted secrets are cached in memory, so that sending does not decrypt them each time."""

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        self._ciphers = {key_id(key): AESGCM(key) for key in keys}
        self.current_key_id = key_id(keys[0]) if keys else None
        self._decrypt_cached = lru_cache(maxsize=DECRYPTED_CACHE_SIZE)(self._decrypt)

    def encrypt(self, text: str, job_id: str, field: str) -> str:
        """The stored form of `text`. A locked secret is stored as it was. Raises `InvalidInput` without a key."""
        if text.startswith(LOCKED_PREFIX):
            return text.removeprefix(LOCKED_PREFIX)
        if self.current_key_id is None:
            raise InvalidInput([Fault(field, NEEDS_KEY)])
        nonce = os.urandom(NONCE_BYTES)
        ciphertext = nonce + self._ciphers[self.current_key_id].encrypt(nonce, text.encode(), _binding(job_id, field))
        return f"{PREFIX}{self.current_key_id}:{base64.b64encode(ciphertext).decode()}"

    def decrypt(self, stored: str, job_id: str, field: str) -> str:
        """The inverse of `encrypt`. Plain text that an earlier release stored is returned. Raises `UndecryptableSecret`."""
        return self._decrypt_cached(stored, job_id, field) if stored.startswith(PREFIX) else stored

    def decrypt_optional(self, stored: str | None, job_id: str, field: str) -> str | None:
        """As `decrypt`; None stays None."""
        return None if stored is None else self.decrypt(stored, job_id, field)

    def decrypt_or_lock(self, stored: str, job_id: str, field: str) -> str:
        """As `decrypt`; a secret that no key decrypts is returned locked, so that it can be written back as it was."""
        try:
            return self.decrypt(stored, job_id, field)
        except UndecryptableSecret:
            return LOCKED_PREFIX + stored

    def needs_rotation(self, stored: str) -> bool:
        """Whether the stored secret is encrypted with another key than the first, or not at all."""
        return not stored.startswith(f"{PREFIX}{self.current_key_id}:")

    def _decrypt(self, stored: str, job_id: str, field: str) -> str:
        name, _, text = stored.removeprefix(PREFIX).partition(":")
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise UndecryptableSecret(f"{field} is encrypted with key {name}, which HORAE_SECRET_KEY does not hold")
        try:
            raw = base64.b64decode(text, validate=True)
            return cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], _binding(job_id, field)).decode()
        except (binascii.Error, InvalidTag, ValueError):
            raise UndecryptableSecret(f"{field} is damaged, or was encrypted for another job") from None


def _binding(job_id: str, field: str) -> bytes:
    return f"{job_id}\0{field}".encode()


NO_KEYS = Keyring()
