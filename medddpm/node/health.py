"""How a node is, on localhost: JSON, and the text that Prometheus reads."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from medddpm.errors import ConfigError

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class Health:
    """How a node is.

    Attributes:
        healthy: Its threads run, the last step of each went well, and the disk has room.
        series: How many are in which state.
        waiting: Series that are not at their end: received, restored, or awaiting commitment.
        images_received: New objects since the node started.
        images_sent: Objects that the destination took since then.
        free_gb: Of the disk.
        errors: What the threads met in their last step.
        last_error: What was logged last as a warning; no patient data.
        last_error_time: When, in seconds since 1970; 0 if nothing was.
    """

    healthy: bool
    series: dict[str, int]
    waiting: int
    images_received: int
    images_sent: int
    free_gb: float
    errors: list[str]
    last_error: str = ""
    last_error_time: float = 0.0


class LastError(logging.Handler):
    """Remembers the last warning of the node: whatever goes wrong is logged as one."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text, self.time = "", 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Remember it."""
        self.text, self.time = record.getMessage(), time.time()


@contextmanager
def last_error() -> Iterator[LastError]:
    """Listen to the node's log while the block runs."""
    logger, handler = logging.getLogger("medddpm.node"), LastError()
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)


def metrics_of(health: Health) -> str:
    """The text exposition format of Prometheus, version 0.0.4."""
    free = round(health.free_gb * 1e9)
    plain = (
        ("healthy", "gauge", "1 if the node is well.", int(health.healthy)),
        ("series_waiting", "gauge", "Series that are not at their end.", health.waiting),
        ("images_received_total", "counter", "New since the start.", health.images_received),
        ("images_sent_total", "counter", "Taken by the destination.", health.images_sent),
        ("free_disk_bytes", "gauge", "Free space for what arrives.", free),
        ("last_error_timestamp_seconds", "gauge", "0: none.", round(health.last_error_time, 3)),
    )
    lines = _head("series", "gauge", "Series by state.")
    lines += [f'medddpm_node_series{{state="{s}"}} {n}' for s, n in health.series.items()]
    for name, kind, words, value in plain:
        lines += [*_head(name, kind, words), f"medddpm_node_{name} {value}"]
    return "\n".join(lines) + "\n"


def _head(name: str, kind: str, words: str) -> list[str]:
    return [f"# HELP medddpm_node_{name} {words}", f"# TYPE medddpm_node_{name} {kind}"]


@contextmanager
def health_endpoint(port: int, report: Callable[[], Health]) -> Iterator[int]:
    """Answer GET on localhost while the block runs: /metrics as text, all else as JSON.

    Args:
        port: 0 takes a free one.
        report: Makes the answer; JSON has status 503 if it is not healthy.

    Yields:
        The port.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            health = report()
            if self.path.partition("?")[0] == "/metrics":
                self._answer(200, _METRICS_TYPE, metrics_of(health))
            else:
                status = 200 if health.healthy else 503
                self._answer(status, "application/json", json.dumps(asdict(health)))

        def _answer(self, status: int, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise ConfigError(f"health port {port}: {error.strerror or error}") from error
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
