"""Secrets at rest: encryption, sending, a wrong key, rotation, and that no secret is found anywhere."""

from __future__ import annotations

import asyncio
import base64
import html
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import bson
import orjson
import pytest
from click.testing import CliRunner
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from cluster.clock import Clock
from cluster.core.documents.job_json import DocumentLimits, job_document, read_job
from cluster.core.errors import InvalidInput, UndecryptableSecret
from cluster.core.timings import Timings
from cluster.outbound.sender import Sender
from cluster.outbound.transport import HttpTransport
from cluster.store import jobs as stored
from cluster.store.maintenance import rotate_secrets
from cluster.store.mongo.encryption import Keyring
from cluster.usecases import jobs
from cluster.usecases.executions import trigger
from cluster.worker.worker import Worker, WorkerSettings
from ops.cli import cli
from tests.support.api_client import RULES
from tests.support.job_changes import patch_job
from tests.support.waiting import eventually
from tests.support.wire import listening

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.store.mongo.client import Database
    from tests.support.wire import Wire

NEW = "whsec_" + base64.b64encode(b"canary-new-0123456789-abcdefghij").decode()
OLD = "whsec_" + base64.b64encode(b"canary-old-0123456789-abcdefghij").decode()
HEADER, PASSWORD, TOKEN = 'canary/header+0&"x', 'canary/password+0&"y', "canary/token+0-~"
CANARIES = (HEADER, PASSWORD, TOKEN, NEW, OLD, NEW[6:], OLD[6:])
ENCODERS: tuple[Callable[[str], str], ...] = (
    str,
    lambda said: json.dumps({"said": said}).replace("/", "\\/"),
    lambda said: quote(said, safe=""),
    lambda said: quote(said, safe="").lower(),
    quote_plus,
    html.escape,
    lambda said: html.escape(said).upper(),
    lambda said: base64.b64encode(said.encode()).decode(),
    lambda said: base64.b64encode(f"x{said}".encode()).decode(),
    lambda said: base64.urlsafe_b64encode(f"xy{said}".encode()).decode(),
)
SPEC: dict[str, Any] = {
    "schedule": "0 0 3 * * *",
    "api": "http://127.0.0.1:1/x",
    "headers": {"X-Api-Key": {"secret": HEADER}, "X-Run": "{{executionId}}/{{attempt}}"},
    "auth": {"type": "basic", "username": "me", "password": PASSWORD},
    "signingSecret": NEW,
    "previousSigningSecret": OLD,
    "body": {"run": "{{ executionId }}", "job": ["{{jobId}}"], "at": "{{scheduledAt}}", "try": "n{{attempt}}"},
}


async def make(db: Database, **fields: Any) -> None:
    await jobs.put(db, "j", read_job({**SPEC, **fields}, RULES.context), Clock().now_ms())


async def run_once(db: Database) -> dict[str, Any]:
    """Trigger the job and let a real worker send it over a real socket. Returns its record in history."""
    clock = Clock()
    name = await trigger(db, "j", clock.now_ms())
    sender = Sender(HttpTransport(RULES.networks))
    worker = Worker(db, clock, Timings(), sender, WorkerSettings("w"))
    worker.start()
    try:
        return await eventually(lambda: db.api["history"].find_one({"_id": name}), 15, "the run is final")
    finally:
        await worker.shutdown(5)
        await sender.aclose()


async def dump(db: Database) -> bytes:
    """Every byte of the database."""
    found = b""
    for name in await db.api.list_collection_names():
        found += b"".join(bson.encode(d) for d in await db.api[name].find().to_list())
    return found


