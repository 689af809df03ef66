"""`make cluster`: the topology of docker-compose.yml from plain processes: three mongods, three nodes, and nginx.

A killed process is restarted after a few seconds, as compose would do. Everything listens on loopback. The data is in
`cluster/` in the data directory.
"""

from __future__ import annotations

import base64
import os
import pwd
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError
from rich.console import Console

import config
from cluster.core.errors import ConfigurationError
from ops.local.demo import announce_stop, status_line
from ops.local.only_run import only_run
from ops.local.processes import Child, Children
from ops.local.samples import load_samples
from ops.server.serve import check_port, embedded_secret_key
from ops.support.client import Client, Refused, Unreachable
from ops.support.embedded_mongodb import mongod_binary

if TYPE_CHECKING:
    from collections.abc import Callable

    from config.settings import Settings

MEMBERS = 3
READY_SECONDS = 60.0
STOP_SECONDS = 12.0
ELECTION_MS = 2000
"""MongoDB's default is 10 s. A short timeout shows the effect of a failover without a long wait."""

DATABASE, NODES, FRONT = 1, 2, 3
"""Stages. They are ended from the last to the first, so that nodes shut down while the database still answers."""

console = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports: nginx on `front`, the nodes on `front + 11` to `front + 13`, the mongods on `mongo` to `mongo + 2`."""

    front: int
    receiver: int
    mongo: int

    @property
    def serves(self) -> list[int]:
        """The ports of the three nodes."""
        return [self.front + 11 + i for i in range(MEMBERS)]

    @property
    def mongods(self) -> list[int]:
        """The ports of the three members."""
        return [self.mongo + i for i in range(MEMBERS)]

    def check(self) -> None:
        """Raises `ConfigurationError` naming a port that is taken or out of range."""
        for port in (self.front, self.receiver, *self.serves, *self.mongods):
            if port > 65_535:
                raise ConfigurationError([f"port {port} is out of range: choose a smaller --port or --mongo-port"])
            check_port("127.0.0.1", port)


def nginx_binary() -> str:
    """The path of nginx. Raises `ConfigurationError` that says what to install."""
    path = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path is None:
        raise ConfigurationError(["nginx is not installed: run apt-get install nginx-light"])
    return path


def nginx_conf(directory: Path, ports: Ports) -> str:
    """The configuration of nginx: the three nodes behind one port; nginx writes only under `directory`."""
    servers = "\n".join(f"    server 127.0.0.1:{port} max_fails=1 fail_timeout=2s;" for port in ports.serves)
    temporary = "\n".join(f"  {kind}_temp_path {directory}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    shipped = Path(config.__file__).parent / "nginx"
    # Started by root, nginx would run its workers as another user, who cannot read this directory.
    user = f"user {pwd.getpwuid(0).pw_name};\n" if os.geteuid() == 0 else ""
    return f"""{user}worker_processes 1;
