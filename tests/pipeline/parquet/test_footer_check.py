"""The process that checks footers, and its replacement when one ends it."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import DataError
from pipeline.parquet.file import CheckedParquetFile
from pipeline.parquet.footer_check import CheckedMetadata, FooterChecker, read_footer


def footer() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"image": [b"abc"]}), file)
    data = file.getvalue()
    return data[-8 - int.from_bytes(data[-8:-4], "little") : -8]


class Store(io.BytesIO):
    """Counts the reads, and answers each with some of what was asked for."""

    most, reads = 1 << 30, 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        return super().read(self.most if size is None or size < 0 else min(size, self.most))


@pytest.mark.parametrize("most", [1000, 1 << 30])
@pytest.mark.parametrize("columns", [1, 1000])
def test_a_footer_is_what_pyarrow_reads(columns: int, most: int) -> None:
    file = Store()
    pq.write_table(pa.table({f"image{i}": [b"abc"] for i in range(columns)}), file)
    whole = pq.read_metadata(io.BytesIO(file.getvalue()))
    assert (whole.serialized_size > 64 << 10) == (columns == 1000)
    file.most = most
    assert CheckedMetadata(read_footer(file)).metadata.equals(whole)


def test_a_table_is_opened_by_one_read() -> None:
    file = Store()
    pq.write_table(pa.table({"image": [bytes([i]) * 5000 for i in range(100)]}), file, compression="none")
    assert CheckedParquetFile(file).num_rows == 100
    assert file.reads == 1


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1PAR1", b"\xff\0\0\0PAR1", b"PAR1" + bytes(99)])
def test_what_does_not_end_in_a_footer_says_so(data: bytes) -> None:
    with pytest.raises(DataError, match="does not end in a footer"):
        read_footer(io.BytesIO(data))


def test_a_process_that_was_killed_is_replaced() -> None:
    checker = FooterChecker()
    assert checker.is_sound(footer())
    process = checker._process
    assert process
    process.kill()
    process.wait()
    assert checker.is_sound(footer())


@pytest.mark.parametrize("signal_name", ["SIGSEGV", "SIGKILL", "SIGABRT"])
def test_a_footer_that_ends_each_process_is_not_sound(signal_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f"import os, signal, sys; sys.stdin.buffer.read(12); os.kill(os.getpid(), signal.{signal_name})"
    monkeypatch.setattr("pipeline.parquet.footer_check._SCRIPT", script)
    assert not FooterChecker().is_sound(footer())


def test_a_process_that_cannot_run_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.parquet.footer_check._SCRIPT", "import sys; sys.exit(1)")
    with pytest.raises(RuntimeError, match="exit code 1"):
        FooterChecker().is_sound(footer())
