"""How a node is: JSON on localhost."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from medddpm.errors import ConfigError


@contextmanager
def health_endpoint(port: int, report: Callable[[], dict[str, Any]]) -> Iterator[int]:
    """Answer GET on localhost with a report while the block runs.

    Args:
        port: 0 takes a free one.
        report: Makes it; status 503 if its "healthy" is false.

    Yields:
        The port.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = report()
            body = json.dumps(content).encode()
            self.send_response(200 if content["healthy"] else 503)
            self.send_header("Content-Type", "application/json")
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
