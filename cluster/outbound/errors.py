"""How a request can fail: as exceptions of httpx, as a kind, and as a sentence that users read in the attempt.

Failures that httpx does not distinguish but users must (a name that does not resolve, a certificate that does not verify,
an address that is denied) are subclasses of the nearest exception of httpx.
"""

from __future__ import annotations

import os
import re
import ssl

import aiohttp
import httpx
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

ERROR_KINDS = ("dns", "connect", "tls", "timeout", "stalled", "reset", "denied", "too_large", "protocol", "other")
_MAX_TEXT = 300
_QUOTED = re.compile(r"""[:'"`]| b['"]""")
_CUT = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)


class DnsFailed(httpx.ConnectError):
    """The host's name could not be resolved."""


class TlsFailed(httpx.ConnectError):
    """No TLS session: a certificate that does not verify, or no common version."""


class AddressDenied(httpx.ConnectError):
    """The host is, or resolves to, an address that connections are not allowed to."""


class ResponseTooLarge(httpx.ReadError):
    """The headers of the response exceed what is read."""


class ConnectionDenied(OSError):
    """A denied connection, as an `OSError`, which passes through aiohttp."""


_TABLE: tuple[tuple[type[Exception], str], ...] = (
    (AddressDenied, "denied"),
    (DnsFailed, "dns"),
    (TlsFailed, "tls"),
    (ResponseTooLarge, "too_large"),
    (httpx.TimeoutException, "timeout"),
    (httpx.ConnectError, "connect"),
    (httpx.NetworkError, "reset"),
    (httpx.ProtocolError, "protocol"),
)


def error_kind(exc: Exception) -> str:
    """The kind of an error, one of `ERROR_KINDS`."""
    return next((kind for cls, kind in _TABLE if isinstance(exc, cls)), "other")


def error_text(exc: Exception) -> str:
    """The sentence that is stored with the kind of an error, at most 300 characters."""
    text = str(exc) if isinstance(exc, httpx.HTTPError) else f"{type(exc).__name__}: {exc}"
    return text[:_MAX_TEXT]


def to_httpx_error(exc: Exception, request: httpx.Request) -> httpx.HTTPError:
    """An exception of aiohttp or of the system as one of httpx."""
    denial = _denial(exc)
    if denial is not None:
        return AddressDenied(str(denial), request=request)
    host = request.url.host
    match exc:
        case aiohttp.ClientConnectorDNSError():
            return DnsFailed(f"{host} cannot be resolved: {_why(exc.os_error)}", request=request)
        case aiohttp.ClientConnectorCertificateError():
            return TlsFailed(
                f"the certificate of {host} does not verify: {_why(exc.certificate_error)}", request=request
            )
        case aiohttp.ClientSSLError():
            return TlsFailed(f"no TLS session with {host}: {_why(exc.os_error)}", request=request)
        case aiohttp.ClientConnectorError() if request.url.scheme == "https" and isinstance(exc.os_error, _CUT):
            return TlsFailed(f"{host} closed the connection during the TLS handshake", request=request)
        case aiohttp.ClientConnectorError():
            return httpx.ConnectError(f"cannot connect to {host}: {_why(exc.os_error)}", request=request)
        case aiohttp.InvalidURL():
            return AddressDenied(f"cannot send to {host}: {exc.description or 'not a URL'}", request=request)
        case aiohttp.ClientPayloadError() if "not completed" in str(exc):
            return httpx.ReadError("the connection was closed in the middle of the response", request=request)
        case aiohttp.ServerDisconnectedError() | ConnectionResetError():
            return httpx.ReadError("the connection was closed before a response", request=request)
        case OSError():
            return httpx.ReadError(f"the connection failed: {_why(exc)}", request=request)
        case HttpProcessingError() if isinstance(exc.__cause__, LineTooLong) or "too many" in exc.message.lower():
            return ResponseTooLarge("the response headers are too large", request=request)
        case _:
            return httpx.RemoteProtocolError(f"the response is not HTTP: {_unquoted(exc)}", request=request)


def _denial(exc: Exception) -> ConnectionDenied | None:
    """The denial of the address guard that caused this exception; None if it has another cause."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ConnectionDenied):
            return cause
        cause = getattr(cause, "os_error", None) or cause.__cause__
    return None


def _why(exc: BaseException) -> str:
    """The text of the system, without the text that event loops add to it."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return exc.verify_message
    if isinstance(exc, ssl.SSLError):
        return (exc.reason or str(exc)).replace("_", " ").lower()
    if isinstance(exc, OSError) and exc.errno is not None and exc.errno > 0:
        return os.strerror(exc.errno).lower()
    return _first_line(exc)


def _unquoted(exc: BaseException) -> str:
    """The message of a parser without the bytes that it quotes, which may contain a secret that the target repeated."""
    return _QUOTED.split(_first_line(exc), maxsplit=1)[0].rstrip()


def _first_line(exc: BaseException) -> str:
    text = getattr(exc, "message", None) or getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
    return str(text).strip().partition("\n")[0][:200].rstrip(":,. ")
