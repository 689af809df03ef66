"""`horae serve`: check settings and database, then run the nodes under gunicorn, one per worker process."""

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

from api.openapi.document import openapi_document
from cluster.core.errors import ConfigurationError
from cluster.store.mongo.schema import STANDALONE_PROBLEM, version_problem
from config.gunicorn import gunicorn_options
from config.settings import SECRET_KEY_BYTES, is_loopback
from ops.server import tracing
from ops.server.asgi import Application, prepare_worker
from ops.server.ended_workers import EndedWorkers
from ops.server.shared_slots import SharedSlots
from ops.support.embedded_mongodb import EmbeddedMongod

if TYPE_CHECKING:
    from config.settings import Settings

log = structlog.get_logger()

REACH_SECONDS = 3
FILE_LIMIT = 65_536
MAX_WORKERS = 64


def check_port(host: str, port: int) -> None:
    """Raises `ConfigurationError` if the address cannot be used."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(address)
    except OSError as exc:
        raise ConfigurationError(
            [
                f"cannot listen on {host}:{port} ({exc.strerror or exc}): choose another port, or stop the process that uses it"
            ]
        ) from exc


def check_database(uri: str) -> str | None:
    """None for a usable database; for an unavailable one, the reason in a sentence.

    An unavailable database does not prevent the start: machines may start in any order, and nodes wait for the database.
    Raises `ConfigurationError` for problems that waiting does not solve: an invalid URI, a refused login, an untrusted
    certificate, a standalone server.
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
        raise ConfigurationError([f"MONGODB_URI is not valid: {exc}"]) from exc
    except OperationFailure as exc:
        raise ConfigurationError([_refusal(exc)]) from exc
    except PyMongoError as exc:
        reason = str(exc).split(",")[0].partition(" (configured")[0][:200]
        if "certificate verify failed" in reason:
            problem = f"the certificate of MongoDB is not trusted: set tlsCAFile in MONGODB_URI ({reason})"
            raise ConfigurationError([problem]) from exc
        return (
            f"MongoDB is not reachable within {REACH_SECONDS} s: check MONGODB_URI (host, port, replicaSet, TLS), and "
            f"whether the replica set has a primary. The driver reports: {reason}"
        )
    return None


def _refusal(exc: OperationFailure) -> str:
    return f"MongoDB refused the request: {exc.details.get('errmsg') if exc.details else exc}"


def warn_if_unencrypted(uri: str) -> bool:
    """Log `database_connection_unencrypted` and return True if the database is on another machine and TLS is off.

    Passwords are not sent in the clear even then (SCRAM), but jobs, their headers and bodies are.
    """
    try:
        parsed = parse_uri(uri, connect_timeout=2)
    except PyMongoError:  # reported when connecting
        return False
    tls = parsed["options"].get("tls", parsed["options"].get("ssl", False))
    others = [host for host, _ in parsed["nodelist"] if not host.endswith(".sock") and not is_loopback(host)]
    if tls or not others:
        return False
    log.warning("database_connection_unencrypted", hosts=others, advice="add tls=true to MONGODB_URI")
    return True


def check_schema_and_keys(uri: str, settings: Settings) -> None:
    """Check schema and API keys. If the database becomes unavailable, the nodes wait. Raises `ConfigurationError`."""
    try:
        check_schema(uri, settings.db_name)
        check_api_keys(settings, uri)
    except OperationFailure as exc:
        raise ConfigurationError([_refusal(exc)]) from exc
    except PyMongoError as exc:
        log.warning("database_unavailable_at_start", error=str(exc)[:200])


def check_schema(uri: str, db_name: str) -> None:
    """Raises `ConfigurationError` if the database has the schema of another release."""
    with MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=REACH_SECONDS * 1000) as client:
        meta = client[db_name]["meta"].find_one({"_id": "schema"})
    problem = version_problem(None if meta is None else int(meta["version"]))
    if problem is not None:
        raise ConfigurationError([problem])


