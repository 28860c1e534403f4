"""Truncated shards."""

from pathlib import Path

from conftest import Run, assert_same, rows_of, tar_of_pictures
from faults import Survived, chosen

BLOCK = 512


def test_a_tar_cut_at_any_block_keeps_what_came_before(
    tmp_path: Path, caption: Run, shardtalk: Run, survived: Survived
) -> None:
    tar = tar_of_pictures(tmp_path / "s.tar", 4)
    assert caption(tar, output=tmp_path / "whole")[0] == 0
    whole, data = rows_of(tmp_path / "whole"), tar.read_bytes()
    for size in chosen(range(0, len(data) - BLOCK, BLOCK), few=6):  # one zero block is enough of an end
        tar.write_bytes(data[:size])
        output = tmp_path / str(size)
        assert caption(tar, "--max_error_rate", 1, output=output)[0] == 0
        *before, last = rows_of(output)
        known = [row | {"shard": str(tar)} for row in whole[: len(before)]]
        assert_same(before, known)
        assert last["error_code"] == "truncated_shard" and last["image_id"].startswith("s.tar@")
        assert shardtalk("verify", output, tar)[0] == 0
        survived("tar cut at a 512-byte block", "the rows before the cut, and an error row")
