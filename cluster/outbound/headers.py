"""The headers a target receives (`cluster/README.md` lists them). A job cannot replace these with its own headers."""

from __future__ import annotations

import base64
import hmac
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from cluster.core.documents.header_rules import is_reserved
from cluster.core.ids import is_callback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.execution.model import Execution, Job

USER_AGENT = f"Horae/{version('horae')}"


@lru_cache(maxsize=4096)
def _rfc3339(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@lru_cache(maxsize=8192)
def _own(headers: tuple[tuple[str, str], ...], content_type: str | None) -> tuple[tuple[str, str], ...]:
    """The headers of a job without the reserved ones, and the defaults for those it does not set.

    Excerpts of responses are stored as received, so targets are asked not to compress them.
    """
    own = [(name, value) for name, value in headers if not is_reserved(name)]
    names = {name.lower() for name, _ in own}
    defaults = (
        ("Content-Type", content_type),
        ("Accept", "*/*"),
        ("Accept-Encoding", "identity"),
        ("User-Agent", USER_AGENT),
    )
    own += [(name, value) for name, value in defaults if value is not None and name.lower() not in names]
    return tuple(own)


def delivery_headers(
    execution: Execution, job: Job, attempt: int, token: int, traceparent: str, now_ms: int
) -> list[tuple[str, str]]:
    """Every header of one attempt, those of the job first."""
    target = job.target
    own = (
        _own.__wrapped__ if target.templated else _own
    )  # templated headers differ each time, so caching them is no use
    headers = [
        *own(target.headers, target.content_type),
        ("Idempotency-Key", execution.id),
        _sender_of(execution),
        ("Horae-Execution-Id", execution.id),
        ("Horae-Scheduled-At", _rfc3339(execution.due_ms)),
        ("Horae-Attempt", str(attempt)),
        ("Horae-Fencing-Token", str(token)),
        ("traceparent", traceparent),
    ]
    if job.signing_secret is not None:
        secrets = [s for s in (job.signing_secret, job.previous_signing_secret) if s is not None]
        headers += signature_headers(secrets, execution.id, max(now_ms, execution.send_ms) // 1000, target.body)
    return headers


def _sender_of(execution: Execution) -> tuple[str, str]:
    """The header that says for which job or message this is, or for which execution, if it is a callback."""
    if execution.message is None:
        return "Horae-Job-Id", execution.job_id
    if is_callback(execution.job_id):
        return "Horae-Callback-For", str(execution.message.get("follows"))
    return "Horae-Message-Id", execution.job_id


@lru_cache(maxsize=1024)
def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix("whsec_"))


def signature_headers(secrets: Sequence[str], message_id: str, timestamp_s: int, body: bytes) -> list[tuple[str, str]]:
    """Headers of Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`; the key is the base64 after `whsec_`.

    There is one signature for each secret: two while receivers change from one secret to the other.
    """
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    codes = [base64.b64encode(hmac.digest(_key(s), signed, "sha256")).decode() for s in secrets]
    return [
        ("webhook-id", message_id),
        ("webhook-timestamp", str(timestamp_s)),
        ("webhook-signature", " ".join(f"v1,{code}" for code in codes)),
    ]