daemon off;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{
  worker_connections 1024;
}}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
{temporary}
  include {shipped}/limits.conf;
  upstream horae {{
{servers}
    keepalive 32;
    keepalive_timeout 25s;
  }}
  server {{
    listen 127.0.0.1:{ports.front};
    include {shipped}/horae.conf;
  }}
}}
"""


class LocalCluster:
    """The processes of a local cluster. `directory` contains data, logs and `processes.json`."""

    def __init__(self, directory: Path, ports: Ports, db_name: str) -> None:
        self._directory = directory.absolute()
        self._ports = ports
        self._db_name = db_name
        self.children = Children(self._directory)
        self.stopping = threading.Event()
        self.api = Client(f"http://127.0.0.1:{ports.front}")

    @property
    def uri(self) -> str:
        """How clients reach the replica set."""
        return f"mongodb://{','.join(f'127.0.0.1:{p}' for p in self._ports.mongods)}/?replicaSet=horae"

    def start(self) -> bool:
        """Start everything in order; False if interrupted. Raises `ConfigurationError` if a process does not start."""
        for number, port in enumerate(self._ports.mongods, 1):
            self._mongod(f"mongo{number}", port)
        if not self._wait("mongo1", self._initiated) or not self._wait("mongo1", self._has_primary):
            return False
        for number, port in enumerate(self._ports.serves, 1):
            self._horae(f"serve{number}", NODES, port, "serve", "--port", str(port), "--nodes", "1")
        self._horae("receiver", DATABASE, self._ports.receiver, "receiver", "--port", str(self._ports.receiver))
        for number, port in enumerate(self._ports.serves, 1):
            node = Client(f"http://127.0.0.1:{port}")
            if not self._wait(f"serve{number}", lambda node=node: _is_ready(node)):  # type: ignore[misc]
                return False
        conf = self._directory / "nginx.conf"
        conf.write_text(nginx_conf(self._directory, self._ports))
        command = [nginx_binary(), "-p", str(self._directory), "-e", "stderr", "-c", str(conf)]
        self.children.start(Child("nginx", command, self._ports.front, FRONT))
        return self._wait("nginx", lambda: _is_ready(self.api))

    def _mongod(self, name: str, port: int) -> None:
        data = self._directory / f"mongo-{port}"  # members are known by their ports, so the data belongs to a port
        data.mkdir(exist_ok=True)
        command = [
            mongod_binary(),
            "--dbpath",
            str(data),
            "--replSet",
            "horae",
            "--port",
            str(port),
            "--bind_ip",
            "127.0.0.1",
        ]
        command += ["--nounixsocket", "--wiredTigerCacheSizeGB", "0.5", "--oplogSize", "512"]
        command += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
        # By default a member lets its clients continue for 15 s after SIGTERM. Ours have ended before.
        command += ["--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"]
        self.children.start(Child(name, command, port, DATABASE))

    def _horae(self, name: str, stage: int, port: int, *arguments: str) -> None:
        environment = {
            "HORAE_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
            # The nodes have no keys, and refuse what any other proxy forwards. nginx listens on loopback only.
            "HORAE_TRUSTED_PROXIES": "127.0.0.1",
            "HORAE_SECRET_KEY": base64.b64encode(embedded_secret_key(self._directory)).decode(),
            **os.environ,
            "HOST": "127.0.0.1",
            "MONGODB_URI": self.uri,
            "DB_NAME": self._db_name,
        }
        command = [sys.executable, "-m", "ops", *arguments]
        self.children.start(Child(name, command, port, stage, environment, follows_parent=True))

    def _initiated(self) -> bool:
        """Initiate the replica set; False until all members answer."""
        members = [{"_id": i, "host": f"127.0.0.1:{p}"} for i, p in enumerate(self._ports.mongods)]
        config_document = {"_id": "horae", "members": members, "settings": {"electionTimeoutMillis": ELECTION_MS}}
        for port in reversed(self._ports.mongods):
            with MongoClient[dict[str, Any]](
                "127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=500
            ) as client:
                try:
                    client.admin.command("ping")
                    if port == self._ports.mongo:
                        client.admin.command("replSetInitiate", config_document)
                except OperationFailure as exc:
                    return exc.code == 23  # it was initiated by an earlier start
                except PyMongoError:
                    return False
        return True

    def _has_primary(self) -> bool:
        with MongoClient[dict[str, Any]](self.uri, serverSelectionTimeoutMS=500) as client, suppress(PyMongoError):
            client.admin.command("ping")
            return True
        return False

    def _wait(self, name: str, ready: Callable[[], bool]) -> bool:
        """Wait until it is ready; False if interrupted. Raises `ConfigurationError` with the end of the log."""
        deadline = time.monotonic() + READY_SECONDS
        while not self.stopping.is_set():
            if ready():
                return True
            ended = self.children.ended_child()
            if ended is not None or time.monotonic() > deadline:
                name = name if ended is None else ended.name
                log = self.children.log_path(name)
                raise ConfigurationError(
                    [f"{name} did not start; {log} ends with:\n{self.children.last_log_lines(name)}"]
                )
            self.stopping.wait(0.1)
        return False

    def print_overview(self) -> None:
        """Print where everything is."""
        console.print("\n  The cluster is running: three MongoDB members, three nodes, and nginx.\n")
        for what, where in (
            ("API, through nginx", self.api.url),
            ("API reference", f"{self.api.url}/docs"),
            ("API of each node", " ".join(f"http://127.0.0.1:{p}" for p in self._ports.serves)),
            ("delivered requests", f"http://127.0.0.1:{self._ports.receiver}/"),
            ("database", self.uri),
            ("commands", f"MONGODB_URI='{self.uri}' DB_NAME={self._db_name} .venv/bin/horae nodes"),
            ("process ids", f"{self._directory}/processes.json"),
            ("logs", f"{self._directory}/logs/"),
        ):
            console.print(f"  {what:<26}{where}", soft_wrap=True)
        for child in self.children.all:
            pid = child.process.pid if child.process is not None else None
            console.print(f"  {child.name:<12} pid {pid:<8} port {child.port}")
        ending = "\n  Kill any of them with kill -9: it is restarted. Ctrl-C ends all of them; the data is kept.\n"
        console.print(ending, soft_wrap=True)

    def watch(self) -> None:
        """Restart dead processes and print the status line, until interrupted."""
        printed_at = 0.0
        while not self.stopping.wait(1.0):
            self.children.restart_dead(lambda text: console.print(f"\n{text}", style="yellow"))
            if not console.is_terminal and time.monotonic() - printed_at < 5:
                continue
            printed_at = time.monotonic()
            try:
                text = status_line(self.api.call("GET", "/cluster"))
            except (Refused, Unreachable) as exc:
                text = f"the API does not answer: {exc}"
            console.print(text, end="\r" if console.is_terminal else "\n", soft_wrap=True)


def _is_ready(api: Client) -> bool:
    try:
        api.call("GET", "/readyz")
    except (Refused, Unreachable):
        return False
    return True


def run(settings: Settings, ports: Ports, *, samples: bool) -> None:
    """Run until Ctrl-C. Raises `ConfigurationError` if a program is missing or a process does not start."""
    nginx_binary()
    mongod_binary()
    directory = Path(settings.data_dir) / "cluster"
    with only_run(directory, f"http://127.0.0.1:{ports.front}/"):
        ports.check()
        _run(LocalCluster(directory, ports, settings.db_name), ports, samples=samples)


def _run(local: LocalCluster, ports: Ports, *, samples: bool) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: local.stopping.set())
    try:
        if not local.start():
            return
        local.print_overview()
        if samples:
            load_samples(local.api, ports.receiver)
        local.watch()
    finally:
        announce_stop()
        local.children.stop(STOP_SECONDS)
