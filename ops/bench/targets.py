"""Targets as they are in life, for `--case targets`: many hosts, TLS with kept and with new connections, slow answers."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ops.support.embedded_mongodb import free_port
from ops.support.parent_watch import terminate_with_parent, with_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NGINX = """
worker_processes 1; daemon off; pid {dir}/many.pid; error_log {dir}/many-error.log;
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_temp_path {dir}/many-body;
  ssl_certificate {dir}/tls.crt; ssl_certificate_key {dir}/tls.key;
  allow 127.0.0.0/8; deny all;
  server {{ listen {plain}; location / {{ return 200 "ok"; }} }}
  server {{ listen {kept} ssl; location / {{ return 200 "ok"; }} }}
  server {{ listen {fresh} ssl; keepalive_timeout 0; location / {{ return 200 "ok"; }} }}
}}
"""
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SLOW_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Targets:
    """The ports of these targets, and the certificate that nodes have to trust."""

    plain: int
    kept: int
    fresh: int
    slow: int
    certificate: str

    def urls(self) -> dict[str, Callable[[int], str]]:
        """By the name of the row: the address of the n-th job."""
        return {
            "as many hosts as jobs": lambda n: (
                f"http://127.{10 + n // 62_500}.{n // 250 % 250}.{n % 250 + 1}:{self.plain}/"
            ),
            "TLS, kept connections": lambda _: f"https://127.0.0.1:{self.kept}/",
            "TLS, a new connection for each": lambda _: f"https://127.0.0.1:{self.fresh}/",
            "answers after 200 ms": lambda _: f"http://127.0.0.1:{self.slow}/",
        }


@contextmanager
def running_targets(directory: Path) -> Iterator[Targets]:
    """An nginx with these servers, and a target that takes its time. Raises `FileNotFoundError` without nginx."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        raise FileNotFoundError("nginx")
    _make_certificate(directory)
    targets = Targets(free_port(), free_port(), free_port(), free_port(), str(directory / "tls.crt"))
    config = directory / "many.conf"
    config.write_text(NGINX.format(dir=directory, plain=targets.plain, kept=targets.kept, fresh=targets.fresh))
    environment = with_parent(dict(os.environ))
    processes = [
        subprocess.Popen(
            [nginx, "-c", str(config), "-p", str(directory)],
            env=environment,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=terminate_with_parent,  # noqa: PLW1509 - no other threads
        ),
        subprocess.Popen(
            [sys.executable, "-m", "ops.bench.targets", str(targets.slow)],
            env=environment,
            start_new_session=True,
            preexec_fn=terminate_with_parent,  # noqa: PLW1509 - the same
        ),
    ]
    try:
        yield targets
    finally:
        for process in processes:
            process.terminate()
            process.wait(10)


def _make_certificate(directory: Path) -> None:
    """A certificate for 127.0.0.1 that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "horae bench")])
    now = dt.datetime.now(dt.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=2))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "tls.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


class _Slow(asyncio.Protocol):
    """Answers each request after a while. The head of a request and its short body arrive together."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"POST "):
            asyncio.get_running_loop().call_later(SLOW_SECONDS, self._answer)

    def _answer(self) -> None:
        if isinstance(self._transport, asyncio.Transport) and not self._transport.is_closing():
            self._transport.write(ANSWER)


async def _serve_slowly(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Slow, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve_slowly(int(sys.argv[1])))
