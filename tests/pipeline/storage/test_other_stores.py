"""Stores other than S3, by fsspec; a store that does not answer gives one line."""

import io
import threading
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Run, codes, jpeg, tar_bytes
from web_server import IMAGES

from pipeline.errors import InputError
from pipeline.inputs.listing import list_inputs
from pipeline.storage import other_stores


def parquet_bytes(images: list[bytes]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": images}), buffer)
    return buffer.getvalue()


def test_a_store_of_fsspec_is_read(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    store = fsspec.filesystem("memory")
    for name, data in {
        "a.jpg": jpeg(0),
        "x/s.tar": tar_bytes({"k.jpg": jpeg(1)}),
        "x/t.parquet": parquet_bytes([jpeg(2)]),
        "x/notes.txt": b"x",
        "l.txt": b"a.jpg\nx/gone.jpg\n",
    }.items():
        store.pipe(f"/in/{name}", data)
    try:
        given = ("memory://in", "memory://in/l.txt")
        assert caption(*given, "--max_error_rate", 1)[0] == 0
        assert codes(tmp_path / "out") == {
            "a.jpg": None,
            "k": None,
            "000000000": None,
            "x/gone.jpg": "unreadable",
        }
        assert shardtalk("verify", tmp_path / "out", *given)[0] == 0
    finally:
        store.rm("/in", recursive=True)


def test_tars_tables_and_lists_of_the_web_are_read(
    tmp_path: Path, caption: Run, shardtalk: Run, web_server: str
) -> None:
    IMAGES["/good.tar"] = tar_bytes({"k.jpg": jpeg(1)})
    IMAGES["/good.parquet"] = parquet_bytes([jpeg(2)])
    IMAGES["/good.txt"] = b"good.jpg\n"
    IMAGES["/good.jpg"] = jpeg(3)
    given = [f"{web_server}/good.{kind}" for kind in ("tar", "parquet", "txt")]
    assert caption(*given)[0] == 0
    assert codes(tmp_path / "out") == {"k": None, "000000000": None, "good.jpg": None}
    assert shardtalk("verify", tmp_path / "out", *given)[0] == 0


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nosuch://bucket/x.tar", "nosuch://bucket cannot be opened: Protocol not known"),
        ("abfss://c@account/x.tar", "pip install adlfs"),
        ("hdfs://host/x.tar", "hdfs://host cannot be opened"),
    ],
)
def test_a_store_that_cannot_be_reached_is_refused(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list_inputs([url])


def test_a_store_that_does_not_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_stores, "ANSWER_TIMEOUT_S", 0.01)
    answered = threading.Event()
    with pytest.raises(InputError, match=r"gs://b did not answer within 0.01 s; are there credentials"):
        other_stores.with_timeout(answered.wait, "gs://b")
    answered.set()
