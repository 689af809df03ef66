"""`horae serve`: check everything that can be checked, then run N nodes under gunicorn."""

from __future__ import annotations

import base64
import os
import resource
import socket
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import structlog
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from pymongo import MongoClient
from pymongo.errors import ConfigurationError as UriError
from pymongo.errors import InvalidURI, OperationFailure, PyMongoError
from pymongo.uri_parser import parse_uri

from cluster.core.errors import ConfigurationError
from cluster.store.mongo.schema import STANDALONE_PROBLEM, version_problem
from config.gunicorn import gunicorn_options
from config.settings import SECRET_KEY_BYTES, is_loopback
from ops.server import tracing
from ops.server.shared_slots import SharedSlots
from ops.support.embedded_mongodb import EmbeddedMongod

if TYPE_CHECKING:
    from config.settings import Settings
    from ops.server.asgi import Application

log = structlog.get_logger()

REACH_SECONDS = 3
FILE_LIMIT = 65_536
MAX_WORKERS = 64


def check_port(host: str, port: int) -> None:
    """Raises `ConfigurationError` if nothing can listen there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(address)
    except OSError as exc:
        raise ConfigurationError(
            [f"cannot listen on {host}:{port} ({exc.strerror or exc}): choose another --port, or stop what uses it"]
        ) from exc


def check_database(uri: str) -> str | None:
    """None for a database that fits, a sentence for one that is away.

    Away is nothing to end for: machines that start together start in any order, and nodes wait by themselves. Raises
    `ConfigurationError` for what waiting does not mend: a URI that is none, a refusal, a false certificate, a standalone.
    """
    try:
        with MongoClient[dict[str, Any]](
            uri, serverSelectionTimeoutMS=REACH_SECONDS * 1000, connectTimeoutMS=2000, appname="horae/start"
        ) as client:
            hello = client.admin.command("hello")
            if "setName" not in hello:
                raise ConfigurationError([STANDALONE_PROBLEM])
            client.get_default_database("horae").command("ping")
    except (InvalidURI, UriError, ValueError) as exc:
        raise ConfigurationError([f"MONGODB_URI cannot be read: {exc}"]) from exc
    except OperationFailure as exc:
        raise ConfigurationError([_refusal(exc)]) from exc
    except PyMongoError as exc:
        why = str(exc).split(",")[0].partition(" (configured")[0][:200]
        if "certificate verify failed" in why:
            raise ConfigurationError([f"MongoDB shows a certificate that is not trusted: {why}"]) from exc
        return (
            f"not reachable within {REACH_SECONDS} s: check MONGODB_URI (host, port, replicaSet, TLS) and that a primary "
            f"is up. The driver says: {why}"
        )
    return None


def _refusal(exc: OperationFailure) -> str:
    return f"MongoDB refused us: {exc.details.get('errmsg') if exc.details else exc}"


def warn_if_unencrypted(uri: str) -> bool:
    """Log `database_connection_unencrypted` and return True if the database is on another machine and TLS is off.

    Passwords are not sent in the clear even then (SCRAM), but jobs, their headers and bodies are.
    """
    try:
        parsed = parse_uri(uri, connect_timeout=2)
    except PyMongoError:  # what is wrong with it is said where we connect
        return False
    tls = parsed["options"].get("tls", parsed["options"].get("ssl", False))
    others = [host for host, _ in parsed["nodelist"] if not host.endswith(".sock") and not is_loopback(host)]
    if tls or not others:
        return False
    log.warning("database_connection_unencrypted", hosts=others, advice="add tls=true to MONGODB_URI")
    return True


def check_schema_and_keys(uri: str, settings: Settings) -> None:
    """Schema and keys. A database that goes away meanwhile is waited for by the nodes. Raises `ConfigurationError`."""
    try:
        check_schema(uri, settings.db_name)
        check_api_keys(settings, uri)
    except OperationFailure as exc:
        raise ConfigurationError([_refusal(exc)]) from exc
    except PyMongoError as exc:
        log.warning("database_unavailable_at_start", error=str(exc)[:200])


def check_schema(uri: str, db_name: str) -> None:
    """Raises `ConfigurationError` for a database that another release's schema was written to."""
    with MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=REACH_SECONDS * 1000) as client:
        meta = client[db_name]["meta"].find_one({"_id": "schema"})
    problem = version_problem(None if meta is None else int(meta["version"]))
    if problem is not None:
        raise ConfigurationError([problem])


