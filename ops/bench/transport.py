"""The CPU cost of one POST: the sender of Horae, the smallest client that can be written, and others for comparison.

    python -m ops.bench.transport [--requests 20000] [--in-flight 64] [--rounds 5]

An nginx on loopback answers (it must be installed), so that only the CPU time of this process is measured. The senders
take turns in each round, and the medians of the rounds are printed, so that noise of the machine affects all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import ipaddress
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, cast

import aiohttp
import httptools
import httpx
import uvloop

from cluster.core.execution.model import Execution, Job, Target
from cluster.core.lifecycle import JobState
from cluster.outbound.headers import delivery_headers
from cluster.outbound.sender import Sender
from cluster.outbound.transport import HttpTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from cluster.outbound.messages import PreparedRequest

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
NGINX = """
worker_processes 1;
daemon off;
pid {home}/pid;
error_log {home}/errors crit;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f;
  uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
  server {{ listen 127.0.0.1:{port}; location / {{ {answer} }} }}
}}
"""
ANSWERS = {"204": "return 204;", "200": "default_type application/json; return 200 '{\"accepted\": true}';"}


@dataclass(frozen=True, slots=True)
class Measurement:
    """How much is measured."""

    requests: int
    in_flight: int
    rounds: int


@contextlib.contextmanager
def nginx(answer: str) -> Iterator[int]:
    """An nginx on a free port of loopback that gives one answer; yields the port."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        sys.exit("nginx is not installed: apt-get install nginx-light")
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)  # its worker runs as another user when this runs as root
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        conf = Path(home, "conf")
        conf.write_text(NGINX.format(home=home, port=port, answer=ANSWERS[answer]), encoding="utf-8")
        process = subprocess.Popen([program, "-c", str(conf), "-p", home, "-e", f"{home}/errors"])
        try:
            for _ in range(200):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.02)
            yield port
        finally:
            process.terminate()
            process.wait(10)


def job_for(url: str) -> Job:
    """A typical job: a small JSON body, one own header, no signature."""
    target = Target(url, (("Authorization", "Bearer abcdefgh"),), b'{"invoice": 4711}', "application/json", 30.0)
    return Job(id="bench", state=JobState.ACTIVE, schedule_version="v", active_from_ms=0, lane=0, target=target)


def execution(n: int) -> Execution:
    """The n-th occurrence of the job."""
    due = 1_800_000_000_000 + n * 1000
    return Execution(
        id=f"bench:{due}", job_id="bench", due_ms=due, send_ms=due, schedule_version="v", batch="batch", lane=0
    )


def delivery_headers_of(job: Job, n: int) -> list[tuple[str, str]]:
    """The headers of the n-th delivery."""
    return delivery_headers(execution(n), job, 1, 1, TRACE, 0)


