"""The process that checks footers, and its replacement when one ends it."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.parquet.footer_check import FooterChecker


def footer() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"image": [b"abc"]}), file)
    data = file.getvalue()
    return data[-8 - int.from_bytes(data[-8:-4], "little") : -8]


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
    script = f"import os, signal, sys; sys.stdin.buffer.read(4); os.kill(os.getpid(), signal.{signal_name})"
    monkeypatch.setattr("pipeline.parquet.footer_check._SCRIPT", script)
    assert not FooterChecker().is_sound(footer())


def test_a_process_that_cannot_run_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.parquet.footer_check._SCRIPT", "import sys; sys.exit(1)")
    with pytest.raises(RuntimeError, match="exit code 1"):
        FooterChecker().is_sound(footer())
