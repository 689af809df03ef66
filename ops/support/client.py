"""The client of the REST API for commands: one request at a time, with the standard library only."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import click
import orjson

from cluster.core.documents import json_source
from cluster.core.documents.json_source import fragment, keep_bodies
from config.settings import load_settings
from ops.support.caller import user_agent
from ops.support.profiles import checked_address, checked_key, load_profiles

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from http.client import HTTPResponse

TIMEOUT_SECONDS = 30
IMPORT_SECONDS = 600
PAGE = 500


def job_path(job_id: str) -> str:
    """Where the API has a job."""
    return "/jobs/" + quote(job_id, safe="")


class Refused(click.ClickException):
    """The API refused a request. Exit status 1: the usage of the command was correct."""

    exit_code = 1

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status = status
        self.problem = problem
        lines = [f"{problem.get('title', 'refused')} ({status}): {problem.get('detail', '')}".rstrip(": ")]
        lines += [f"  {e['path'] or '(whole request)'}: {e['message']}" for e in problem.get("errors", [])]
        super().__init__("\n".join(lines))


@contextmanager
def faults_named(options: Mapping[str, str]) -> Iterator[None]:
    """Faults of fields are shown with the options of the command that gave them, in front: `{field: option}`."""
    try:
        yield
    except Refused as exc:
        faults = exc.problem.get("errors", [])
        named = {name: f"{option}, {name}" for name, option in options.items() if option != f"--{name}"}
        renamed = [{**f, "path": re.sub(r"^\w+", lambda m: named.get(m[0], m[0]), f["path"])} for f in faults]
        raise Refused(exc.status, {**exc.problem, "errors": renamed}) from exc


class Unreachable(click.ClickException):
    """No API answered. Exit status 1."""

    exit_code = 1


def is_passing(exc: click.ClickException) -> bool:
    """Whether the same request may succeed a moment later: no API answered, or it is busy or without its database."""
    passing = (HTTPStatus.TOO_MANY_REQUESTS, *(s for s in HTTPStatus if s >= HTTPStatus.INTERNAL_SERVER_ERROR))
    return isinstance(exc, Unreachable) or (isinstance(exc, Refused) and exc.status in passing)


class Client:
    """A client for one API. `url` is such as http://127.0.0.1:5000; without it, the profile in use says where it is.

    The key is taken from HORAE_API_KEY, else from the profile. A profile's key goes to the profile's address alone.
    `timeout_seconds`: for each request.
    """

    def __init__(self, url: str | None = None, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        profile = load_profiles().selected() if url is None else None
        given = os.environ.get("HORAE_API_KEY", "").strip()
        self._key = checked_key(given, "HORAE_API_KEY") if given else None if profile is None else profile.key()
        self._timeout = timeout_seconds
        if profile is not None:
            url = profile.url
        if url is None:
            settings = load_settings()
            host = "127.0.0.1" if settings.host in ("0.0.0.0", "::", "localhost") else settings.host  # noqa: S104
            url = f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"
        self.url = url.rstrip("/")
        self._parts = checked_address(self.url)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The JSON of the response, None for 204. Raises `Refused` or `Unreachable`."""
        data = None if body is None else orjson.dumps(body, default=fragment)
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        parameters = {k: v for k, v in (query or {}).items() if v is not None}
        target = path + ("?" + urlencode(parameters, doseq=True) if parameters else "")
        return self._send(method, target, data, {"Content-Type": kind, **(headers or {})}, self._timeout)

    def job(self, path: str) -> dict[str, Any]:
        """One job. A `body` of JSON is a `JsonText`, as in `jobs`."""
        content, job = self._exchange("GET", path, None, {}, self._timeout)
        return json_source.keep_body(content, job)

    def upload(self, path: str, file: IO[bytes], kind: str) -> Any:
        """POST a file without reading it into memory."""
        return self._send("POST", path, file, {"Content-Type": kind, "Transfer-Encoding": "chunked"}, IMPORT_SECONDS)

    def put(self, path: str, content: bytes, kind: str) -> Any:
        """PUT these bytes as they are."""
        return self._send("PUT", path, content, {"Content-Type": kind}, self._timeout)

    def jobs(self, **query: Any) -> Iterator[dict[str, Any]]:
        """All jobs that match, page by page. A `body` of JSON is a `JsonText`: digits and blanks as they are stored."""
        cursor = None
        while True:
            parameters = {k: v for k, v in query.items() if v is not None}
            parameters |= {"limit": PAGE} if cursor is None else {"limit": PAGE, "cursor": cursor}
            content, page = self._exchange("GET", "/jobs?" + urlencode(parameters, doseq=True), None, {}, self._timeout)
            yield from keep_bodies(content, page)
            cursor = page["nextCursor"]
            if cursor is None:
                return

    @contextmanager
    def stream(
        self, path: str, query: Mapping[str, Any], headers: Mapping[str, str], silence_seconds: float
    ) -> Iterator[HTTPResponse]:
        """A response that goes on; each read of it takes at most `silence_seconds`. Raises `Refused` or `Unreachable`."""
        target = path + ("?" + urlencode(query, doseq=True) if query else "")
        connection = self._connection(silence_seconds)
        try:
            try:
                connection.request("GET", self._parts.path + target, headers={**headers, **self._authorization()})
                response = connection.getresponse()
                content = response.read() if response.status >= 400 else b""
            except (OSError, HTTPException) as exc:
                raise self._unreachable(exc) from exc
            if response.status >= 400:
                raise Refused(response.status, _problem(content))
            yield response
        finally:
            connection.close()

    def _connection(self, timeout: float) -> HTTPConnection:
        make = HTTPSConnection if self._parts.scheme == "https" else HTTPConnection
        return make(self._parts.hostname or "", self._parts.port, timeout=timeout)

    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    def _unreachable(self, exc: Exception) -> Unreachable:
        return Unreachable(
            f"no API answers at {self.url} ({str(exc) or type(exc).__name__}): start one with `horae serve`, or set "
            "its address with --url, HORAE_URL or `horae config`"
        )

    def _send(self, method: str, target: str, body: Any, headers: dict[str, str], timeout: float) -> Any:
        return self._exchange(method, target, body, headers, timeout)[1]

    def _exchange(
        self, method: str, target: str, body: Any, headers: dict[str, str], timeout: float
    ) -> tuple[bytes, Any]:
        """The bytes of the response, and their JSON."""
        connection = self._connection(timeout)
        headers.setdefault("User-Agent", user_agent())
        headers |= self._authorization()
        try:
            connection.request(
                method, self._parts.path + target, body, headers, encode_chunked="Transfer-Encoding" in headers
            )
            response = connection.getresponse()
            status, content = response.status, response.read()
        except (OSError, HTTPException) as exc:
            raise self._unreachable(exc) from exc
        finally:
            connection.close()
        try:
            value = json_source.loads(content) if content else None
        except ValueError:
            value = {"title": "The response is not JSON; check that this is the address of Horae"}
            status = max(status, 500)
        if status >= 400:
            raise Refused(status, value if isinstance(value, dict) else {})
        return content, value


def _problem(content: bytes) -> dict[str, Any]:
    try:
        value = json_source.loads(content)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {}
