"""Requests to a server on loopback with prepared answers."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat
from pathlib import Path

import pytest
from s3_store import name_store

from pipeline.errors import ChangedError
from pipeline.storage import s3_client
from pipeline.storage.remote_file import FileVersion, RemoteFile
from pipeline.storage.s3_object import S3Source

DATA = bytes(range(1, 201))
Reply = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""


class Server(ThreadingHTTPServer):
    """A server that answers with `reply(method, headers)`."""

    daemon_threads = True

    def __init__(self, reply: Callable[[str, dict[str, str]], Reply]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        self.requests: list[dict[str, str]] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignores clients that disconnect early."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append({"method": self.command, "path": self.path, **headers})
        status, extra, body = self.server.reply(self.command, headers)
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | extra).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


Served = Callable[[Callable[[str, dict[str, str]], Reply]], Server]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Starts a server, which the environment then names, and removes all pauses."""
    servers: list[Server] = []

    def start(reply: Callable[[str, dict[str, str]], Reply]) -> Server:
        server = Server(reply)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        name_store(monkeypatch, f"http://127.0.0.1:{server.server_port}")
        return server

    monkeypatch.setattr("pipeline.storage.retries.FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr("pipeline.storage.s3_client.S3_ATTEMPTS", 1)
    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def ranged(headers: dict[str, str], data: bytes = DATA, etag: str = '"one"') -> Reply:
    if "range" not in headers:
        return 200, {"ETag": etag, "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}, data
    start, last = map(int, headers["range"].removeprefix("bytes=").split("-"))
    if start >= len(data):
        return refused(416, "InvalidRange")
    body = data[start : last + 1]
    where = f"bytes {start}-{start + len(body) - 1}/{len(data)}"
    return 206, {"Content-Range": where, "ETag": etag, "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}, body


def refused(status: int, code: str) -> Reply:
    return status, {}, f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()


def read(range_bytes: int = 64, listed: FileVersion | None = None) -> bytes:
    with io.BufferedReader(RemoteFile(S3Source("b/k", listed), range_bytes=range_bytes), 16) as file:
        return file.read()


def test_a_small_object_is_one_request_and_a_large_one_a_request_for_each_range(serve: Served) -> None:
    server = serve(lambda method, headers: ranged(headers))
    assert read(range_bytes=1000) == DATA
    assert [request["range"] for request in server.requests] == ["bytes=0-999"]
    server.requests.clear()
    assert read() == DATA
    assert [request["range"] for request in server.requests] == [
        "bytes=0-63",
        "bytes=64-127",
        "bytes=128-191",
        "bytes=192-199",
    ]
    assert [request.get("if-match") for request in server.requests] == [None, *['"one"'] * 3]


def test_an_empty_object_is_empty(serve: Served) -> None:
    serve(lambda method, headers: (200, {"ETag": '"e"'}, b"") if method == "HEAD" else ranged(headers, b""))
    assert read() == b""


@pytest.mark.parametrize(
    "spoil",
    [
        lambda status, extra, body: (status, extra, body[: len(body) // 2]),
        lambda status, extra, body: (status, extra, body[: len(body) // 2] + bytes(len(body) - len(body) // 2)),
        lambda status, extra, body: (status, {}, body),
        lambda status, extra, body: (status, extra | {"Content-Range": "bytes 3-66/200"}, body),
        lambda status, extra, body: (status, extra | {"Content-Range": "nonsense"}, body),
        lambda status, extra, body: refused(500, "InternalError"),
        lambda status, extra, body: refused(503, "SlowDown"),
        lambda status, extra, body: refused(400, "ExpiredToken"),
        lambda status, extra, body: (200, {"ETag": '"one"'}, DATA),
    ],
)
def test_a_spoilt_answer_is_asked_for_again(spoil: Callable[..., Reply], serve: Served) -> None:
    turns = iter(range(1000))

    def reply(method: str, headers: dict[str, str]) -> Reply:
        answer = ranged(headers)
        return spoil(*answer) if next(turns) % 2 == 0 and len(answer[2]) > 32 else answer

    server = serve(reply)
    assert read() == DATA
    assert any(spoil(*ranged({"range": "bytes=0-63"})) != ranged({"range": "bytes=0-63"}) for _ in server.requests)


@pytest.mark.parametrize("wrong", [{"ETag": '"another"'}, {"Content-Range": "bytes 64-127/2009"}])
def test_an_answer_that_describes_another_object_is_asked_for_again(wrong: dict[str, str], serve: Served) -> None:
    wrongs = chain([{}, wrong], repeat({}))

    def reply(method: str, headers: dict[str, str]) -> Reply:
        status, extra, body = ranged(headers)
        return status, extra | (next(wrongs) if method == "GET" else {}), body

    server = serve(reply)
    assert read() == DATA
    assert [request["method"] for request in server.requests][:4] == ["GET", "GET", "HEAD", "GET"]


def test_zeros_that_are_there_are_read(serve: Served) -> None:
    data = DATA + bytes(500) + DATA + bytes(100)
    serve(lambda method, headers: ranged(headers, data))
    assert read() == data


def test_another_etag_is_another_object(serve: Served) -> None:
    etags = chain(['"one"'], repeat('"two"'))
    serve(lambda method, headers: ranged(headers, etag=next(etags)))
    with pytest.raises(ChangedError, match=r"s3://b/k is another object.*replaced while it was read"):
        read()


JANUARY_2024_NS = 1_704_067_200 * 10**9


@pytest.mark.parametrize(
    ("size", "mtime_ns", "same"),
    [
        (200, JANUARY_2024_NS, True),
        (200, JANUARY_2024_NS + 999_000_000, True),  # listings have fractions of a second
        (200, 0, True),
        (199, JANUARY_2024_NS, False),
        (200, JANUARY_2024_NS - 10 * 10**9, False),
    ],
)
def test_an_object_is_compared_with_what_was_listed(size: int, mtime_ns: int, same: bool, serve: Served) -> None:
    serve(lambda method, headers: ranged(headers))
    if same:
        assert read(listed=FileVersion(size, mtime_ns)) == DATA
    else:
        with pytest.raises(ChangedError, match="is another object"):
            read(listed=FileVersion(size, mtime_ns))


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "NoSuchKey", FileNotFoundError),
        (404, "NoSuchBucket", FileNotFoundError),
        (403, "AccessDenied", PermissionError),
        (403, "InvalidAccessKeyId", PermissionError),
    ],
)
def test_what_cannot_heal_is_not_tried_again(status: int, code: str, kind: type[OSError], serve: Served) -> None:
    server = serve(lambda method, headers: refused(status, code))
    with pytest.raises(kind, match=f"b/k: the store answers {code}, No"):
        read()
    assert len(server.requests) == 1


def test_a_head_without_a_body_is_explained_by_a_get(serve: Served) -> None:
    server = serve(lambda method, headers: (403, {}, b"") if method == "HEAD" else refused(403, "AccountProblem"))
    with pytest.raises(PermissionError, match="AccountProblem"):
        s3_client.head("b/k")
    assert [request["method"] for request in server.requests] == ["HEAD", "GET"]


def test_credentials_that_expired_are_looked_up_again(
    serve: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def reply(method: str, headers: dict[str, str]) -> Reply:
        (tmp_path / "credentials").write_text("[default]\naws_access_key_id = new\naws_secret_access_key = y\n")
        return ranged(headers) if "Credential=new/" in headers["authorization"] else refused(400, "ExpiredToken")

    server = serve(reply)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = old\naws_secret_access_key = x\n")
    assert read(range_bytes=1000) == DATA
    assert len(server.requests) == 2


def test_a_store_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, serve: Served) -> None:
    name_store(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(OSError, match=r"b/k: .*127\.0\.0\.1:9"):
        s3_client.head("b/k", attempts=1)


def test_a_name_that_no_key_can_have_is_not_there(serve: Served) -> None:
    server = serve(lambda method, headers: ranged(headers))
    with pytest.raises(FileNotFoundError, match="UTF-8"):
        s3_client.head("b/\udcff")
    assert not server.requests


def test_threads_share_a_client_and_processes_do_not(serve: Served) -> None:
    serve(lambda method, headers: ranged(headers))
    clients: list[object] = []
    threads = [threading.Thread(target=lambda: clients.append(s3_client._client())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, clients))) == 1
    mine, child = clients[0], os.fork()
    if not child:
        os._exit(0 if s3_client._client() is not mine and read() == DATA else 1)
    assert os.waitpid(child, 0)[1] == 0
