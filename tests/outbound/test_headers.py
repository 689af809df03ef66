"""What a target receives."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from cluster.core.execution.model import Execution, Job, Target
from cluster.core.lifecycle import JobState
from cluster.outbound.headers import delivery_headers, signature_headers
from cluster.outbound.sender import Sender

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
EXECUTION = Execution("j:1795651200123", "j", 1_795_651_200_123, 1_795_651_205_123, "v", "b", 0)


def job(headers: tuple[tuple[str, str], ...] = (), **more: Any) -> Job:
    return Job(
        "j", JobState.ACTIVE, "v", 0, 0, Target("http://t.test/", headers, b'{"a":1}', "application/json"), **more
    )


def test_an_attempt_has_exactly_these_headers() -> None:
    """The headers of an attempt, exactly and in order."""
    assert delivery_headers(EXECUTION, job((("X-Own", "1"),)), 3, 42, TRACE, 0) == [
        ("X-Own", "1"),
        ("Content-Type", "application/json"),
        ("Accept", "*/*"),
        ("Accept-Encoding", "identity"),
        ("User-Agent", f"Horae/{version('horae')}"),
        ("Idempotency-Key", "j:1795651200123"),
        ("Horae-Job-Id", "j"),
        ("Horae-Execution-Id", "j:1795651200123"),
        ("Horae-Scheduled-At", "2026-11-26T00:00:00.123Z"),
        ("Horae-Attempt", "3"),
        ("Horae-Fencing-Token", "42"),
        ("traceparent", TRACE),
    ]


def test_a_job_cannot_replace_reserved_headers() -> None:
    """A job's header never replaces or repeats one of ours; those that are its own to choose, it chooses."""
    pretended = ("host", "Content-LENGTH", "idempotency-KEY", "Horae-Attempt", "HORAE-anything",
                 "TraceParent", "Webhook-Signature", "Transfer-Encoding", "Connection")  # fmt: skip
    own = (*((name, "evil") for name in pretended), ("content-type", "text/csv"), ("ACCEPT", "text/plain"))
    request = Sender(httpx.MockTransport(lambda _: httpx.Response(200))).prepare(
        job().target, delivery_headers(EXECUTION, job(own, signing_secret=SECRET), 1, 1, TRACE, 0)
    )
    assert "evil" not in request.headers.values()
    assert len(request.headers) == len(request.headers.multi_items())
    assert (request.headers["Content-Type"], request.headers["Accept"]) == ("text/csv", "text/plain")


@pytest.mark.parametrize("name", ["User-Agent", "user-agent", "USER-AGENT"])
def test_a_job_may_set_its_user_agent(name: str) -> None:
    """Some targets admit only agents that they know. It replaces ours and is sent once."""
    sent = delivery_headers(EXECUTION, job(((name, "partner/7"),)), 1, 1, TRACE, 0)
    assert [(n, value) for n, value in sent if n.lower() == "user-agent"] == [(name, "partner/7")]


def test_the_signature_matches_the_example_of_the_specification() -> None:
    """The example that the Standard Webhooks libraries test themselves with."""
    assert signature_headers(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )[2] == ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")


def test_a_receiver_verifies_the_signature_of_each_attempt() -> None:
    """A receiver that knows the secret gets the same code; the id is stable over attempts, the time is the attempt's."""
    for attempt, now_ms in ((1, 1_795_651_205_999), (2, 1_795_651_290_000)):
        sent = dict(delivery_headers(EXECUTION, job(signing_secret=SECRET), attempt, 1, TRACE, now_ms))
        assert (sent["webhook-id"], sent["webhook-timestamp"]) == (EXECUTION.id, str(now_ms // 1000))
        signed = b".".join([sent["webhook-id"].encode(), sent["webhook-timestamp"].encode(), b'{"a":1}'])
        code = hmac.new(bytes(range(32)), signed, hashlib.sha256).digest()
        assert sent["webhook-signature"] == "v1," + base64.b64encode(code).decode()


@pytest.mark.parametrize("body", ["", '{"a":1}', "plain", '{"ü":"€\\u0000"}', "{{executionId}}\r\n"])
def test_the_signature_equals_that_of_standardwebhooks(body: str) -> None:
    """Byte for byte what `standardwebhooks` signs, once for each secret, the empty body included."""
    other = "whsec_" + base64.b64encode(bytes(range(100, 124))).decode()
    sent = dict(signature_headers([SECRET, other], EXECUTION.id, 1_795_651_205, body.encode()))
    at = datetime.fromtimestamp(1_795_651_205, UTC)
    assert sent["webhook-signature"].split(" ") == [Webhook(s).sign(EXECUTION.id, at, body) for s in (SECRET, other)]


def test_the_signed_timestamp_is_never_before_the_send_time() -> None:
    """Headers are made a little before the send time; the timestamp is that of sending, never before."""
    sent = dict(delivery_headers(EXECUTION, job(signing_secret=SECRET), 1, 1, TRACE, EXECUTION.send_ms - 900))
    assert sent["webhook-timestamp"] == str(EXECUTION.send_ms // 1000)
