"""The embedded MongoDB: started, joined, left, killed, and there again with its data."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from cluster.core.errors import ConfigurationError
from ops.server.serve import check_database, check_port
from ops.support.embedded_mongodb import EmbeddedMongod, RunningMongod, database_uri, free_port, mongod_binary
from ops.support.server_address import ServerAddress, answers, fits_a_socket
from tests.support.mongo import needs_mongod
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_mongod


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    state = EmbeddedMongod(tmp_path).running_server()
    if state is not None:
        psutil.Process(state.pid).kill()


def value(uri: str) -> Any:
    with MongoClient[dict[str, Any]](uri) as client:
        return client["t"]["c"].find_one({"_id": 1})


def test_a_restarted_server_has_its_port_and_data(directory: Path) -> None:
    """It stops with its last user and leaves no process."""
    first = EmbeddedMongod(directory)
    state = first.acquire()
    with MongoClient[dict[str, Any]](state.uri) as client:
        assert client.admin.command("hello")["setName"] == "horae"
        client["t"]["c"].insert_one({"_id": 1})
    first.release()
    assert not psutil.pid_exists(state.pid)
    again = EmbeddedMongod(directory)
    assert again.acquire().port == state.port
    assert value(state.uri) is not None
    again.release()
    assert again.running_server() is None


def test_only_its_user_can_reach_the_server(directory: Path) -> None:
    """It listens on a socket in a closed directory and on no port, and compresses nothing."""
    (directory / "mongo").mkdir(mode=0o755)
    server = EmbeddedMongod(directory)
    state = server.acquire()
    listening = psutil.Process(state.pid).net_connections(kind="all")
    assert [c for c in listening if c.family != socket.AF_UNIX] == []
    assert ".sock" in state.uri
    for closed in (directory / "mongo", directory / "mongo" / "data"):
        assert closed.stat().st_mode & 0o777 == 0o700
    with MongoClient[dict[str, Any]](state.uri) as client:
        options = client.admin.command("getCmdLineOpts")["parsed"]
    assert options["net"]["compression"]["compressors"] == "disabled"
    server.release()


@pytest.mark.parametrize("name", ["Data", "home/Ü", "a,b", "a:1", "a%2F", "a%4Ab", "127.0.0.1,0.0.0.0", "d" * 95])
def test_a_path_that_no_socket_can_have_means_a_password(name: str) -> None:
    """Too long; with a comma or a colon, which divide addresses; with capitals, which the driver would write small."""
    assert not fits_a_socket(f"/srv/{name}/mongodb-20000.sock")
    assert fits_a_socket("/srv/a b?c=1#é@x&'+;=%41/mongodb-20000.sock")


@pytest.mark.takes(8)
@pytest.mark.parametrize("path", ["d" * 90, "Home of,A:User%2F"])
def test_a_path_without_a_socket_has_a_server_with_a_password(directory: Path, path: str) -> None:
    """Where no socket fits, loopback alone lets nobody in; a restart keeps the password and the data."""
    long = directory / path
    server = EmbeddedMongod(long)
    state = server.acquire()
    with MongoClient[dict[str, Any]](state.uri) as client:
        client["t"]["c"].insert_one({"_id": 1})
    stranger = MongoClient[dict[str, Any]](f"mongodb://127.0.0.1:{state.port}/?directConnection=true")
    with stranger as client, pytest.raises(OperationFailure, match="requires authentication"):
        client["t"]["c"].find_one()
    for secret in ("key", "password"):
        assert (long / "mongo" / secret).stat().st_mode & 0o777 == 0o600
    password = (long / "mongo" / "password").read_text()
    assert password not in repr(state)
    assert password not in " ".join(psutil.Process(state.pid).cmdline())
    server.release()
    again = EmbeddedMongod(long)
    assert value(again.acquire().uri) == {"_id": 1}
    again.release()


@pytest.mark.parametrize("name", ["file", "file/below", "mongo-is-a-file"])
def test_a_directory_that_cannot_be_used_is_named_with_the_setting(tmp_path: Path, name: str) -> None:
    """Something else is in its place."""
    (tmp_path / "file").touch()
    (tmp_path / "mongo-is-a-file").mkdir()
    (tmp_path / "mongo-is-a-file" / "mongo").touch()
    with pytest.raises(ConfigurationError) as raised:
        EmbeddedMongod(tmp_path / name).acquire()
    assert str(tmp_path / name) in str(raised.value)
    assert "HORAE_DATA_DIR" in str(raised.value)


def test_the_last_user_stops_the_server(directory: Path) -> None:
    """A second user joins the running server; when the first leaves, it keeps running."""
    first, second = EmbeddedMongod(directory), EmbeddedMongod(directory)
    state = first.acquire()
    assert second.acquire() == state
    first.release()
    assert second.running_server() == state
    second.release()
    assert second.running_server() is None


@pytest.mark.parametrize("same_port", [True, False])
def test_the_server_recovers_after_kill_9_of_everything(
    directory: Path, monkeypatch: pytest.MonkeyPatch, same_port: bool
) -> None:
    """Also if its port has been taken in the meantime: the address in the replica set's configuration is corrected."""
    code = f"from pathlib import Path; from ops.support.embedded_mongodb import EmbeddedMongod; import time; EmbeddedMongod(Path({str(directory)!r})).acquire(); print('up', flush=True); time.sleep(600)"
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert starter.stdout is not None
    assert starter.stdout.readline() == b"up\n"
    state = EmbeddedMongod(directory).running_server()
    assert state is not None
    with MongoClient[dict[str, Any]](state.uri) as client:
        client["t"].get_collection("c").insert_one({"_id": 1})
    starter.kill()
    os.kill(state.pid, signal.SIGKILL)
    starter.wait()
    wait_until(lambda: EmbeddedMongod(directory).running_server() is None, 10, "mongod to be gone")
    if not same_port:
        port = free_port()
        monkeypatch.setattr(EmbeddedMongod, "_port", lambda _: port)
    again = EmbeddedMongod(directory)
    now = again.acquire()
    assert (now.port == state.port) is same_port
    assert value(now.uri) is not None
    again.release()


