"""A proxy in front of an S3 server that injects faults of stores, proxies and networks into some requests."""

from __future__ import annotations

import contextlib
import http.client
import random
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import urlsplit

SMALLEST = 600
"""Bytes of a body that is tampered with: smaller ones are answers of other kinds."""
HANGS_S = 0.2
PASSING = ("slowdown", "error", "expired", "cut", "reset", "short", "zeros", "reordered", "whole", "unnamed", "slow")
"""Faults after which the same request may go well.

slowdown, error, expired: 503 SlowDown, 500 InternalError, 400 ExpiredToken, without a body where a HEAD asks
cut, reset: the connection ends, in order or not, in the middle of a body
short: a body that is shorter than the range, with a Content-Length to match
zeros: the second half of a body is zeros
reordered: another range than was asked for, of the same length
whole: 200 and the whole object for a range
unnamed: a range without Content-Range
slow: an answer after a while
"""


class FaultyStore(ThreadingHTTPServer):
    """A proxy on loopback, which runs in a `with` block.

    Args:
        backend: URL of the server.
        faults: one of them is drawn for a request: of `PASSING`, "denied" (403 for a PUT) or "blind" (conditions are
            not passed on).
        share: of the requests, to which it is done.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, backend: str, *faults: str, share: float = 0.15, seed: int = 1) -> None:
        super().__init__(("127.0.0.1", 0), _Proxy)
        address = urlsplit(backend)
        self.backend = (str(address.hostname), address.port)
        self.faults, self.share = faults, share
        self.injected: Counter[str] = Counter()
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self._dice, self._lock = random.Random(seed), Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def draw(self, method: str, path: str, headers: dict[str, str]) -> str:
        with self._lock:
            self.requests.append((method, path, headers))
            return self._dice.choice(self.faults) if self.faults and self._dice.random() < self.share else ""

    def count(self, fault: str) -> None:
        with self._lock:
            self.injected[fault] += 1

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignores clients that disconnect early."""

    def shutdown_request(self, request: socket.socket) -> None:
        self.close_request(request)  # a shutdown before would end a connection in good order


@contextlib.contextmanager
def faulty_store(backend: str, *faults: str, share: float = 0.15, seed: int = 1) -> Iterator[FaultyStore]:
    """A running proxy."""
    with FaultyStore(backend, *faults, share=share, seed=seed) as store:
        Thread(target=store.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield store
        finally:
            store.shutdown()


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: FaultyStore

    def _serve(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        headers = {name.lower(): value for name, value in self.headers.items()}
        headers.pop("expect", None)
        fault = self.server.draw(self.command, self.path, headers)
        refusals = {"slowdown": (503, "SlowDown"), "error": (500, "InternalError"), "expired": (400, "ExpiredToken")}
        if self.command == "PUT":
            refusals["denied"] = (403, "AccessDenied")
        if fault in refusals:
            self.server.count(fault)
            self._refuse(*refusals[fault])
            return
        if fault == "slow":
            self.server.count(fault)
            time.sleep(HANGS_S)
        if fault == "blind":
            headers = {name: value for name, value in headers.items() if not name.startswith("if-")}
        if fault == "reordered":
            self._ask_for_another_range(headers)
        if fault == "whole" and self.command == "GET" and headers.pop("range", None):
            self.server.count(fault)
        self._answer(fault, *self._ask(sent, headers))

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve  # noqa: N815

    def _ask(self, sent: bytes | None, headers: dict[str, str]) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection(*self.server.backend, timeout=60)
        connection.request(self.command, self.path, sent, headers | {"connection": "close"})
        answer = connection.getresponse()
        return answer, answer.read()

    def _ask_for_another_range(self, headers: dict[str, str]) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("range", ""))
        if match and self.command == "GET":
            first, length = int(match[1]), int(match[2]) - int(match[1]) + 1
            if first >= length:
                self.server.count("reordered")
                headers["range"] = f"bytes={first - length}-{first - 1}"

    def _answer(self, fault: str, answer: http.client.HTTPResponse, data: bytes) -> None:
        harmed = self.command == "GET" and "range" in self.headers and len(data) >= SMALLEST
        half, length = len(data) // 2, len(data)
        if not harmed or fault not in ("cut", "reset", "short", "zeros", "unnamed"):
            fault = ""
        else:
            self.server.count(fault)
        if fault in ("cut", "reset", "short"):
            data = data[:half]
        if fault == "zeros":
            data = data[:half] + bytes(length - half)
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server") and not (
                fault == "unnamed" and name.lower() == "content-range"
            ):
                self.send_header(name, value)
        is_head = self.command == "HEAD"
        stated = str(answer.getheader("Content-Length") or 0) if is_head else str(half if fault == "short" else length)
        self.send_header("Content-Length", stated)
        self.end_headers()
        if not is_head:
            self.wfile.write(data)
        self.wfile.flush()
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if fault in ("cut", "reset"):
            self.close_connection = True

    def _refuse(self, status: int, code: str) -> None:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code} it is.</Message></Error>".encode()
        body = b"" if self.command == "HEAD" else body
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
