"""The secrets of messages: rotated wherever a message is, and sent after that."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cluster.core.job.definition import Auth
from cluster.store.maintenance import rotate_secrets
from cluster.store.mongo.encryption import Keyring
from tests.support.engine import rows, worker
from tests.support.messages import send
from tests.support.workers import run_dry

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

SECRETS: dict[str, Any] = {
    "secret_headers": (("X-Key", "s3cret"),),
    "auth": Auth("bearer", "", "t0ken"),
    "signing_secret": "whsec_" + "A" * 32,
}


async def test_rotation_reaches_messages_wherever_they_are(database: Database) -> None:
    """One that waits, one that is owed, and one that may be replayed; each can be sent with the new key alone."""
    now = 1_700_000_000_000
    await send(database, now, now, now + 3_600_000, **SECRETS)
    await run_dry(worker(database, lambda _: _answer(400)))
    await send(database, now, now, **SECRETS)
    assert [len(await rows(database, name)) for name in ("messages", "executions", "history")] == [1, 1, 1]
    both = replace(database, keyring=Keyring((bytes([7]) * 32, bytes(32))))
    assert (await rotate_secrets.rotate(both)).reencrypted == 3
    assert (await rotate_secrets.rotate(both)).current == 3
    fresh = replace(database, keyring=Keyring((bytes([7]) * 32,)))
    seen: list[Any] = []

    def note(request: Any) -> Any:
        seen.append(request)
        return _answer(200)

    await run_dry(worker(fresh, note))
    assert [r.headers["x-key"] for r in seen] == ["s3cret"]
    assert [r.headers["authorization"] for r in seen] == ["Bearer t0ken"]


def _answer(status: int) -> Any:
    import httpx

    return httpx.Response(status)
