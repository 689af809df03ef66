"""One worker process: the REST API and the node on one event loop, started and drained by the ASGI lifespan."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from typing import TYPE_CHECKING, Any

import structlog

from api.app import create_app
from api.http.request_metrics import RequestMetrics
from cluster.node import Node, NodeSettings
from cluster.outbound.mail import MailServer
from cluster.outbound.sender import Sender
from cluster.outbound.transport import AiohttpTransport
from config import logs
from config.gunicorn import SHUTDOWN_SECONDS
from ops.server import header_timeout
from ops.server.tracing import start_tracing
from ops.server.worker_metrics import MetricsExchange

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from config.settings import Settings
    from ops.server.shared_slots import SharedSlots
    from ops.server.tracing import Tracing

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

log = structlog.get_logger()
PARENT_CHECK_SECONDS = 0.5


def mail_server(settings: Settings) -> MailServer | None:
    """Where alerts by mail are handed in, if the operator says so."""
    if not settings.smtp_host:
        return None
    return MailServer(
        settings.smtp_host,
        settings.smtp_from or "",
        settings.smtp_port,
        settings.smtp_security,
        settings.smtp_user,
        settings.smtp_password.get_secret_value() if settings.smtp_password else None,
    )


class Application:
    """The ASGI callable of one node."""

    def __init__(self, settings: Settings, mongodb_uri: str, shared_slots: SharedSlots | None = None) -> None:
        logs.configure_logging(settings.log_format)
        self._settings = settings
        self._tracing: Tracing | None = None
        self.node = Node(
            NodeSettings(
                mongodb_uri,
                settings.db_name,
                settings.timings,
                settings.max_in_flight,
                retention_days=settings.retention_days,
                paced_retention=settings.paced_retention,
                shutdown_seconds=SHUTDOWN_SECONDS,
                secret_keys=settings.secret_keys,
            ),
            Sender(AiohttpTransport(settings.allowed_networks), mail=mail_server(settings)),
            self._begin_trace,
        )
        structlog.contextvars.bind_contextvars(node=self.node.id)  # on every line of this process
        metering = RequestMetrics(self.node.clock.monotonic)
        self.metrics_exchange = MetricsExchange(self.node, metering, shared_slots)
        self._telling: asyncio.Task[None] | None = None
        self._api = create_app(self.node, settings, metering, self.metrics_exchange.worker_readings)
        self._draining: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection, or the lifespan."""
        if scope["type"] != "lifespan":
            await self._api(dict(scope), receive, send)
            return
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.node.start()
                self._telling = asyncio.get_running_loop().create_task(self.metrics_exchange.run())
                # What is loaded now stays: without this each full collection looks through all of it again, and the
                # requests of that instant leave 50 to 80 ms late.
                gc.collect()
                gc.freeze()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.shut_down()
                if self._telling is not None:
                    self._telling.cancel()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _begin_trace(self, node: str) -> Tracing | None:
        self._tracing = start_tracing(self._settings, node)
        return self._tracing

    def shut_down(self) -> asyncio.Task[None]:
        """Begin to drain the node, once; the task ends when it has stopped."""
        if self._draining is None:
            self._draining = asyncio.get_running_loop().create_task(self._drain())
        return self._draining

    async def _drain(self) -> None:
        await self.node.shutdown()
        if self._tracing is not None:
            await self._tracing.close()


def prepare_worker(worker: Any) -> None:
    """Gunicorn's `post_worker_init`: drain from the very signal on.

    gunicorn runs the lifespan's shutdown only after idle connections have gone, and on SIGINT not at all; the terminal
    sends Ctrl-C to every process of its group, so here it is the parent's business alone.
    """
    header_timeout.install()
    application: Application = worker.asgi
    application.metrics_exchange.slot = worker.slot

    def terminate() -> None:
        worker.handle_exit_signal()
        application.shut_down().add_done_callback(lambda _: worker.handle_quit_signal())

    async def follow_arbiter() -> None:
        while os.getppid() == worker.ppid:
            await asyncio.sleep(PARENT_CHECK_SECONDS)
        log.warning("parent_exited")
        terminate()  # gunicorn would see it too, but wait for idle connections before it drains

    worker.following = worker.loop.create_task(follow_arbiter())
    worker.loop.add_signal_handler(signal.SIGTERM, terminate)
    worker.loop.add_signal_handler(signal.SIGINT, lambda: None)
