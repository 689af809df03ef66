"""How a request can fail: as exceptions of httpx, as a kind, and as a sentence that users read in the attempt.

Failures that httpx does not distinguish but users must (a name that does not resolve, a certificate that does not verify,
an address that is denied) are subclasses of the nearest exception of httpx. An error of a response that broke off after its
status line has that status.
"""

from __future__ import annotations

import os
import ssl

import httpx

ERROR_KINDS = ("dns", "connect", "tls", "timeout", "stalled", "reset", "denied", "too_large", "protocol", "other")
_MAX_TEXT = 300


class DnsFailed(httpx.ConnectError):
    """The host's name could not be resolved."""


class TlsFailed(httpx.ConnectError):
    """No TLS session: a certificate that does not verify, or no common version."""


class AddressDenied(httpx.ConnectError):
    """The host is, or resolves to, an address that connections are not allowed to."""


class _AfterStatus(httpx.TransportError):
    """`status` is set if the response broke off after its status line."""

    def __init__(self, message: str, *, request: httpx.Request | None = None, status: int | None = None) -> None:
        super().__init__(message, request=request)
        self.status = status


class ConnectionCut(_AfterStatus, httpx.ReadError):
    """The connection ended before the response did."""


class ResponseTooLarge(_AfterStatus, httpx.ReadError):
    """The headers of the response exceed what is read."""


class NotHttp(_AfterStatus, httpx.RemoteProtocolError):
    """The response is not HTTP, or has too many interim responses."""


class ResponseTimeout(_AfterStatus, httpx.ReadTimeout):
    """The response was not complete in time."""


class NotSent(Exception):
    """`confirm` said no when the connection was there: nothing of the request was written."""


class ConnectionDenied(OSError):
    """The address guard denied a connection."""


class NameNotFound(OSError):
    """The name has no address: a definite answer of a name server."""


class NameServersFailed(OSError):
    """The name servers gave no answer, or not a definite one."""


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


def error_status(exc: Exception) -> int | None:
    """The status of the response that broke off; None if no status line was received."""
    return exc.status if isinstance(exc, _AfterStatus) else None


def connect_error(exc: Exception, host: str) -> httpx.ConnectError:
    """A failure to connect to `host` as an exception of httpx."""
    match exc:
        case ConnectionDenied():
            return AddressDenied(str(exc))
        case NameNotFound() | NameServersFailed():
            return DnsFailed(f"{host} cannot be resolved: {exc}")
        case ssl.SSLCertVerificationError():
            return TlsFailed(f"the certificate of {host} does not verify: {exc.verify_message}")
        case ssl.SSLError():
            return TlsFailed(f"no TLS session with {host}: {system_text(exc)}")
        case _:
            return httpx.ConnectError(f"cannot connect to {host}: {system_text(exc)}")


def system_text(exc: BaseException) -> str:
    """The text of the system, without the text that event loops add to it."""
    if isinstance(exc, ssl.SSLError):
        return (exc.reason or str(exc)).replace("_", " ").lower()
    if isinstance(exc, OSError) and exc.errno is not None and exc.errno > 0:
        return os.strerror(exc.errno).lower()
    text = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
    return str(text).strip().partition("\n")[0][:200].rstrip(":,. ")
