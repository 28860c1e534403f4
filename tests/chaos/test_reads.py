"""A store that resets connections at any byte: no row is lost, doubled or changed."""

from __future__ import annotations

import io
import socket
import struct
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Run, encoded, picture, rows_of, tar_bytes
from faults import Survived, chosen
from s3_store import name_store

from pipeline.inputs.listing import list_inputs
from pipeline.readers.reader import read
from pipeline.shards import Span
from pipeline.storage import retries

IMAGES = {f"k{i}.jpg": encoded(picture(i, 12 + i, 9), quality=40) for i in range(3)}


def table_bytes() -> bytes:
    buffer = io.BytesIO()
    table = pa.table({"key": list(IMAGES), "image": list(IMAGES.values())})
    pq.write_table(table, buffer, row_group_size=1, compression="none", write_statistics=False)
    return buffer.getvalue()


SHARDS = {"s.tar": tar_bytes(IMAGES), "t.parquet": table_bytes()}


class Store(ThreadingHTTPServer):
    """The part of an S3 store that reading a file needs; every bucket contains every file.

    `resets` has how many more answers end just before a byte of their file, the connection being reset.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.resets: dict[int, int] = {}
        self.injected = self.connections = self.requests = 0
        self.signed: set[bool] = set()
        self.lock = Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)  # a shutdown before would end the connection in good order

    def reset_at(self, start: int, stop: int) -> int | None:
        """Returns the offset at which the answer with these bytes is cut off; None if it is not."""
        with self.lock:
            offset = min((at for at, times in self.resets.items() if times and start <= at < stop), default=None)
            if offset is not None:
                self.resets[offset] -= 1
                self.injected += 1
        return offset


class Answer(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and data are one write
    disable_nagle_algorithm = True
    server: Store

    def do_HEAD(self) -> None:
        self._begin(200, len(SHARDS[self._name]))

    def do_GET(self) -> None:
        data = SHARDS[self._name]
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        start, stop = first, min(last + 1, len(data))
        self._begin(206, stop - start, f"bytes {start}-{stop - 1}/{len(data)}")
        offset = self.server.reset_at(start, stop)
        self.wfile.write(data[start : stop if offset is None else offset])
        self.wfile.flush()
        if offset is not None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True

    @property
    def _name(self) -> str:
        return self.path.rpartition("/")[2]

    def _begin(self, status: int, length: int, content_range: str = "") -> None:
        self.server.requests += 1
        self.server.signed.add("Authorization" in self.headers)
        self.send_response(status)
        self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        self.send_header("Content-Length", str(length))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Starts a store that the environment names; retries come at once, and from our code instead of the SDK."""
    store = Store()
    Thread(target=store.serve_forever, args=(0.01,)).start()
    name_store(monkeypatch, f"http://127.0.0.1:{store.server_port}")
    monkeypatch.setattr("pipeline.storage.retries.FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr("pipeline.storage.s3_client.S3_ATTEMPTS", 1)
    yield store
    store.shutdown()
    store.server_close()


def rows_in(name: str) -> list[dict[str, object]]:
    spans = map(Span, list_inputs([f"s3://bucket/{name}"]).shards)
    tables = (table.drop_columns("read_s") for table in read(spans, batch_size=2))  # the time it took
    return [row for table in tables for row in table.to_pylist()]


def reset_at_each(store: Store, name: str, offsets: list[int], times: int, survived: Survived) -> None:
    """Reads a file once per offset, and resets the connection at that offset."""
    whole = rows_in(name)
    assert [row["image"] for row in whole] == list(IMAGES.values())
    for offset in offsets:
        store.resets = {offset: times}
        assert rows_in(name) == whole, offset
    assert store.injected == times * len(offsets) > 0
    survived("S3 connection reset at a byte", "the read goes on at that byte", store.injected)


def around_blocks(size: int) -> list[int]:
    return sorted({at for block in range(0, size + 1, 512) for at in range(block - 1, block + 2) if 0 <= at < size})


@pytest.mark.parametrize("times", [1, retries.ATTEMPTS - 1])
@pytest.mark.parametrize("range_bytes", [1000, 8 << 20])
@pytest.mark.parametrize("name", SHARDS)
def test_a_reset_around_any_block_changes_no_row(  # noqa: PLR0917
    name: str, range_bytes: int, times: int, store: Store, survived: Survived, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.storage.filesystems.RANGE_BYTES", range_bytes)
    reset_at_each(store, name, around_blocks(len(SHARDS[name])), times, survived)


@pytest.mark.parametrize("range_bytes", [1000, 8 << 20])
@pytest.mark.parametrize("name", SHARDS)
def test_a_reset_at_any_byte_changes_no_row(
    name: str, range_bytes: int, store: Store, survived: Survived, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.storage.filesystems.RANGE_BYTES", range_bytes)
    reset_at_each(store, name, chosen(range(len(SHARDS[name])), few=20), 1, survived)


def captions(output: Path) -> list[tuple[str, int, str, str]]:
    return [(row["image_id"], row["index"], row["caption"], row["error_code"]) for row in rows_of(output)]


@pytest.fixture
def here(tmp_path: Path, caption: Run) -> list[tuple[str, int, str, str]]:
    """Captions the local copy of the tar."""
    (tmp_path / "s.tar").write_bytes(SHARDS["s.tar"])
    assert caption(tmp_path / "s.tar", output=tmp_path / "here")[0] == 0
    return captions(tmp_path / "here")


def test_captions_are_those_of_the_file_here_though_every_block_is_reset(
    store: Store, here: list[tuple[str, int, str, str]], tmp_path: Path, caption: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.storage.filesystems.RANGE_BYTES", 1000)
    store.resets = dict.fromkeys(range(0, len(SHARDS["s.tar"]), 512), 1)
    faults = len(store.resets)
    assert caption("s3://bucket/s.tar")[0] == 0
    assert captions(tmp_path / "out") == here and store.injected == faults


def test_what_resets_without_end_keep_back_is_an_error_that_a_retry_replaces(
    store: Store, here: list[tuple[str, int, str, str]], tmp_path: Path, caption: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.storage.filesystems.RANGE_BYTES", 1000)
    store.resets = {len(SHARDS["s.tar"]) - 500: retries.ATTEMPTS}
    assert caption("s3://bucket/s.tar", "--max_lost_shards", 1)[0] == 0
    *before, last = captions(tmp_path / "out")
    assert before == here[: len(before)] != [] and last[3] == "unreadable"
    assert caption("s3://bucket/s.tar", "--retry_errors", True)[0] == 0
    assert captions(tmp_path / "out") == here


def test_one_connection_serves_many_requests(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.storage.filesystems.RANGE_BYTES", 100)
    rows_in("s.tar")
    assert store.connections == 1 and store.requests > 40


def test_without_credentials_requests_are_not_signed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rows_in("s.tar") and store.signed == {True}
    store.signed.clear()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert rows_in("s.tar") and store.signed == {False}