async def echo(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A target that repeats its request, encoded in another way each time."""
    raw = await wire.request(reader)
    said = ENCODERS[(len(wire.requests) - 1) % len(ENCODERS)](raw.decode("latin-1")).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said) + said)
    await writer.drain()


def parsed(raw: bytes) -> tuple[dict[str, str], bytes]:
    """The headers, names in lower case, and the body of a request."""
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = (line.partition(": ") for line in head.decode("latin-1").split("\r\n")[1:])
    return {name.lower(): value for name, _, value in lines}, body


async def test_a_receiver_gets_decrypted_secrets_and_valid_signatures(database: Database) -> None:
    """Templates are filled in, and both signatures verify over the bytes that arrived."""
    async with listening(echo) as wire:
        await make(database, api=wire.url)
        run = await run_once(database)
    headers, body = parsed(wire.requests[0])
    name = run["_id"]
    assert headers["x-api-key"] == HEADER
    assert headers["authorization"] == "Basic " + base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    assert headers["x-run"] == f"{name}/1"
    sent = orjson.loads(body)
    assert sent == {"run": name, "job": ["j"], "at": headers["horae-scheduled-at"], "try": "n1"}
    assert headers["webhook-id"] == name
    assert len(headers["webhook-signature"].split()) == 2
    for secret in (NEW, OLD):
        assert Webhook(secret).verify(body.decode(), headers) == sent
    with pytest.raises(WebhookVerificationError):
        Webhook(NEW).verify(body.decode() + " ", headers)


async def test_no_secret_is_found_in_database_output_or_log(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither in the record of a target that repeats its request, nor in what is shown, exported or logged."""
    async with listening(echo) as wire:
        await make(database, api=wire.url)
        await make(database, api=wire.url, schedule="0 0 4 * * *", auth={"type": "bearer", "token": TOKEN})
        for encoder in ENCODERS:
            run = await run_once(database)
            excerpt = run["attempts"][0]["excerpt"]
            assert "(secret)" in excerpt
            assert [c for c in (HEADER, PASSWORD, TOKEN) if encoder(c).strip('{"said: }') in excerpt] == []
    job = await stored.get(database, "j")
    assert job is not None
    printed = capsys.readouterr()
    shown = str(job_document(job.definition)) + repr(job) + printed.out + printed.err
    everything = await dump(database) + shown.encode()
    assert [c for c in CANARIES if c.encode() in everything] == []
    await jobs.delete(database, "j", Clock().now_ms())
    assert b"sealed:" not in await dump(database)


async def test_a_secret_placeholder_keeps_the_stored_secret(database: Database) -> None:
    """A job document can be sent back by PUT or as a patch. A placeholder without a stored secret is a fault."""
    await make(database)
    before = await stored.get(database, "j")
    assert before is not None
    back = job_document(before.definition)
    assert back["headers"]["X-Api-Key"] == {"secret": True}
    assert back["auth"] == {"type": "basic", "username": "me", "password": {"secret": True}}
    after, created = await jobs.put(database, "j", read_job(back, RULES.context), Clock().now_ms())
    assert (after, created) == (before, False)
    patched = await patch_job(database, "j", {"name": "n"}, RULES.context, Clock().now_ms())
    assert patched.definition == replace(before.definition, name="n")
    with pytest.raises(InvalidInput, match=r"headers\.X-Api-Key: has no stored secret"):
        await jobs.put(database, "other", read_job(back, RULES.context), Clock().now_ms())
    fewer = await patch_job(database, "j", {"headers": {"X-Api-Key": None}, "auth": None, "signingSecret": None,
                                             "previousSigningSecret": None}, RULES.context, Clock().now_ms())  # fmt: skip
    assert fewer.definition == replace(before.definition.without_secrets(), name="n")


async def test_a_secret_moved_to_another_job_or_field_is_not_decrypted(database: Database) -> None:
    """Each encryption of a text differs."""
    keyring = database.keyring
    stored_form = keyring.encrypt("s3cret", "a", "auth")
    assert keyring.decrypt(stored_form, "a", "auth") == "s3cret"
    assert keyring.encrypt("s3cret", "a", "auth") != stored_form
    for job_id, field in (("b", "auth"), ("a", "headers.X")):
        with pytest.raises(UndecryptableSecret):
            keyring.decrypt(stored_form, job_id, field)


async def test_an_execution_with_an_undecryptable_secret_is_dead_and_names_the_key(database: Database) -> None:
    """The job can be read, changed and paused, and keeps the secrets that cannot be decrypted."""
    await make(database)
    other = replace(database, keyring=Keyring((bytes([1]) * 32,)))
    run = await run_once(other)
    assert run["state"] == "dead"
    assert "HORAE_SECRET_KEY does not hold" in run["reason"]
    await patch_job(other, "j", {"name": "n"}, RULES.context, Clock().now_ms())
    await jobs.pause(other, "j", Clock().now_ms())
    job = await stored.get(database, "j")
    assert job is not None
    assert job.definition.signing_secret == NEW
    assert job.definition.secret_headers == (("X-Api-Key", HEADER),)


async def test_without_a_key_a_job_with_secrets_is_refused(database: Database) -> None:
    """Each secret is named. A job without secrets is accepted."""
    with pytest.raises(InvalidInput) as refused:
        read_job(SPEC, DocumentLimits(RULES.networks, can_encrypt=False).context)
    assert {f.path for f in refused.value.faults} == {
        "headers.X-Api-Key", "auth.password", "signingSecret", "previousSigningSecret"
    }  # fmt: skip
    bare = replace(database, keyring=Keyring())
    with pytest.raises(InvalidInput, match="HORAE_SECRET_KEY"):
        await make(bare)
    plain = {"schedule": "0 0 3 * * *", "api": SPEC["api"]}
    await jobs.put(bare, "p", read_job(plain, RULES.context), Clock().now_ms())


async def test_rotation_encrypts_every_secret_with_the_first_key(
    database: Database, mongodb_uri: str, db_name: str
) -> None:
    """Undecryptable secrets are named, and a second rotation changes nothing."""
    await make(database)
    lost = replace(database, keyring=Keyring((bytes([9]) * 32,)))
    await jobs.put(lost, "lost", read_job(SPEC, RULES.context), Clock().now_ms())
    keys = ",".join(base64.b64encode(bytes([n]) * 32).decode() for n in (7, 0))
    environment = {"MONGODB_URI": mongodb_uri, "DB_NAME": db_name, "HORAE_SECRET_KEY": keys}

    async def rotate() -> str:
        result = await asyncio.to_thread(CliRunner().invoke, cli, ["secrets", "rotate"], env=environment)
        assert result.exit_code == 1
        return result.output

    assert "1 job(s) and channel(s) were encrypted" in await rotate()
    assert "0 job(s) and channel(s) were encrypted with key" in (again := await rotate())
    assert "job lost" in again
    fresh = replace(database, keyring=Keyring((bytes([7]) * 32,)))
    job = await stored.get(fresh, "j")
    assert job is not None
    assert (job.definition.signing_secret, job.revision) == (NEW, 1)
    assert (await rotate_secrets.rotate(fresh)).undecryptable[0][0] == "lost"


@pytest.mark.parametrize(
    ("fields", "path", "words"),
    [
        ({"body": {"a": ["{{nope}}"]}}, "body", "scheduledAt.*executionId.*jobId.*attempt"),
        ({"body": "x {{ 1 + 1 }}"}, "body", "unknown name"),
        ({"headers": {"X": "{{secret}}"}}, "headers.X", "unknown name"),
        ({"headers": {"X": {"secret": 3}}}, "headers.X", "must be a string"),
        ({"headers": {"X": {"secret": "a\nb"}}}, "headers.X", "printable"),
        ({"headers": {"authorization": "x"}, "auth": {"type": "bearer", "token": "t"}}, "auth", "remove one of them"),
        ({"auth": {"type": "basic", "username": "a"}}, "auth", "username and password"),
        ({"auth": {"type": "basic", "username": "a:b", "password": "p"}}, "auth", "colon"),
        ({"auth": {"type": "bearer", "token": "a b"}}, "auth", "spaces"),
        ({"auth": {"type": "digest"}}, "auth.type", "basic"),
        ({"previousSigningSecret": "whsec_x"}, "previousSigningSecret", "whsec_"),
    ],
)
def test_a_faulty_secret_names_its_field_and_not_its_value(fields: dict[str, Any], path: str, words: str) -> None:
    """Every kind of fault."""
    plain = {"schedule": "0 0 3 * * *", "api": SPEC["api"]}
    with pytest.raises(InvalidInput, match=words) as refused:
        read_job({**plain, **fields}, RULES.context)
    assert [f.path for f in refused.value.faults] == [path]
