"""What can go wrong with a request, in httpx's exceptions, and in words that say no more than a user needs.

What httpx does not tell apart but a user must (a name that does not resolve, a certificate that does not verify, an
address that is refused) is a subclass of its nearest exception, so that code that knows httpx alone still understands.
"""

from __future__ import annotations

import os
import re
import ssl

import aiohttp
import httpx
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

ERROR_KINDS = ("dns", "connect", "tls", "timeout", "stalled", "reset", "denied", "too_large", "protocol", "other")
_LONGEST = 300
_QUOTED = re.compile(r"""[:'"`]| b['"]""")
_CUT = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)


class DnsFailed(httpx.ConnectError):
    """The host's name could not be resolved."""


class TlsFailed(httpx.ConnectError):
    """No TLS session: a certificate that does not verify, or no common version."""


class AddressDenied(httpx.ConnectError):
    """The host is, or resolves to, an address that may not be connected to."""


class AnswerTooLarge(httpx.ReadError):
    """The answer's headers are larger than what is read."""


class ConnectionDenied(OSError):
    """Carries a refusal through aiohttp, which lets `OSError` pass."""


_TABLE: tuple[tuple[type[Exception], str], ...] = (
    (AddressDenied, "denied"),
    (DnsFailed, "dns"),
    (TlsFailed, "tls"),
    (AnswerTooLarge, "too_large"),
    (httpx.TimeoutException, "timeout"),
    (httpx.ConnectError, "connect"),
    (httpx.NetworkError, "reset"),
    (httpx.ProtocolError, "protocol"),
)


def error_kind(exc: Exception) -> str:
    """The kind of error, one of `KINDS`."""
    return next((kind for cls, kind in _TABLE if isinstance(exc, cls)), "other")


def error_text(exc: Exception) -> str:
    """What is kept of an exception beside its kind, at most 300 characters."""
    text = str(exc) if isinstance(exc, httpx.HTTPError) else f"{type(exc).__name__}: {exc}"
    return text[:_LONGEST]


def to_httpx_error(exc: Exception, request: httpx.Request) -> httpx.HTTPError:
    """An exception of aiohttp or the system as one of httpx's."""
    refusal = _refusal(exc)
    if refusal is not None:
        return AddressDenied(str(refusal), request=request)
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
            return TlsFailed(f"{host} closed the connection instead of agreeing on TLS", request=request)
        case aiohttp.ClientConnectorError():
            return httpx.ConnectError(f"cannot connect to {host}: {_why(exc.os_error)}", request=request)
        case aiohttp.InvalidURL():
            return AddressDenied(f"cannot send to {host}: {exc.description or 'not a URL'}", request=request)
        case aiohttp.ClientPayloadError() if "not completed" in str(exc):
            return httpx.ReadError("the connection was closed in the middle of the answer", request=request)
        case aiohttp.ServerDisconnectedError() | ConnectionResetError():
            return httpx.ReadError("the connection was closed before an answer", request=request)
        case OSError():
            return httpx.ReadError(f"the connection broke: {_why(exc)}", request=request)
        case HttpProcessingError() if isinstance(exc.__cause__, LineTooLong) or "too many" in exc.message.lower():
            return AnswerTooLarge("the answer's headers are too large", request=request)
        case _:
            return httpx.RemoteProtocolError(f"the answer is not HTTP: {_unquoted(exc)}", request=request)


def _refusal(exc: Exception) -> ConnectionDenied | None:
    """The guard's refusal, if one is behind it."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ConnectionDenied):
            return cause
        cause = getattr(cause, "os_error", None) or cause.__cause__
    return None


def _why(exc: BaseException) -> str:
    """The system's words, which event loops wrap in their own."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return exc.verify_message
    if isinstance(exc, ssl.SSLError):
        return (exc.reason or str(exc)).replace("_", " ").lower()
    if isinstance(exc, OSError) and exc.errno is not None and exc.errno > 0:
        return os.strerror(exc.errno).lower()
    return _first_line(exc)


def _unquoted(exc: BaseException) -> str:
    """What a parser complains of, without the bytes that it quotes: a target may have repeated a secret."""
    return _QUOTED.split(_first_line(exc), maxsplit=1)[0].rstrip()


def _first_line(exc: BaseException) -> str:
    text = getattr(exc, "message", None) or getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
    return str(text).strip().partition("\n")[0][:200].rstrip(":,. ")