def raise_file_limit() -> None:
    """Raise the limit of open files as far as allowed: every connection to a target needs one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = FILE_LIMIT if hard == resource.RLIM_INFINITY else min(FILE_LIMIT, hard)
    if soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def check_api_keys(settings: Settings, uri: str) -> None:
    """Raises `ConfigurationError` if other machines can reach this node and there is no API key."""
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
            "(name:key:scope), run `horae keys create`, or set HOST to 127.0.0.1"
        )
        raise ConfigurationError([problem])


def embedded_secret_key(directory: Path) -> bytes:
    """The key that encrypts the secrets of the embedded database: created once, readable only by its owner."""
    path = directory / "secret-key"
    with suppress(FileExistsError):
        directory.mkdir(parents=True, exist_ok=True)
        handle, fresh = tempfile.mkstemp(dir=directory, prefix="secret-key.")  # mode 0600
        with os.fdopen(handle, "wb") as file:
            file.write(base64.b64encode(os.urandom(SECRET_KEY_BYTES)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)  # atomic, and never replaces an existing key
        finally:
            Path(fresh).unlink()
    key = base64.b64decode(path.read_bytes().strip())
    if len(key) != SECRET_KEY_BYTES:
        raise ConfigurationError(
            [f"{path} does not contain a key: restore the key of this database, or remove the file"]
        )
    return key


class _Arbiter(Arbiter):  # type: ignore[misc] # gunicorn is not typed
    """The first Ctrl-C is a clean shutdown, as SIGTERM is; a second one ends at once."""

    def handle_int(self) -> NoReturn:
        raise StopIteration


class _Gunicorn(BaseApplication):  # type: ignore[misc] # gunicorn is not typed
    def __init__(self, settings: Settings, uri: str) -> None:
        self._settings = settings
        self._uri = uri
        self._shared_slots = SharedSlots(MAX_WORKERS)
        self._ended_workers = EndedWorkers(MAX_WORKERS)
        self._slot_by_worker: dict[int, int | None] = {}
        """The slots of the workers, by gunicorn's number of the worker (`age`). Each worker inherits a copy."""
        super().__init__()

    def load_config(self) -> None:
        for name, value in gunicorn_options(self._settings).items():
            self.cfg.set(name, value)
        self.cfg.set("post_worker_init", self._prepare_worker)
        # Both run in the master process, which knows the free slots.
        self.cfg.set("pre_fork", self._give_slot)
        self.cfg.set("child_exit", self._take_slot)

    def _give_slot(self, arbiter: Any, worker: Any) -> None:
        used = {self._slot_by_worker.get(w.age) for w in arbiter.WORKERS.values()}
        self._slot_by_worker[worker.age] = next((n for n in range(MAX_WORKERS) if n not in used), None)

    def _take_slot(self, _arbiter: Any, worker: Any) -> None:
        slot = self._slot_by_worker.pop(worker.age, None)
        if slot is not None:
            self._shared_slots.clear(slot)
            self._ended_workers.note(slot, worker.pid)

    def _prepare_worker(self, worker: Any) -> None:
        """Runs in the worker."""
        prepare_worker(worker, self._slot_by_worker.get(worker.age))

    def load(self) -> Application:
        """Runs in each worker after the fork, so that no client or event loop is shared between processes.

        Modules are shared: the master process imports them once, which makes workers small, and ready sooner.
        """
        return Application(self._settings, self._uri, self._shared_slots, self._ended_workers)

    def run(self) -> None:
        _Arbiter(self).run()


def serve(settings: Settings) -> None:
    """Run until stopped. Raises `ConfigurationError`; otherwise ends the process."""
    check_port(settings.host, settings.port)
    if settings.metrics_port is not None:
        check_port(settings.host, settings.metrics_port)
    tracing.check_tracing(settings)
    raise_file_limit()
    embedded: EmbeddedMongod | None = None
    unavailable: str | None = None
    if settings.uri is None:
        embedded = EmbeddedMongod(Path(settings.data_dir))
        uri = embedded.acquire().uri
        embedded.watch()
        if not settings.secret_keys:
            settings = settings.model_copy(update={"secret_keys": (embedded_secret_key(Path(settings.data_dir)),)})
    else:
        uri = settings.uri
        unavailable = check_database(uri)
        warn_if_unencrypted(uri)
    openapi_document()  # as with modules: workers find it made
    master = os.getpid()
    try:
        if unavailable is None:
            check_schema_and_keys(uri, settings)
        else:
            # It is safe to open the port, so that /readyz can say what is missing: nodes check the schema before they
            # start, and as long as no key is known the API refuses other machines (api/http/auth.py).
            log.warning("database_unavailable_at_start", error=unavailable)
        _Gunicorn(settings, uri).run()
    finally:
        # Workers are forks of this process and also leave through here.
        if embedded is not None and os.getpid() == master:
            embedded.release()
