"""Stores that refuse requests, or cut, pad and mix up answers: the rows equal those of an undisturbed run."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Run, assert_same, encoded, jpeg, picture, pictures, rows_of, tar_bytes
from faults import Survived, is_full, only_full
from faulty_store import PASSING, faulty_store
from PIL import Image
from s3_store import Bucket

from pipeline.errors import ChangedError
from pipeline.inputs.listing import list_inputs
from pipeline.readers.reader import read
from pipeline.shards import Span
from pipeline.storage.filesystems import open_at
from pipeline.storage.s3_object import S3Source

CHECKOUT = Path(__file__).parents[2]


def table_bytes(rows: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"key": list(rows), "image": list(rows.values())}), buffer, row_group_size=2)
    return buffer.getvalue()


INPUT = {
    "in/a.jpg": jpeg(0),
    "in/b.bmp": encoded(picture(1, 40, 50), "BMP"),  # many ranges
    "in/black.bmp": encoded(picture(1, 40, 50).point(lambda _: 0), "BMP"),  # zeros, and meant
    "in/cut.jpg": jpeg(2)[:700],
    "in/empty.jpg": b"",
    "in/s.tar": tar_bytes({f"k{i}.jpg": jpeg(i) for i in range(9)}) + bytes(5000),
    "in/cut.tar": tar_bytes({"c0.jpg": jpeg(5), "c1.jpg": jpeg(6)})[:-2000],
    "tables/t.parquet": table_bytes({f"p{i}": jpeg(i) for i in range(7)}),
}


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uses small ranges, and no pause before the next attempt."""
    monkeypatch.setattr("pipeline.storage.filesystems.RANGE_BYTES", 1000)
    monkeypatch.setattr("pipeline.storage.retries.FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr("pipeline.storage.s3_client.S3_ATTEMPTS", 1)


def rows_in(bucket: Bucket) -> list[dict[str, object]]:
    shards = list_inputs([f"{bucket.url}/in", f"{bucket.url}/tables"]).shards
    tables = (table.drop_columns("read_s") for table in read(map(Span, shards), batch_size=4))
    return [row for table in tables for row in table.to_pylist()]


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_changes_no_row_that_is_read(
    fault: str, bucket: Bucket, at_once: None, survived: Survived, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put(INPUT)
    undisturbed = rows_in(bucket)
    assert sum(row["image"] is not None for row in undisturbed) == 22
    for seed in range(5 if is_full() else 1):
        with (
            faulty_store(os.environ["AWS_ENDPOINT_URL"], fault, seed=seed) as store,
            monkeypatch.context() as disturbed,
        ):
            disturbed.setenv("AWS_ENDPOINT_URL", store.url)
            assert rows_in(bucket) == undisturbed
        assert store.injected[fault] > 3
        survived(f"S3 fault: {fault}", "the request is repeated", store.injected[fault])


@pytest.mark.parametrize("fault", [*(pytest.param(fault, marks=only_full) for fault in PASSING), "any"])
def test_a_fault_that_passes_changes_no_caption(  # noqa: PLR0917
    fault: str,
    bucket: Bucket,
    at_once: None,
    caption: Run,
    shardtalk: Run,
    survived: Survived,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    bucket.put(INPUT)
    inputs, out = (f"{bucket.url}/in", f"{bucket.url}/tables"), f"{bucket.url}/out"
    assert caption(*inputs, output=tmp_path / "undisturbed")[0] == 0
    faults = PASSING if fault == "any" else [fault]
    with faulty_store(os.environ["AWS_ENDPOINT_URL"], *faults) as store, monkeypatch.context() as disturbed:
        disturbed.setenv("AWS_ENDPOINT_URL", store.url)
        assert caption(*inputs, "--rows_per_file", 5, output=out)[0] == 0
        assert_same(rows_of(out), rows_of(tmp_path / "undisturbed"))
        assert shardtalk("verify", out, *inputs)[0] == 0
    assert store.injected.total() > 10
    for name, times in store.injected.items():
        survived(f"S3 fault: {name}", "the request is repeated", times)


@only_full
def test_a_fault_that_passes_changes_no_caption_on_ray(
    bucket: Bucket, caption: Run, captioner: Path, survived: Survived, tmp_path: Path
) -> None:
    """Uses objects of several ranges; Ray's processes find the store through their environment."""
    noise = np.random.default_rng(1).integers(0, 256, (6, 1000, 1500, 3), np.uint8)
    bucket.put(
        INPUT
        | {"in/big.tar": tar_bytes({f"n{i}.bmp": encoded(Image.fromarray(n), "BMP") for i, n in enumerate(noise)})}
    )
    inputs = (f"{bucket.url}/in", f"{bucket.url}/tables")
    assert caption(*inputs, output=tmp_path / "undisturbed")[0] == 0
    job = [
        *inputs,
        "--captioner",
        captioner,
        "--runner",
        "ray",
        "--output",
        f"{bucket.url}/out",
        "--search.beam_size",
        2,
    ]
    with faulty_store(os.environ["AWS_ENDPOINT_URL"], *PASSING, share=0.4) as store:
        done = subprocess.run(
            [sys.executable, "-m", "jobs.caption", *map(str, [*job, "--search.max_tokens", 6])],
            cwd=CHECKOUT,
            env=os.environ | {"AWS_ENDPOINT_URL": store.url},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert_same(rows_of(f"{bucket.url}/out"), rows_of(tmp_path / "undisturbed"))
    assert store.injected.total() > 10
    for name, times in store.injected.items():
        survived(f"S3 fault: {name}", "the request is repeated", times)


def test_an_object_that_is_replaced_while_it_is_read_is_a_row(
    bucket: Bucket, at_once: None, caption: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (tar_bytes({f"k{i}.jpg": jpeg(first + i) for i in range(9)}) for first in (0, 20))
    bucket.put({"in/s.tar": old})
    asked = S3Source.read_into

    def replace_then_read(source: S3Source, buffer: bytearray, start: int, stop: int) -> None:
        if start >= 9000:
            bucket.put({"in/s.tar": new})
        asked(source, buffer, start, stop)

    monkeypatch.setattr(S3Source, "read_into", replace_then_read)
    assert caption(f"{bucket.url}/in", "--max_error_rate", 1)[0] in (0, 1)
    *before, last = rows_of(tmp_path / "out")
    assert last["error_code"] == "changed_input" and "s.tar" in last["error_message"]
    assert 0 < len(before) < 9 and not any(row["error_code"] for row in before)


@pytest.mark.parametrize("name", ["s.tar", "t.parquet", "a.jpg"])
def test_an_object_that_was_replaced_after_it_was_listed_is_a_row(name: str, bucket: Bucket) -> None:
    bucket.put(INPUT)
    folder = "tables" if name == "t.parquet" else "in"
    (shard,) = list_inputs([f"{bucket.url}/{folder}/{name}"]).shards
    bucket.put({f"{folder}/{name}": INPUT["in/b.bmp"]})
    (row,) = [row for table in read([Span(shard)], batch_size=4) for row in table.to_pylist()]
    assert row["error_code"] == "changed_input" and name in row["error_message"]


@pytest.mark.parametrize("name", ["in/b.bmp", "in/s.tar", "tables/t.parquet"])
def test_a_store_that_ignores_conditions_does_not_hide_a_replacement(
    name: str, bucket: Bucket, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put(INPUT)
    with faulty_store(os.environ["AWS_ENDPOINT_URL"], "blind", share=1) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
        with open_at(f"{bucket.url}/{name}") as file:
            assert file.read(1000) == INPUT[name][:1000]
            bucket.put({name: INPUT[name][::-1]})
            with pytest.raises(ChangedError, match="replaced while it was read"):
                file.read()


def test_expired_credentials_are_named_though_a_head_has_no_body(  # noqa: PLR0917
    bucket: Bucket, at_once: None, caption: Run, shardtalk: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put(INPUT)
    here = pictures(tmp_path / "here", 1)
    with faulty_store(os.environ["AWS_ENDPOINT_URL"], "expired", share=1) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
        for code, said in (
            caption(f"{bucket.url}/in"),
            caption(f"{bucket.url}/in/{{a,b}}.jpg"),
            caption(here, output=f"{bucket.url}/out"),
            caption(here, "--captioner", f"{bucket.url}/zoo"),
            shardtalk("status", f"{bucket.url}/out"),
        ):
            assert code in (1, 2) and "credentials have expired" in said and said.count("\n") == 1, said


def test_where_writing_is_denied_nothing_is_lost(  # noqa: PLR0917
    bucket: Bucket, at_once: None, caption: Run, shardtalk: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, out = pictures(tmp_path / "in", 5), f"{bucket.url}/out"
    assert caption(here, output=tmp_path / "undisturbed")[0] == 0
    with faulty_store(os.environ["AWS_ENDPOINT_URL"], "denied", share=0.4) as store, monkeypatch.context() as denied:
        denied.setenv("AWS_ENDPOINT_URL", store.url)
        for _ in range(3):
            code, said = caption(here, "--rows_per_file", 1, "--batch_size", 1, output=out)
            assert code == 0 or (
                code in (1, 2) and "AccessDenied" in said.splitlines()[-1] and said.count("\n") <= 2
            ), said
    assert store.injected["denied"]
    assert caption(here, "--rows_per_file", 1, "--batch_size", 1, output=out)[0] == 0
    assert_same(rows_of(out), rows_of(tmp_path / "undisturbed"))
    assert shardtalk("verify", out, here)[0] == 0
