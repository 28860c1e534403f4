"""A fast local S3 store of one object: `python -m benchmarks.range_server FILE` prints its port.

It answers HEAD and ranged GET for any bucket and key, with a thread per connection and sendfile.
"""

from __future__ import annotations

import os
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BACKLOG = 128


class Server(ThreadingHTTPServer):
    """Serves one file."""

    daemon_threads = True
    request_queue_size = BACKLOG

    def __init__(self, file: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.descriptor, self.size = os.open(file, os.O_RDONLY), file.stat().st_size


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_HEAD(self) -> None:
        self._head(200, self.server.size)

    def do_GET(self) -> None:
        size = self.server.size
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(match[1]) if match else 0
        stop = min(int(match[2]) + 1, size) if match and match[2] else size
        self._head(206 if match else 200, stop - start, f"bytes {start}-{stop - 1}/{size}" if match else "")
        while start < stop:
            start += os.sendfile(self.connection.fileno(), self.server.descriptor, start, stop - start)

    def _head(self, status: int, length: int, content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        self.send_header("ETag", '"0123456789abcdef0123456789abcdef"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(length))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


if __name__ == "__main__":
    server = Server(Path(sys.argv[1]))
    print(server.server_port, flush=True)
    server.serve_forever()
