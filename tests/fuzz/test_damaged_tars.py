"""Randomly damaged tars: no exception, and every image that another reader extracts is read."""

import os
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from damaged_tars import damaged_tars, images_by_gnu_tar, images_by_tarfile
from hypothesis import HealthCheck, given, settings

from pipeline.readers import splitting
from pipeline.readers.reader import read
from pipeline.readers.splitting import split_spans
from pipeline.shards import Shard, Span

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "20000" if os.environ.get("CHAOS") == "full" else "60"))
fuzzed = settings(
    max_examples=EXAMPLES,
    derandomize="FUZZ_SEED" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def rows(*spans: Span) -> list[dict[str, object]]:
    return [row for table in read(spans, batch_size=4) for row in table.drop_columns("read_s").to_pylist()]


def missing(expected: Counter[bytes], found: Counter[bytes]) -> list[bytes]:
    """Returns the images whose bytes no row has; one row may stand for several equal files."""
    return [data[:20] for data in expected if data and data not in found]


@fuzzed
@given(damaged_tars)
def test_a_damaged_tar(data: bytes) -> None:
    with TemporaryDirectory() as folder, mock.patch.object(splitting, "SEGMENT_BYTES", 3000):
        path = Path(folder, "s.tar")
        path.write_bytes(data)
        shard = Shard(str(path), "", len(data), 0)
        whole = rows(Span(shard))

        assert [row["index"] for row in whole] == list(range(len(whole)))
        assert [row["last"] for row in whole] == [False] * (len(whole) - 1) + [True]
        assert len({row["image_id"] for row in whole}) == len(whole)

        images = Counter(row["image"] for row in whole if row["error_code"] is None)
        assert not missing(Counter(images_by_tarfile(path)), images)

        for number, row in enumerate(whole[:-1], start=1):
            assert rows(Span(shard, number, row["next_offset"])) == whole[number:]
        assert rows(*split_spans([Span(shard)], min_pieces=99, piece_bytes=1)) == whole


@settings(fuzzed, max_examples=max(10, EXAMPLES // 10))
@given(damaged_tars)
def test_gnu_tar_gets_no_more_out(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path, out = Path(folder, "s.tar"), Path(folder, "out")
        path.write_bytes(data)
        out.mkdir()
        images = Counter(row["image"] for row in rows(Span(Shard(str(path), "", len(data), 0))))
        assert not missing(Counter(images_by_gnu_tar(path, out)), images)