def raise_file_limit() -> None:
    """Every connection to a target is a file: take what the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILE_LIMIT if hard == resource.RLIM_INFINITY else min(FILE_LIMIT, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def check_api_keys(settings: Settings, uri: str) -> None:
    """Raises `ConfigurationError` for a node that other machines reach and that would ask nobody for a key."""
    if not settings.keyless_and_reachable:
        return
    now = datetime.now(UTC)
    with MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=REACH_SECONDS * 1000, tz_aware=True) as client:
        live = client[settings.db_name]["api_keys"].find_one(
            {"revoked_at": None, "$or": [{"expires_at": None}, {"expires_at": {"$gt": now}}]}
        )
    if live is None:
        problem = (
            f"HOST {settings.host} is reachable from other machines and there are no API keys: set HORAE_API_KEYS "
            "(name:key:scope), make one with `horae keys create`, or listen on 127.0.0.1"
        )
        raise ConfigurationError([problem])


def embedded_secret_key(directory: Path) -> bytes:
    """The key that an embedded database's secrets are encrypted with: made once, beside it, for its owner alone."""
    path = directory / "secret-key"
    with suppress(FileExistsError):
        directory.mkdir(parents=True, exist_ok=True)
        handle, fresh = tempfile.mkstemp(dir=directory, prefix="secret-key.")  # mode 0600
        with os.fdopen(handle, "wb") as file:
            file.write(base64.b64encode(os.urandom(SECRET_KEY_BYTES)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)  # whole or not at all, and never over an older one
        finally:
            Path(fresh).unlink()
    key = base64.b64decode(path.read_bytes().strip())
    if len(key) != SECRET_KEY_BYTES:
        raise ConfigurationError([f"{path} is no key: put back the one the database was used with, or remove it"])
    return key


class _Arbiter(Arbiter):  # type: ignore[misc] # gunicorn is not typed
    """A first Ctrl-C is a request to end cleanly, as SIGTERM is; a second one means at once."""

    def handle_int(self) -> NoReturn:
        raise StopIteration


class _Gunicorn(BaseApplication):  # type: ignore[misc] # gunicorn is not typed
    def __init__(self, settings: Settings, uri: str) -> None:
        self._settings = settings
        self._uri = uri
        self._board = SharedSlots(MAX_WORKERS)
        super().__init__()

    def load_config(self) -> None:
        from ops.server.asgi import prepare_worker

        for name, value in gunicorn_options(self._settings).items():
            self.cfg.set(name, value)
        self.cfg.set("post_worker_init", prepare_worker)
        # Both run in the master, which alone knows which slots are free.
        self.cfg.set("pre_fork", self._give_slot)
        self.cfg.set("child_exit", self._take_slot)

    @staticmethod
    def _give_slot(arbiter: Any, worker: Any) -> None:
        used = {w.slot for w in arbiter.WORKERS.values()}
        worker.slot = next((n for n in range(MAX_WORKERS) if n not in used), None)

    def _take_slot(self, _arbiter: Any, worker: Any) -> None:
        if worker.slot is not None:
            self._board.clear(worker.slot)

    def load(self) -> Application:
        """Runs in each worker, after the fork: clients and loops are never shared between processes."""
        from ops.server.asgi import Application

        return Application(self._settings, self._uri, self._board)

    def run(self) -> None:
        _Arbiter(self).run()


def serve(settings: Settings) -> None:
    """Run until stopped. Raises `ConfigurationError`; ends the process otherwise."""
    check_port(settings.host, settings.port)
    tracing.check_tracing(settings)
    raise_file_limit()
    embedded: EmbeddedMongod | None = None
    away: str | None = None
    if settings.uri is None:
        embedded = EmbeddedMongod(Path(settings.data_dir))
        uri = embedded.acquire().uri
        embedded.watch()
        if not settings.secret_keys:
            settings = settings.model_copy(update={"secret_keys": (embedded_secret_key(Path(settings.data_dir)),)})
    else:
        uri = settings.uri
        away = check_database(uri)
        warn_if_unencrypted(uri)
    master = os.getpid()
    try:
        if away is None:
            check_schema_and_keys(uri, settings)
        else:
            # Nodes look at the schema themselves before they begin, and without a key that is known the API serves
            # nobody from another machine (api/http/auth.py): so the port may open, for /readyz to say what is missing.
            log.warning("database_unavailable_at_start", error=away)
        _Gunicorn(settings, uri).run()
    finally:
        # A worker leaves through here too, being a fork of this process.
        if embedded is not None and os.getpid() == master:
            embedded.release()
