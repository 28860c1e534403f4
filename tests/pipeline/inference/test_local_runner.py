"""The local runner on a CPU: threads that decode and caption side by side."""

import threading
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from conftest import jpeg, tar_bytes
from stage_rows import caption_stage, decode_stage
from tolerances import same_log_prob

from pipeline.inference.decode_stage import DecodeStage
from pipeline.inference.local_runner import run_local
from pipeline.inputs.listing import list_inputs
from pipeline.output.commit_log import CommitLog
from pipeline.schema import MEASURES
from pipeline.shards import Span

IMAGES = 23


@pytest.fixture
def spans(tmp_path: Path) -> list[Span]:
    named = {f"{i:02}.jpg": jpeg(i) if i % 7 else b"no image" for i in range(IMAGES)}
    (tmp_path / "s.tar").write_bytes(tar_bytes(named))
    return list(CommitLog().remaining_work(list_inputs([str(tmp_path / "s.tar")]).shards))


def run(spans: list[Span], captioner: Path, *, num_threads: int, batch_size: int = 2) -> list[pa.Table]:
    stage = partial(caption_stage, captioner)
    return list(run_local(spans, decode_stage(captioner), stage, batch_size=batch_size, num_threads=num_threads))


@pytest.mark.parametrize("num_threads", [2, 3, 19])
def test_rows_and_their_order_do_not_depend_on_the_number_of_threads(
    num_threads: int, spans: list[Span], captioner: Path
) -> None:
    expected = pa.concat_tables(run(spans, captioner, num_threads=1))
    found = pa.concat_tables(run(spans, captioner, num_threads=num_threads))
    inexact = ["log_prob", "candidates", *MEASURES.names]
    assert expected["index"].to_pylist() == list(range(IMAGES))
    assert found.drop(inexact).equals(expected.drop(inexact))
    for row, wanted in zip(found.to_pylist(), expected.to_pylist(), strict=True):
        assert row["log_prob"] == (wanted["log_prob"] and same_log_prob(wanted["log_prob"], wanted["num_tokens"]))


def test_the_cores_are_shared_out_among_the_threads(
    spans: list[Span], captioner: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[tuple[int, int]] = set()
    decode = DecodeStage.__call__

    def observed(stage: DecodeStage, rows: pa.Table) -> pa.Table:
        seen.add((threading.get_ident(), torch.get_num_threads()))
        return decode(stage, rows)

    monkeypatch.setattr(DecodeStage, "__call__", observed)
    run(spans, captioner, num_threads=17)
    assert {threads for _, threads in seen} == {2}  # 17 cores for at most eight threads
    assert threading.get_ident() not in {thread for thread, _ in seen}


@pytest.mark.parametrize("stopped_early", [False, True])
def test_the_caller_computes_with_as_many_threads_as_before(
    stopped_early: bool, spans: list[Span], captioner: Path
) -> None:
    before, running = torch.get_num_threads(), threading.active_count()
    stage = partial(caption_stage, captioner)
    tables = run_local(spans, decode_stage(captioner), stage, batch_size=1, num_threads=4)
    next(tables)
    if stopped_early:
        tables.close()
    else:
        assert len(list(tables)) == IMAGES - 1
    assert (torch.get_num_threads(), threading.active_count()) == (before, running)
