"""Pieces of large shards cover the shard exactly once."""

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import jpeg, tar_bytes

from pipeline.inputs.listing import list_inputs
from pipeline.readers import splitting
from pipeline.readers.reader import read
from pipeline.readers.splitting import split_spans
from pipeline.shards import Shard, Span


def shard(path: Path) -> Shard:
    (found,) = list_inputs([str(path)]).shards
    return found


def rows(spans: list[Span]) -> list[dict[str, object]]:
    return [
        row
        for span in spans
        for table in read([span], batch_size=3)
        for row in table.drop_columns("read_s").to_pylist()
    ]


def tar(path: Path) -> Path:
    """A tar with samples of one or two members, a folder, a long name, a nested tar, and repeated keys."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for i, key in enumerate(["a", "b", "c", "a", "d", "b", "e" * 120, "f", "a", "g"]):
            if i == 4:
                file.addfile(tarfile.TarInfo("folder"), io.BytesIO())
            if i == 8:
                inner = tar_bytes({"b.jpg": jpeg(0), "inner.jpg": jpeg(1)})
                info = tarfile.TarInfo("inner.tar")
                info.size = len(inner)
                file.addfile(info, io.BytesIO(inner))
            for extension, data in (("jpg", jpeg(i)), ("txt", b"said"))[: 1 + i % 2]:
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    path.write_bytes(buffer.getvalue())
    return path


def parquet(path: Path) -> Path:
    table = pa.table({"image": [jpeg(i) for i in range(20)], "key": [f"k{i}" for i in range(20)]})
    pq.write_table(table, path, row_group_size=3)
    return path


@pytest.fixture(params=[512, 3000, 1 << 20])
def segment_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(splitting, "SEGMENT_BYTES", request.param)
    return int(request.param)


@pytest.mark.parametrize("make", [tar, parquet])
@pytest.mark.parametrize("piece_bytes", [1, 2000, 5000])
@pytest.mark.parametrize("skipped", [0, 4])
def test_the_rows_of_the_pieces_are_those_of_the_whole(
    make: type, piece_bytes: int, skipped: int, segment_bytes: int, tmp_path: Path
) -> None:
    span = Span(shard(make(tmp_path / f"s.{make.__name__}")))
    if skipped:
        before = rows([replace(span, stop=skipped)])
        span = replace(span, start=skipped, offset=int(str(before[-1]["next_offset"])))
    pieces = split_spans([span], min_pieces=100, piece_bytes=piece_bytes)
    assert len(pieces) > 1
    assert [piece.start for piece in pieces[1:]] == [piece.stop for piece in pieces[:-1]]
    assert rows(pieces) == rows([span])


def test_what_is_left_between_commits_is_cut_too(segment_bytes: int, tmp_path: Path) -> None:
    whole = Span(shard(tar(tmp_path / "s.tar")))
    known = rows([whole])
    left = [replace(whole, stop=3), replace(whole, start=5, offset=int(str(known[4]["next_offset"])))]
    pieces = split_spans(left, min_pieces=100, piece_bytes=1)
    assert len(pieces) == len(known) - 2
    assert rows(pieces) == [*known[:3], *known[5:]]


@pytest.mark.parametrize("cut", [*range(0, 24_000, 512)])
def test_a_cut_tar_ends_in_one_row_that_says_so(cut: int, segment_bytes: int, tmp_path: Path) -> None:
    path = tar(tmp_path / "s.tar")
    path.write_bytes(path.read_bytes()[:cut])
    span = Span(shard(path))
    pieces = split_spans([span], min_pieces=100, piece_bytes=300)
    assert rows(pieces) == rows([span])
    assert [row["error_code"] for row in rows(pieces)].count("truncated_shard") == 1


def test_a_parquet_file_that_cannot_be_read_is_one_piece(tmp_path: Path) -> None:
    (tmp_path / "s.parquet").write_bytes(b"PAR1" * 1000)
    span = Span(shard(tmp_path / "s.parquet"))
    assert split_spans([span], min_pieces=100, piece_bytes=10) == [span]


def test_small_shards_and_enough_spans_are_left_whole(tmp_path: Path) -> None:
    (tmp_path / "t.tar").write_bytes(tar_bytes({"a.jpg": jpeg(0)}))
    small, large = Span(shard(tmp_path / "t.tar")), Span(shard(tar(tmp_path / "s.tar")))
    assert split_spans([small], min_pieces=100, piece_bytes=small.shard.size) == [small]
    assert split_spans([small, large], min_pieces=2, piece_bytes=1) == [small, large]
