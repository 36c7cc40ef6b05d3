"""Give out a page on this machine's loopback, with the headers that threads in a browser take."""

from __future__ import annotations

import functools
import http.server
from pathlib import Path
from typing import Any

#: For ``SharedArrayBuffer``, and with it threads: https://web.dev/articles/coop-coep
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Files of one folder, with ``HEADERS``, and without a word about each request."""

    extensions_map = {  # noqa: RUF012 - as the base class has it
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
        ".webmanifest": "application/manifest+json",
        ".onnx": "application/octet-stream",
    }

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def serve(folder: Path, port: int = 0) -> http.server.ThreadingHTTPServer:
    """A server on 127.0.0.1 that gives out a folder once its ``serve_forever`` is called.

    Args:
        port: 0: any that is free; ``server.server_port`` tells.

    Raises:
        OSError: the port is taken.
    """
    return http.server.ThreadingHTTPServer(("127.0.0.1", port), functools.partial(_Handler, directory=str(folder)))
