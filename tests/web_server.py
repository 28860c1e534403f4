"""A web server on this machine that serves an image, with the fault that the path names."""

import re
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from pipeline.storage import http_images

BODY = bytes(range(256)) * 700
IMAGES: dict[str, bytes] = {}
"""Bodies by path; `BODY` for others."""


class Misbehaving(BaseHTTPRequestHandler):
    """A request handler whose faults are named by the path; it counts requests."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        first = self.asked[self.path] == 1
        kind = self.path.strip("/").partition(".")[0]
        if kind == "busy" and first:
            self.answer(503, b"", {"Retry-After": "0"})
        elif kind == "later":
            self.answer(429, b"", {"Retry-After": "86400"})
        elif kind.isdecimal():
            self.answer(int(kind), b"")
        elif kind in ("cut", "torn") and (first or kind == "torn"):
            self.answer(200, BODY[:-9], {"Content-Length": str(len(BODY))})
            self.close_connection = True
        elif kind == "reset" and first:
            self.connection.close()
        elif kind == "moved":
            self.answer(302, b"", {"Location": "/good.jpg"})
        elif kind == "circle":
            self.answer(302, b"", {"Location": self.path})
        elif kind == "file":
            self.answer(302, b"", {"Location": "file:///etc/passwd"})
        elif kind == "endless":
            self.answer(200, BODY * 9, {"Content-Length": "", "Connection": "close"})
        else:
            self.answer_range(IMAGES.get(self.path, BODY))

    def do_HEAD(self) -> None:
        self.answer(200, b"", {"Content-Length": str(len(IMAGES.get(self.path, BODY))), "Accept-Ranges": "bytes"})

    def answer_range(self, body: bytes) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked is None:
            self.answer(200, body)
            return
        start, stop = int(asked[1]), min(int(asked[2]) + 1, len(body))
        self.answer(206, body[start:stop], {"Content-Range": f"bytes {start}-{stop - 1}/{len(body)}"})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


@pytest.fixture
def web_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(http_images, "FIRST_PAUSE_S", 0.0)
    Misbehaving.asked.clear()
    IMAGES.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Misbehaving) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()
