"""Options of gunicorn: its ASGI worker on uvloop, one worker per node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from config.settings import Settings

SHUTDOWN_SECONDS = 9
GRACEFUL_SECONDS = 12


def gunicorn_options(settings: Settings) -> dict[str, Any]:
    """The options of one `horae serve`."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    ports = [settings.port] if settings.metrics_port is None else [settings.port, settings.metrics_port]
    return {
        "bind": [f"{host}:{port}" for port in ports],
        "workers": settings.nodes,
        "worker_class": "asgi",
        "asgi_loop": "uvloop",
        "asgi_lifespan": "on",
        "graceful_timeout": GRACEFUL_SECONDS,
        # A worker whose event loop is blocked for this long is replaced. Its leases have expired long before.
        "timeout": 60,
        "keepalive": 30,
        "proc_name": "horae",
        "loglevel": "warning",
        "accesslog": None,
        "control_socket_disable": True,
        "preload_app": False,
    }