def test_a_server_whose_starter_was_killed_is_joined_and_stopped(directory: Path) -> None:
    """kill -9 of `serve` leaves mongod running; the next clean exit stops it."""
    code = f"from pathlib import Path; from ops.support.embedded_mongodb import EmbeddedMongod; import os; EmbeddedMongod(Path({str(directory)!r})).acquire(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code], check=False)
    state = EmbeddedMongod(directory).running_server()
    assert state is not None
    heir = EmbeddedMongod(directory)
    assert heir.acquire() == state
    heir.release()
    assert not psutil.pid_exists(state.pid)


def test_a_dead_server_is_restarted(directory: Path) -> None:
    """While a process uses it."""
    e = EmbeddedMongod(directory)
    state = e.acquire()
    e.watch()
    os.kill(state.pid, signal.SIGKILL)

    def back() -> bool:
        now = e.running_server()
        return now is not None and now.pid != state.pid

    wait_until(back, 20, "a new mongod")
    check_database(state.uri)
    e.release()
    assert e.running_server() is None


@pytest.mark.takes(8)
@pytest.mark.parametrize("path", [".", "d" * 90])
def test_a_server_that_dies_while_it_is_joined_is_started_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """A killed process is there for a moment. Its port answers nobody, or resets what connects, with a password and without."""
    monkeypatch.setattr("ops.support.embedded_mongodb.START_SECONDS", 20)
    first, second = EmbeddedMongod(directory / path), EmbeddedMongod(directory / path)
    state = first.acquire()
    os.kill(state.pid, signal.SIGKILL)
    wait_until(lambda: first.running_server() is None, 10, "mongod to be gone")
    seen = iter([state, state])
    really = EmbeddedMongod.running_server
    monkeypatch.setattr(EmbeddedMongod, "running_server", lambda self: next(seen, None) or really(self))
    now = second.acquire()
    assert now.pid != state.pid
    check_database(now.uri)
    first.release()
    second.release()
    assert second.running_server() is None


def test_a_server_that_never_stays_is_a_sentence(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a loop without an end."""
    monkeypatch.setattr("ops.support.embedded_mongodb.STARTS", 2)
    monkeypatch.setattr(EmbeddedMongod, "_becomes_primary", lambda *_: False)
    with pytest.raises(ConfigurationError, match=r"ended 2 times .*mongod\.log"):
        EmbeddedMongod(directory).acquire()


@pytest.mark.takes(6)
def test_a_server_that_is_killed_as_it_returns_is_restarted_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watch goes on, whatever became of the server that it started."""
    e = EmbeddedMongod(directory)
    state = e.acquire()
    start, started = EmbeddedMongod._start, []

    def killed_twice(self: EmbeddedMongod) -> RunningMongod:
        now = start(self)
        started.append(now)
        if len(started) <= 2:
            os.kill(now.pid, signal.SIGKILL)
        return now

    monkeypatch.setattr(EmbeddedMongod, "_start", killed_twice)
    e.watch()
    os.kill(state.pid, signal.SIGKILL)
    wait_until(lambda: len(started) == 3, 20, "a third mongod")
    check_database(state.uri)
    e.release()
    assert e.running_server() is None


def test_a_standalone_is_refused(tmp_path: Path) -> None:
    """With a sentence that says what to do."""
    port = free_port()
    process = subprocess.Popen(
        [mongod_binary(), "--dbpath", str(tmp_path), "--port", str(port), "--bind_ip", "127.0.0.1", "--nounixsocket"],
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: answers(ServerAddress(f"127.0.0.1:{port}")), 20, "mongod")
        with pytest.raises(ConfigurationError, match="--replSet"):
            check_database(f"mongodb://127.0.0.1:{port}/")
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("mongodb://", "is not valid"),
        ("mongodb://127.0.0.1/?noSuchOption=:x:&replicaSet", "is not valid"),
    ],
)
def test_an_unusable_database_is_a_sentence(monkeypatch: pytest.MonkeyPatch, uri: str, words: str) -> None:
    """Within seconds, without a traceback."""
    monkeypatch.setattr("ops.server.serve.REACH_SECONDS", 1)
    with pytest.raises(ConfigurationError, match=words):
        check_database(uri)


def test_an_unavailable_database_does_not_prevent_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check returns the reason; the nodes wait (tests/api/test_outage.py)."""
    monkeypatch.setattr("ops.server.serve.REACH_SECONDS", 1)
    said = check_database("mongodb://127.0.0.1:1/?replicaSet=x")
    assert said is not None
    assert "not reachable" in said
    assert "Connection refused" in said


def test_a_taken_port_is_a_sentence() -> None:
    """Nothing is started."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        with pytest.raises(ConfigurationError, match="choose another port"):
            check_port("127.0.0.1", s.getsockname()[1])


def test_commands_say_that_there_is_no_database(tmp_path: Path) -> None:
    """They do not start one."""
    with pytest.raises(ConfigurationError, match="horae serve"):
        database_uri(tmp_path, None)
    assert database_uri(tmp_path, "mongodb://x/") == "mongodb://x/"