class Floor(asyncio.Protocol):
    """The smallest client: writes bytes that were made before, and reads the status of the answer. It trusts its target."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.WriteTransport | None = None
        self._answer: asyncio.Future[int] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._answer.set_result(self._parser.get_status_code())

    def post(self, wire: bytes) -> asyncio.Future[int]:
        """Write one request."""
        self._answer = self._loop.create_future()
        cast("asyncio.WriteTransport", self._transport).write(wire)
        return self._answer

    def close(self) -> None:
        """Close the connection."""
        cast("asyncio.WriteTransport", self._transport).abort()


@contextlib.asynccontextmanager
async def floor(sender: Sender, job: Job, in_flight: int) -> AsyncIterator[Callable[[int], Awaitable[int | None]]]:
    """The smallest client, with as many connections as requests are in flight and the bytes of one request of Horae."""
    request = sender.prepare(job.target, delivery_headers_of(job, 1))
    wire = cast("PreparedRequest", request).wire or b""
    loop = asyncio.get_running_loop()
    host, port = request.url.host, request.url.port or 80
    free = [(await loop.create_connection(Floor, host, port))[1] for _ in range(in_flight)]
    every = list(free)

    async def smallest(_: int) -> int | None:
        connection = free.pop()
        status = await connection.post(wire)
        free.append(connection)
        return status

    try:
        yield smallest
    finally:
        for connection in every:
            connection.close()


@contextlib.asynccontextmanager
async def senders(url: str, in_flight: int) -> AsyncIterator[dict[str, Callable[[int], Awaitable[int | None]]]]:
    """Each way to send the n-th request; every one returns the status."""
    job = job_for(url)
    ours = HttpTransport(LOOPBACK)
    sender = Sender(ours)
    limits = httpx.Limits(max_connections=max(in_flight, 100), max_keepalive_connections=max(in_flight, 100))
    stock = httpx.AsyncClient(trust_env=False, limits=limits, timeout=30)
    below = httpx.AsyncHTTPTransport(trust_env=False, limits=limits)
    bare = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar())

    async def whole(n: int) -> int | None:
        return (await sender.send(sender.prepare(job.target, delivery_headers_of(job, n)))).status

    async def session(n: int) -> int | None:
        async with bare.post(url, data=job.target.body, headers=delivery_headers_of(job, n)) as response:
            await response.read()
            return response.status

    async def client(n: int) -> int | None:
        return (await stock.post(url, content=job.target.body, headers=delivery_headers_of(job, n))).status_code

    async def transport(n: int) -> int | None:
        request = httpx.Request("POST", url, content=job.target.body, headers=delivery_headers_of(job, n))
        request.extensions["timeout"] = {"connect": 10, "read": 30, "write": 30, "pool": 30}
        response = await below.handle_async_request(request)
        await response.aread()
        await response.aclose()
        return response.status_code

    try:
        async with floor(sender, job, in_flight) as smallest:
            yield {
                "the floor: smallest client": smallest,
                "Horae, headers to reply": whole,
                "bare aiohttp.ClientSession": session,
                "stock httpx transport": transport,
                "stock httpx.AsyncClient": client,
            }
    finally:
        await sender.aclose()
        await bare.close()
        await stock.aclose()
        await below.aclose()


async def cost(send: Callable[[int], Awaitable[int | None]], requests: int, in_flight: int) -> tuple[float, float]:
    """Microseconds of CPU for one request, and requests a second."""
    numbers = iter(range(requests))

    async def one_after_another() -> None:
        for n in numbers:
            status = await send(n)
            if status not in (200, 204):
                sys.exit(f"a request failed: {status}")

    began, cpu = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(one_after_another())
    return (time.process_time() - cpu) / requests * 1e6, requests / (time.perf_counter() - began)


def preparing(url: str, times: int = 20_000) -> tuple[float, float]:
    """Microseconds of CPU for building the headers, and for `Sender.prepare`, without sending."""
    job = job_for(url)
    sender = Sender(HttpTransport(LOOPBACK))
    executions = [execution(n) for n in range(times)]
    cpu = time.process_time()
    headers = [delivery_headers(e, job, 1, 1, TRACE, 0) for e in executions]
    first = time.process_time()
    for each in headers:
        sender.prepare(job.target, each)
    return (first - cpu) / times * 1e6, (time.process_time() - first) / times * 1e6


async def measure(url: str, plan: Measurement) -> dict[str, list[tuple[float, float]]]:
    """Every way, round by round."""
    measured: dict[str, list[tuple[float, float]]] = {}
    async with senders(url, plan.in_flight) as all_ways:
        for send in all_ways.values():
            await cost(send, plan.in_flight * 4, plan.in_flight)
        for _ in range(plan.rounds):
            for name, send in all_ways.items():
                gc.collect()
                requests = max(500, plan.requests // 10) if name.startswith("stock") else plan.requests
                measured.setdefault(name, []).append(await cost(send, requests, plan.in_flight))
    return measured


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="CPU time per POST of this process, by sender")
    parser.add_argument("--requests", type=int, default=10_000, help="requests per round and sender (httpx: a tenth)")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    plan = Measurement(args.requests, args.in_flight, args.rounds)
    print(f"Python {platform.python_version()}, uvloop {version('uvloop')}, httpx {httpx.__version__}; ", end="")
    print(f"{plan.in_flight} in flight, medians of {plan.rounds} rounds")
    for answer in ANSWERS:
        with nginx(answer) as port:
            url = f"http://127.0.0.1:{port}/hook"
            print(f"\nnginx answers {answer}")
            for name, rounds in uvloop.run(measure(url, plan)).items():
                us, rate = (statistics.median(column) for column in zip(*rounds, strict=True))
                print(f"  {name:28} {us:7.0f} us CPU {rate:7.0f} a second")
    headers, prepare = preparing("http://127.0.0.1:1/hook")
    print(f"\n  of this, before the send time: headers {headers:.1f} us, Sender.prepare {prepare:.1f} us")


if __name__ == "__main__":
    main()
