"""Several commands that share one output, each with `--partition i/n`."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import Run, assert_same, codes, pictures, rows_of, tar_of_pictures

import shardtalk as package
from pipeline.output import epochs, lease
from pipeline.output.commit_log import CommitLog
from pipeline.output.layout import control_path
from pipeline.output.lease import Owner
from pipeline.output.partitions import read_division
from pipeline.shards import Shard
from pipeline.storage.folder import Folder

COUNT = 3
PARTITIONS = [f"{i}/{COUNT}" for i in range(1, COUNT + 1)]


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    """Seven images in a folder, and four tars of one to four images."""
    tars = [tar_of_pictures(tmp_path / "tars" / f"{i}.tar", i, first=10 * i) for i in range(1, 5)]
    return [pictures(tmp_path / "in", 7), *tars]


@pytest.fixture
def all_partitions(caption: Run) -> Callable[..., list[str]]:
    """Runs all partitions one after another; returns what each of them said."""

    def run(*arguments: object, order: list[str] = PARTITIONS) -> list[str]:
        done = [caption(*arguments, "--partition", partition) for partition in order]
        assert [code for code, _ in done] == [0] * len(order), done
        return [said for _, said in done]

    return run


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_together_they_write_the_rows_of_one_driver(  # noqa: PLR0917
    form: str,
    inputs: list[Path],
    tmp_path: Path,
    caption: Run,
    shardtalk: Run,
    all_partitions: Callable[..., list[str]],
) -> None:
    out = tmp_path / "out"
    job = (*inputs, "--format", form, "--rows_per_file", 2, "--vis_json", True)
    *others, last = all_partitions(*job)
    assert all("not finished" in said for said in others) and "the output is complete" in last
    assert caption(*inputs, "--format", form, output=tmp_path / "whole")[0] == 0
    assert_same(rows_of(out), rows_of(tmp_path / "whole"))
    code, said = shardtalk("verify", out, *inputs)
    assert code == 0 and "17 rows, each key once" in said
    ids = {row["image_id"] for row in rows_of(out)}
    assert {row["image_id"] for row in json.loads((out / "_exports" / "vis.json").read_text())} == ids
    assert sorted(package.read(out)["image_id"].to_pylist()) == sorted(row["image_id"] for row in rows_of(out))
    if form == "parquet":
        assert pq.read_table(out).num_rows == 17
    assert shardtalk("gallery", out)[0] == 0
    manifest = json.loads((out / "_manifest.json").read_text())
    assert manifest["run"]["rows"] == manifest["totals"]["rows"] == 17
    assert sum(each["run"]["rows"] for each in manifest["partitions"].values()) == 17


def test_their_captions_can_be_scored(tmp_path: Path, shardtalk: Run, all_partitions: Callable[..., list[str]]) -> None:
    all_partitions(pictures(tmp_path / "in", 5))
    references = [{"file_path": f"{i}.jpg", "captions": ["a dog runs", "a cat sits"]} for i in range(5)]
    (tmp_path / "references.json").write_text(json.dumps(references))
    code, said = shardtalk("evaluate", tmp_path / "out", "--references", tmp_path / "references.json")
    assert code == 0 and "5 images" in said


def test_every_partition_gets_work_and_its_own_parts(
    inputs: list[Path], tmp_path: Path, all_partitions: Callable[..., list[str]]
) -> None:
    all_partitions(*inputs)
    log = CommitLog.load(Folder(str(tmp_path / "out")))
    owners = {shard: commit.file.split("-")[1] for commit in log.commits for shard in commit.paths}
    assert set(owners.values()) == {"1", "2", "3"} and len(owners) == 11
    assert sum(len(commit.paths) for commit in log.commits) == 11  # no shard has rows of two partitions


def test_again_they_find_nothing_to_do(
    inputs: list[Path], tmp_path: Path, shardtalk: Run, all_partitions: Callable[..., list[str]]
) -> None:
    all_partitions(*inputs)
    files = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*manifest.json")}
    assert all("this run 0 rows" in said and "complete" in said for said in all_partitions(*inputs))
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*manifest.json")} == files


def test_more_partitions_than_shards(tmp_path: Path, shardtalk: Run, all_partitions: Callable[..., list[str]]) -> None:
    tar = tar_of_pictures(tmp_path / "s.tar", 3)
    all_partitions(tar, order=["3/3", "1/3", "2/3"])
    assert shardtalk("verify", tmp_path / "out", tar)[0] == 0


def test_status_names_the_partitions_to_be_run(
    inputs: list[Path], tmp_path: Path, caption: Run, shardtalk: Run
) -> None:
    out = tmp_path / "out"
    assert caption(*inputs, "--partition", "2/3")[0] == 0
    with lease.hold(Folder(str(out)).below("_partitions/1-of-3")):
        code, said = shardtalk("status", out)
    assert code == 0 and said.startswith("running: process")
    assert "3 partitions: 1 finished, 1 not started (3/3), 1 running\n" in said and " of 11 files" in said
    assert caption(*inputs, "--partition", "1/3")[0] == caption(*inputs, "--partition", "3/3")[0] == 0
    assert shardtalk("status", out)[1].startswith("complete\n3 partitions: 3 finished\n17 rows")


def test_a_partition_that_is_being_written_is_refused(inputs: list[Path], tmp_path: Path, caption: Run) -> None:
    assert caption(*inputs, "--partition", "1/3")[0] == 0
    with lease.hold(Folder(str(tmp_path / "out")).below("_partitions/1-of-3")):
        code, said = caption(*inputs, "--partition", "1/3")
        assert code == 2 and said.count("\n") == 1 and "1-of-3 is being written by process" in said
        assert caption(*inputs, "--partition", "2/3")[0] == 0


@pytest.mark.parametrize("given", ["0/3", "4/3", "3", "a/b", "-1/3", "1/0", "1/3/5", "１/3"])
def test_what_is_no_partition_is_refused(given: str, tmp_path: Path, caption: Run) -> None:
    code, said = caption(pictures(tmp_path / "in", 1), f"--partition={given}")
    assert code == 2 and said.count("\n") == 1 and "i/n, such as 3/16" in said
    assert not (tmp_path / "out").exists()


def test_another_number_of_partitions_is_refused(inputs: list[Path], tmp_path: Path, caption: Run) -> None:
    assert caption(*inputs, "--partition", "1/3")[0] == 0
    code, said = caption(*inputs, "--partition", "2/4")
    assert code == 2 and said.count("\n") == 1 and "has 3 partitions, not 4; give --partition i/3" in said
    assert not (tmp_path / "out" / "_partitions" / "2-of-4").exists()


def test_a_driver_of_the_whole_output_is_refused(inputs: list[Path], tmp_path: Path, caption: Run) -> None:
    assert caption(*inputs, "--partition", "1/3")[0] == 0
    before = rows_of(tmp_path / "out")
    code, said = caption(*inputs)
    assert code == 2 and said.count("\n") == 1 and "is written in 3 partitions; give --partition i/3" in said
    assert rows_of(tmp_path / "out") == before and not (tmp_path / "out" / "_lease.json").exists()


def test_an_output_that_was_begun_by_one_driver_is_not_divided(
    inputs: list[Path], tmp_path: Path, caption: Run
) -> None:
    assert caption(*inputs)[0] == 0
    code, said = caption(*inputs, "--partition", "1/3")
    assert code == 2 and said.count("\n") == 1 and "begun without --partition" in said
    assert not (tmp_path / "out" / "_partitions").exists()


def test_an_output_that_one_driver_is_writing_is_not_divided(inputs: list[Path], tmp_path: Path, caption: Run) -> None:
    with lease.hold(Folder(str(tmp_path / "out"))):
        code, said = caption(*inputs, "--partition", "1/3")
    assert code == 2 and said.count("\n") == 1 and "is being written by process" in said


def test_what_a_driver_left_without_rows_is_divided_and_swept(
    inputs: list[Path], tmp_path: Path, shardtalk: Run, all_partitions: Callable[..., list[str]]
) -> None:
    out = Folder(str(tmp_path / "out"))
    epochs.write_snapshot(out, epochs.claim(out, Owner.me().id), [], {"captioner": "another"})
    for name in ("_job.json", "part-0123456789abcdef.parquet"):
        out.write(name, b"{}")
    all_partitions(*inputs)
    assert shardtalk("verify", tmp_path / "out", *inputs)[0] == 0


def test_another_job_is_refused_before_there_are_rows(inputs: list[Path], tmp_path: Path, caption: Run) -> None:
    assert caption(inputs[-1], "--partition", "2/2")[0] == 0  # has no shard
    assert rows_of(tmp_path / "out") == []
    code, said = caption(inputs[-1], "--partition", "1/2", "--format", "jsonl")
    assert code == 2 and said.count("\n") == 1 and "format was 'parquet' and is 'jsonl'" in said


def test_other_inputs_are_refused(inputs: list[Path], tmp_path: Path, caption: Run) -> None:
    assert caption(inputs[0], "--partition", "1/3")[0] == 0
    code, said = caption(inputs[1], "--partition", "2/3")
    assert code == 2 and said.count("\n") == 1 and "give all of them the same inputs" in said


def test_an_input_that_grew_between_two_starts_is_complete_once_all_ran_again(
    tmp_path: Path, caption: Run, shardtalk: Run, all_partitions: Callable[..., list[str]]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    tar_of_pictures(folder / "s.tar", 4)
    assert caption(folder, "--partition", "1/3")[0] == 0
    division = read_division(Folder(str(out)))
    assert division
    of_each = {division.number_of(Shard(str(path), "", 1, 1)): path for i in range(99) if (path := folder / f"{i}.tar")}
    for number, path in of_each.items():
        tar_of_pictures(path, 2, first=10 * number)
    said = [caption(folder, "--partition", partition)[1] for partition in PARTITIONS[1:]]
    assert "1/3 finished while the input was another; run all partitions again" in said[-1]
    code, told = shardtalk("verify", out, folder)
    assert code == 1 and f"{of_each[1]}: not in the output" in told and "there is no _manifest.json" in told
    all_partitions(folder)
    assert shardtalk("verify", out, folder)[0] == 0
    tar_of_pictures(folder / "late.tar", 1, first=90)  # once it is complete
    all_partitions(folder, order=["3/3", "1/3", "2/3"])
    assert shardtalk("verify", out, folder)[0] == 0
    assert len(rows_of(out)) == 4 + 3 * 2 + 1


def test_the_last_driver_with_an_older_listing_completes_nothing(tmp_path: Path, caption: Run) -> None:
    folder = pictures(tmp_path / "in", 9)
    for partition in PARTITIONS[:2]:
        assert caption(folder, "--partition", partition)[0] == 0
    (folder / "8.jpg").rename(tmp_path / "away.jpg")
    assert "finished while the input was another" in caption(folder, "--partition", "3/3")[1]
    assert not (tmp_path / "out" / "_manifest.json").exists()


def test_a_shard_that_changed_stays_with_its_partition(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder = tmp_path / "in"
    for i in range(8):
        tar_of_pictures(folder / f"{i}.tar", 1, first=i)
    assert caption(folder, "--partition", "1/2")[0] == 0
    captioned = {row["shard"] for row in rows_of(tmp_path / "out")}
    assert len(captioned) == 4
    for i in range(8):
        if str(folder / f"{i}.tar") in captioned:
            tar_of_pictures(folder / f"{i}.tar", 2, first=i)
    assert caption(folder, "--partition", "2/2")[0] == 0
    assert sorted(row["shard"] for row in rows_of(tmp_path / "out")) == [str(folder / f"{i}.tar") for i in range(8)]
    code, said = caption(folder, "--partition", "1/2")
    assert code == 2 and said.count("\n") == 1 and "has changed since it was captioned" in said
    code, said = shardtalk("verify", tmp_path / "out", folder)
    assert code == 1 and said.count("has changed since it was captioned") == 4


def test_an_input_that_was_moved_is_refused(tmp_path: Path, caption: Run) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for i in range(4):
        tar_of_pictures(first / f"{i}.tar", 1, first=i)
    pictures(second, 2)
    assert caption(first, second, "--partition", "1/2")[0] == 0
    first.rename(tmp_path / "moved")
    code, said = caption(tmp_path / "moved", second, "--partition", "2/2")
    assert code == 2 and said.count("\n") == 1 and "it would be captioned twice" in said
    first.symlink_to(tmp_path / "moved")
    assert caption(first, second, "--partition", "2/2")[0] == 0


def test_each_retries_its_own_errors(tmp_path: Path, shardtalk: Run, all_partitions: Callable[..., list[str]]) -> None:
    folder = pictures(tmp_path / "in", 6)
    for i in range(6):
        (folder / f"{i}.jpg").rename(tmp_path / f"{i}.jpg")
        (folder / f"{i}.jpg").symlink_to(tmp_path / f"{i}.jpg")
        if i % 2:
            (tmp_path / f"{i}.jpg").rename(tmp_path / f"away-{i}.jpg")
    all_partitions(folder, "--max_error_rate", 1)
    assert list(codes(tmp_path / "out").values()) == [None, "unreadable"] * 3
    for i in (1, 3, 5):
        (tmp_path / f"away-{i}.jpg").rename(tmp_path / f"{i}.jpg")
    said = all_partitions(folder, "--max_error_rate", 1, "--retry_errors", True)
    assert sum(map(int, re.findall(r"(\d+) rows with errors are tried again", "".join(said)))) == 3
    assert "the output is complete" in said[-1]
    assert list(codes(tmp_path / "out").values()) == [None] * 6
    assert shardtalk("verify", tmp_path / "out", folder)[0] == 0


def test_the_unfinished_files_of_a_live_partition_stay(inputs: list[Path], tmp_path: Path, caption: Run) -> None:
    out = tmp_path / "out"
    assert caption(*inputs, "--partition", "1/3")[0] == 0
    live = [out / "part-2-of-3-0123456789abcdef.parquet", out / ".part-2-of-3-fedcba9876543210.parquet-2-of-3.tmp"]
    own = [out / "part-3-of-3-0123456789abcdef.parquet", out / ".part-3-of-3-fedcba9876543210.parquet-3-of-3.tmp"]
    own.append(out / "_partitions" / "3-of-3" / "._plan.json.tmp")
    own[-1].parent.mkdir()
    for path in [*live, *own]:
        path.write_bytes(b"")
    assert caption(*inputs, "--partition", "3/3")[0] == 0
    assert all(path.exists() for path in live) and not any(path.exists() for path in own)
    assert caption(*inputs, "--partition", "2/3")[0] == 0
    assert not any(path.exists() for path in live)


def test_what_a_driver_of_a_partition_wrote_after_it_lost_it_does_not_count(
    inputs: list[Path], tmp_path: Path, caption: Run, shardtalk: Run, all_partitions: Callable[..., list[str]]
) -> None:
    out = tmp_path / "out"
    all_partitions(*inputs, "--rows_per_file", 1, "--batch_size", 1)
    late = {
        path: path.read_bytes() for pattern in ("part-2-*", "_partitions/2-*/_commits/*") for path in out.glob(pattern)
    }
    for path in late:
        path.unlink()
    assert caption(*inputs, "--partition", "2/3")[0] == 0
    rows = rows_of(out)
    for path, data in late.items():
        path.write_bytes(data)
    assert rows_of(out) == rows
    code, said = shardtalk("verify", out, *inputs)
    assert code == 1 and said.count("by a driver that had lost the output") == len(late) / 2
    assert caption(*inputs, "--partition", "2/3")[0] == 0
    assert rows_of(out) == rows and shardtalk("verify", out, *inputs)[0] == 0


def test_as_functions_they_return_manifests_of_their_own(tmp_path: Path, captioner: Path) -> None:
    folder = pictures(tmp_path / "in", 5)
    manifests = [
        package.caption(folder, tmp_path / "out", captioner=str(captioner), runner="local", partition=f"{i}/2")
        for i in (1, 2)
    ]
    assert sum(manifest["totals"]["rows"] for manifest in manifests) == 5
    assert package.verify(tmp_path / "out", folder) == []
    assert (tmp_path / "out" / control_path(None) / "_manifest.json").exists()
