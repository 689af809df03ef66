"""A mongod that demands TLS and a password, with a user that may read and write one database and nothing else."""

from __future__ import annotations

import json
import stat
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError
from structlog.testing import capture_logs

from cluster.core.errors import ConfigurationError
from ops.cli import cli
from ops.local import bootstrap
from ops.server.serve import check_database, warn_if_unencrypted
from ops.support.embedded_mongodb import free_port, mongod_binary
from tests.support import live, plain_http
from tests.support.mongo import needs_mongod
from tests.support.processes import Receiver, end
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

pytestmark = [needs_mongod, pytest.mark.timeout(120), pytest.mark.takes(15)]

DB = "horae"


@dataclass(frozen=True)
class Secured:
    """A one-member set made by `horae bootstrap`, exactly as docker-compose.yml makes its three."""

    directory: Path
    port: int

    @property
    def uri(self) -> str:
        return (self.directory / "mongodb-uri").read_text()

    @property
    def plain(self) -> str:
        """The same without TLS."""
        return self.uri.replace("tls=true", "tls=false").split("&tlsCAFile")[0]

    def changed(self, old: str, new: str) -> str:
        assert old in self.uri
        return self.uri.replace(old, new)


def horae(*arguments: str, **environment: str) -> Result:
    """A command, run in this process: starting Python for each takes longer than they do."""
    return CliRunner().invoke(cli, arguments, env={"DB_NAME": DB, **environment})


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    directory = tmp_path_factory.mktemp("secrets")
    data = tmp_path_factory.mktemp("data")
    port = free_port()
    member = f"127.0.0.1:{port}"
    setting_up = ["--dir", str(directory), "--members", member]
    assert horae("bootstrap", "secrets", *setting_up).exit_code == 0
    command = [
        mongod_binary(),
        "--dbpath",
        str(data),
        "--port",
        str(port),
        "--bind_ip",
        "127.0.0.1",
        "--replSet",
        "rs0",
    ]
    command += ["--auth", "--keyFile", str(directory / "mongo-key"), "--tlsMode", "requireTLS"]
    command += ["--tlsCertificateKeyFile", str(directory / "mongo.pem"), "--tlsCAFile", str(directory / "ca.pem")]
    command += ["--tlsAllowConnectionsWithoutCertificates", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25"]
    with (data / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        done = horae("bootstrap", "replica-set", *setting_up, "--port", str(port))
        assert done.exit_code == 0, done.output
        again = horae("bootstrap", "replica-set", *setting_up, "--port", str(port))
        assert again.exit_code == 0, again.output
        yield Secured(directory, port)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    r = Receiver(tmp_path)
    yield r
    end(r.process)


def test_a_second_run_changes_no_secret(secured: Secured) -> None:
    """And every secret is readable by its owner alone, the authority's certificate by all."""
    before = {p.name: p.read_bytes() for p in secured.directory.iterdir()}
    assert bootstrap.make_secrets(secured.directory, [f"127.0.0.1:{secured.port}"], DB) == []
    assert {p.name: p.read_bytes() for p in secured.directory.iterdir()} == before
    for path in secured.directory.iterdir():
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o444 if path.name == "ca.pem" else 0o400), path.name


def test_the_server_demands_tls_and_a_password(secured: Secured) -> None:
    """So what works in the other tests works with both."""
    with (
        MongoClient[dict[str, Any]](secured.plain, serverSelectionTimeoutMS=500) as client,
        pytest.raises(PyMongoError),
    ):
        client.admin.command("ping")
    nameless = secured.changed(f"{urlsplit(secured.uri).netloc.rpartition('@')[0]}@", "")
    nameless = nameless.replace(f"&authSource={DB}", "")
    with MongoClient[dict[str, Any]](nameless) as client, pytest.raises(OperationFailure, match="authentication"):
        client[DB]["jobs"].find_one()


def test_the_user_may_read_and_write_one_database_only(secured: Secured) -> None:
    """What the server itself says about the user, and what happens in another database."""
    with MongoClient[dict[str, Any]](secured.uri) as client:
        status = client.admin.command("connectionStatus")["authInfo"]
        assert status["authenticatedUserRoles"] == [{"role": "readWrite", "db": DB}]
        with pytest.raises(OperationFailure, match="not authorized"):
            client["other"]["c"].insert_one({})
        with pytest.raises(OperationFailure, match="not authorized"):
            client.admin.command("replSetGetStatus")


def test_horae_runs_with_a_user_that_may_read_and_write_one_database(secured: Secured, receiver: Receiver) -> None:
    """Start-up checks, a leader, leases by $$NOW, deliveries, history, keys, and every command that reads."""
    environment = {"MONGODB_URI": secured.uri, "HORAE_ALLOWED_NETWORKS": "127.0.0.0/8"}
    with live.node(secured.uri, DB) as url:
        made = plain_http.put(
            f"{url}/jobs/tick",
            json={"schedule": "* * * * * *", "api": f"{receiver.url}/ok", "type": "ATLEAST_ONCE"},
        )
        assert made.status_code == 201, made.text

        def succeeded() -> bool:
            return any(e["state"] == "succeeded" for e in plain_http.get(f"{url}/jobs/tick/executions").json())

        wait_until(succeeded, 20, "a delivery on record")
        assert plain_http.get(f"{url}/cluster").json()["leader"]["nodeId"]
        for arguments in (["nodes"], ["leader"], ["leases"], ["backlog"], ["explain", "tick"]):
            done = horae(*arguments, "--json", **environment)
            assert done.exit_code == 0, done.output
            assert json.loads(done.stdout)
        done = horae("keys", "create", "--name", "probe", "--scope", "read", **environment)
        assert done.exit_code == 0, done.output
        assert "probe" in horae("keys", "list", **environment).stdout


def test_a_wrong_password_is_reported_without_the_right_one(secured: Secured) -> None:
    """The message names MongoDB as its source."""
    with pytest.raises(ConfigurationError, match="MongoDB refused the request: Authentication failed") as caught:
        check_database(secured.changed("horae:", "horae:wrong"))
    assert (secured.directory / "horae-password").read_text() not in str(caught.value.problems)


def test_without_tls_the_database_is_unavailable_and_the_message_names_tls(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server closes the connection, as one that is starting may; no secret is in the message."""
    monkeypatch.setattr("ops.server.serve.REACH_SECONDS", 1)
    said = check_database(secured.plain)
    assert said is not None
    assert "TLS" in said
    assert (secured.directory / "horae-password").read_text() not in said


def test_a_foreign_certificate_is_not_trusted(
    secured: Secured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An attacker between Horae and the database cannot present just any certificate."""
    monkeypatch.setattr("ops.server.serve.REACH_SECONDS", 1)
    foreign, _ = bootstrap.certificates(["127.0.0.1"])
    (tmp_path / "ca.pem").write_text(foreign)
    uri = secured.changed(str(secured.directory / "ca.pem"), str(tmp_path / "ca.pem"))
    with pytest.raises(ConfigurationError, match="certificate verify failed"):
        check_database(uri)


@pytest.mark.parametrize(
    ("uri", "warned"),
    [
        ("mongodb://db.example.com/?replicaSet=rs0", True),
        ("mongodb://127.0.0.1,10.0.0.7/?replicaSet=rs0", True),
        ("mongodb://db.example.com/?replicaSet=rs0&tls=true", False),
        ("mongodb://db.example.com/?replicaSet=rs0&ssl=true", False),
        ("mongodb://127.0.0.1:27018,localhost,[::1]:27020/?replicaSet=rs0", False),
        ("mongodb://%2Ftmp%2Fmongodb-27017.sock/", False),
        ("mongodb://u:p@10.0.0.7/?tls=false", True),
        ("mongodb://", False),
    ],
)
def test_an_unencrypted_connection_to_another_host_is_logged(uri: str, warned: bool) -> None:
    """Once at start, with the hosts and what to do, without the password."""
    with capture_logs() as logs:
        assert warn_if_unencrypted(uri) is warned
    assert [entry["event"] for entry in logs] == ["database_connection_unencrypted"] * warned
    assert "u:p" not in str(logs)
