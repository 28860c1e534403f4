"""Epochs: the driver whose commits count."""

from pathlib import Path

import pytest

from pipeline.errors import OutputError
from pipeline.output import epochs
from pipeline.output.epochs import Epoch, EpochSnapshot, claim, is_newest, read_snapshot, remove_older, write_snapshot
from pipeline.storage.folder import Folder


@pytest.fixture(params=["exclusive", "not exclusive"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    if request.param != "exclusive":
        monkeypatch.setattr(Folder, "create", lambda *_: False)
    return Folder(str(tmp_path))


def test_epochs_are_numbered(folder: Folder) -> None:
    assert [claim(folder, driver) for driver in ("a", "b")] == [Epoch(1, "a"), Epoch(2, "b")]
    assert Epoch(7, "a").id == "000007-a"
    assert folder.names("_epochs") == ["000001", "000002"]


def test_the_millionth_comes_after_those_before(folder: Folder) -> None:
    for number in (999_999, 1_000_000):
        write_snapshot(folder, Epoch(number, "a"), [str(number)], {})
    assert read_snapshot(folder) == EpochSnapshot("1000000-a", frozenset({"1000000"}), {})
    assert claim(folder, "b").number == 1_000_001


def test_other_files_are_no_epochs(folder: Folder) -> None:
    for name in ("notes.txt", ".000009.tmp", "000008-x", "9", "000007-a.json.bak"):
        folder.write(f"_epochs/{name}", b"")
    assert read_snapshot(folder) is None and claim(folder, "a") == Epoch(1, "a")


def test_the_newest_is_who_claimed_last(folder: Folder) -> None:
    first = claim(folder, "a")
    assert is_newest(folder, first)
    second = claim(folder, "b")
    assert not is_newest(folder, first) and is_newest(folder, second)


def test_of_two_claims_of_a_number_the_last_counts(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulates a driver that pauses between reading the epochs and its claim."""
    first = claim(folder, "a")
    write_snapshot(folder, first, ["mine"], {})
    folder.write(first.claim_file, b"b")
    assert not is_newest(folder, first) and is_newest(folder, Epoch(1, "b"))
    assert read_snapshot(folder) == EpochSnapshot(
        "000001-a", frozenset({"mine"}), {}
    )  # until the other has looked, too
    write_snapshot(folder, Epoch(1, "b"), ["mine", "more"], {})
    assert read_snapshot(folder) == EpochSnapshot("000001-b", frozenset({"mine", "more"}), {})
    folder.write(first.claim_file, b"a")
    assert read_snapshot(folder) == EpochSnapshot("000001-a", frozenset({"mine"}), {})


def test_a_number_that_another_claims_at_the_same_moment_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(str(tmp_path))
    claim(folder, "a")
    monkeypatch.setattr(epochs, "_listed", lambda _: [])
    with pytest.raises(OutputError, match="was faster"):
        claim(folder, "b")


def test_a_claim_alone_changes_nothing_that_counts(folder: Folder) -> None:
    write_snapshot(folder, claim(folder, "a"), ["part-1.parquet"], {"format": "parquet"})
    found = read_snapshot(folder)
    claim(folder, "b")
    assert (
        read_snapshot(folder)
        == found
        == EpochSnapshot("000001-a", frozenset({"part-1.parquet"}), {"format": "parquet"})
    )


def test_what_counts_is_what_was_found_and_the_drivers_own() -> None:
    begun = EpochSnapshot("000002-b", frozenset({"part-1.parquet"}), {})
    assert begun.includes("000002-b", "part-9.parquet") and begun.includes("000001-a", "part-1.parquet")
    assert not begun.includes("000001-a", "part-2.parquet") and not begun.includes("", "part-2.parquet")


def test_older_epochs_are_swept_and_their_drivers_still_find_out(folder: Folder) -> None:
    old = [claim(folder, driver) for driver in "abc"]
    for epoch in old:
        write_snapshot(folder, epoch, [], {})
    remove_older(folder, old[2])
    assert folder.names("_epochs") == ["000003", "000003-c.json"]
    assert [is_newest(folder, epoch) for epoch in old] == [False, False, True]


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"3", b'{"epoch": "000001-a", "files": 3, "job": {}}'])
def test_a_damaged_file_is_named(text: bytes, folder: Folder) -> None:
    epoch = claim(folder, "a")
    folder.write(epoch.snapshot_file, text)
    with pytest.raises(OutputError, match=r"_epochs/000001-a\.json is damaged"):
        read_snapshot(folder)
