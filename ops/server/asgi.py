"""One worker process: the REST API and the node on one event loop, started and shut down by the ASGI lifespan."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from typing import TYPE_CHECKING, Any

import structlog

from api.app import create_app, document_limits
from api.http.request_metrics import RequestMetrics
from cluster.live_events import ViewerLimits
from cluster.node import Node, NodeSettings
from cluster.outbound.mail import MailServer
from cluster.outbound.sender import Sender
from cluster.outbound.transport import HttpTransport
from cluster.usecases.verifications import Verifications
from config import logs
from config.gunicorn import SHUTDOWN_SECONDS
from ops.server import guarded_protocol
from ops.server.connection_limits import ConnectionLimits
from ops.server.tracing import start_tracing
from ops.server.verify_process import VerifyProcess
from ops.server.worker_metrics import MetricsExchange

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from config.settings import Settings
    from ops.server.ended_workers import EndedWorkers
    from ops.server.shared_slots import SharedSlots
    from ops.server.tracing import Tracing

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

log = structlog.get_logger()
PARENT_CHECK_SECONDS = 1.0
GC_THRESHOLDS = (5_000, 20, 20)
"""A node makes some 50 objects for each execution, which live for a second. With the thresholds of Python, 700, 10 and 10,
those that live are looked at again and again, all of them every few seconds. Cycles are rare, and small. A first look at
5,000 takes some ms, and at more of them would delay what is due in that moment.
"""


def mail_server(settings: Settings) -> MailServer | None:
    """The mail server for alerts by email; None if it is not configured."""
    if not settings.smtp_host:
        return None
    return MailServer(
        host=settings.smtp_host,
        sender=settings.smtp_from or "",
        port=settings.smtp_port,
        security=settings.smtp_security,
        user=settings.smtp_user,
        password=settings.smtp_password.get_secret_value() if settings.smtp_password else None,
        domains=settings.allowed_mail_domains,
    )


class Application:
    """The ASGI callable of one node."""

    def __init__(
        self,
        settings: Settings,
        mongodb_uri: str,
        shared_slots: SharedSlots | None = None,
        ended_workers: EndedWorkers | None = None,
    ) -> None:
        logs.configure_logging(settings.log_format)
        self._settings = settings
        self._tracing: Tracing | None = None
        self.node = Node(
            NodeSettings(
                mongodb_uri=mongodb_uri,
                db_name=settings.db_name,
                timings=settings.timings,
                slots=settings.max_in_flight,
                retention_days=settings.retention_days,
                audit_retention_days=settings.audit_retention_days,
                completed_retention_days=settings.completed_retention_days,
                paced_retention=settings.paced_retention,
                shutdown_seconds=SHUTDOWN_SECONDS,
                secret_keys=settings.secret_keys,
                document_limits=document_limits(settings),
                viewers=ViewerLimits(*settings.viewer_limits),
            ),
            Sender(HttpTransport(settings.allowed_networks), mail=mail_server(settings)),
            self._begin_trace,
            None if ended_workers is None else ended_workers.reader(),
        )
        structlog.contextvars.bind_contextvars(node=self.node.id)  # on every line of this process
        metering = RequestMetrics(self.node.clock.monotonic)
        self._ended_workers = ended_workers
        self.metrics_exchange = MetricsExchange(self.node, metering, shared_slots)
        self._publishing: asyncio.Task[None] | None = None
        verify = VerifyProcess(settings, mongodb_uri)
        self._verifications = Verifications(self.node.db, self.node.clock, self.node.id, verify.run)
        self._api = create_app(
            self.node, settings, metering, self.metrics_exchange.worker_readings, self._verifications
        )
        self.connection_limits = ConnectionLimits(
            settings.max_connections, settings.max_connections_per_address, settings.trusted_proxies
        )
        self._shutting_down: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection, or the lifespan."""
        if scope["type"] != "lifespan":
            await self._api(dict(scope), receive, send)
            return
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.node.start()
                self._publishing = asyncio.get_running_loop().create_task(self.metrics_exchange.run())
                # The objects loaded so far are permanent. Without freezing, each full collection scans them again, which
                # makes the requests due at that moment 50 to 80 ms late.
                gc.collect()
                gc.freeze()
                gc.set_threshold(*GC_THRESHOLDS)
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.shut_down()
                if self._publishing is not None:
                    self._publishing.cancel()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def use_slot(self, slot: int | None) -> None:
        """The slot of this worker in the memory that it shares with its parent and its siblings."""
        self.metrics_exchange.use_slot(slot)
        if self._ended_workers is not None and slot is not None:
            self._ended_workers.introduce(slot, os.getpid(), self.node.id)

    def _begin_trace(self, node: str) -> Tracing | None:
        self._tracing = start_tracing(self._settings, node)
        return self._tracing

    def shut_down(self) -> asyncio.Task[None]:
        """Begin the shutdown of the node, once. The returned task ends when the node has stopped."""
        if self._shutting_down is None:
            self._shutting_down = asyncio.get_running_loop().create_task(self._stop_node())
        return self._shutting_down

    def follow_parent(self, loop: asyncio.AbstractEventLoop, parent: int, terminate: Callable[[], None]) -> None:
        """Call `terminate` when the parent process is gone. gunicorn notices too, but waits for idle connections."""

        async def follow() -> None:
            while os.getppid() == parent:
                await asyncio.sleep(PARENT_CHECK_SECONDS)
            log.warning("parent_exited")
            terminate()

        self._following = loop.create_task(follow())

    async def _stop_node(self) -> None:
        await self._verifications.close()
        await self.node.shutdown()
        if self._tracing is not None:
            await self._tracing.close()


def prepare_worker(worker: Any, slot: int | None) -> None:
    """Gunicorn's `post_worker_init`: publish metrics in `slot`, and begin the shutdown of the node right at the signal.

    gunicorn runs the lifespan's shutdown only after idle connections have closed, and not at all on SIGINT. A terminal
    sends Ctrl-C to every process of the group, so workers ignore SIGINT and wait for SIGTERM from their parent.
    """
    application: Application = worker.asgi
    guarded_protocol.install(application.connection_limits)
    application.use_slot(slot)

    def terminate() -> None:
        worker.handle_exit_signal()
        application.shut_down().add_done_callback(lambda _: worker.handle_quit_signal())

    application.follow_parent(worker.loop, worker.ppid, terminate)
    worker.loop.add_signal_handler(signal.SIGTERM, terminate)
    worker.loop.add_signal_handler(signal.SIGINT, lambda: None)
