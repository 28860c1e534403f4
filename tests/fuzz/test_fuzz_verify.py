"""`verify` accepts complete outputs, and finds the rows that a faulty reader lost."""

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any
from unittest import mock

import pyarrow as pa
from damaged_tars import damaged_tars, is_image, tars
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from outputs import commit, rows_of
from test_fuzz_folders import made, things
from test_fuzz_tables import damaged, files

from pipeline.inputs.listing import list_inputs
from pipeline.read_options import DEFAULTS, ReadOptions
from pipeline.shards import Shard
from pipeline.storage.folder import Folder
from pipeline.tar import rows
from pipeline.tar.elements import Element, Member
from pipeline.verification.folder_census import list_files
from pipeline.verification.verify import find_problems

LONG = os.environ.get("CHAOS") == "full"
usual = settings(
    max_examples=1_000 if LONG else 40, derandomize=not LONG, deadline=None, suppress_health_check=list(HealthCheck)
)


def said(
    folder: Path, shard: Shard, rows: Iterable[dict[str, Any]] | None = None, options: ReadOptions = DEFAULTS
) -> list[str]:
    """Verifies an output of these rows; returns the problems."""
    output = Folder(str(folder / "out"))
    commit_log = commit(output, rows_of([shard], options) if rows is None else rows)
    return list(find_problems(output, commit_log, [shard], options, files=[shard.path]))


def written(folder: str, name: str, data: bytes) -> Shard:
    path = Path(folder, name)
    path.write_bytes(data)
    return Shard(str(path), "", len(data), path.stat().st_mtime_ns)


@usual
@given(damaged_tars)
def test_a_damaged_tar_of_which_nothing_is_missing(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        assert said(Path(folder), written(folder, "s.tar", data)) == []


@usual
@given(tars, st.integers(0, 100))
def test_a_reader_that_drops_a_member(data: bytes, number: int) -> None:
    walk = rows.walk

    def blind(*args: Any, **options: Any) -> Iterator[Element]:
        images = [one.start for one in walk(*args, **options) if isinstance(one, Member) and is_row(one)]
        assume(images)
        lost = images[number % len(images)]
        yield from (one for one in walk(*args, **options) if one.start != lost)

    with TemporaryDirectory() as folder, mock.patch.object(rows, "walk", blind):
        (problem, *_) = said(Path(folder), written(folder, "s.tar", data))
    assert "without a row" in problem


@usual
@given(tars, st.integers(1, 100))
def test_a_reader_that_stops_early(data: bytes, number: int) -> None:
    walk = rows.walk

    def blind(*args: Any, **options: Any) -> Iterator[Element]:
        whole = list(walk(*args, **options))
        stop = number % len(whole)
        assume(any(isinstance(one, Member) and is_row(one) for one in whole[stop:]))
        yield from whole[:stop]

    with TemporaryDirectory() as folder, mock.patch.object(rows, "walk", blind):
        (problem, *_) = said(Path(folder), written(folder, "s.tar", data))
    assert "without a row" in problem


def is_row(member: Member) -> bool:
    return member.kind != "other" and is_image(member.name)


@usual
@given(files(), st.data())
def test_a_table_of_which_nothing_is_missing(file: tuple[str, pa.Table, bytes], data: st.DataObject) -> None:
    kind, _, whole = file
    options = ReadOptions(image_column="picture.a.image" if kind == "nested" else "picture")
    is_damaged = data.draw(st.booleans())
    with TemporaryDirectory() as folder:
        shard = written(folder, "t.parquet", data.draw(damaged(whole)) if is_damaged else whole)
        assert said(Path(folder), shard, options=options) == []


@usual
@given(files())
def test_a_table_without_its_last_row(file: tuple[str, pa.Table, bytes]) -> None:
    kind, _, whole = file
    options = ReadOptions(image_column="picture.a.image" if kind == "nested" else "picture")
    with TemporaryDirectory() as folder:
        shard = written(folder, "t.parquet", whole)
        rows = rows_of([shard], options)
        assume(len(rows) > 1)
        rows[-2]["last"] = True
        (problem,) = said(Path(folder), shard, rows[:-1], options)
        assert problem.endswith(f"{len(rows) - 1} rows for {len(rows)} images")


@usual
@given(things(), st.integers(0, 100))
def test_a_folder(wanted: list[tuple[bytes, str, int]], number: int) -> None:
    top, output = Path(mkdtemp()), Path(mkdtemp())
    try:
        made(top, wanted)
        (top / "one.jpg").write_bytes(b"x")
        shards = list_inputs([str(top)]).shards
        folder = Folder(str(output))
        commit_log = commit(folder, rows_of(shards))
        assert list(find_problems(folder, commit_log, shards, files=list_files([str(top)]))) == []
        is_one = [Path(shard.path) == top / "one.jpg" for shard in shards]
        blind = [shard for shard, one in zip(shards, is_one, strict=True) if not one]
        shutil.rmtree(output)
        commit_log = commit(folder, rows_of(blind))
        (problem,) = find_problems(folder, commit_log, blind, files=list_files([str(top)]))
        assert problem == f"{top}/one.jpg: in the input, but neither in the job's listing nor in the output"
    finally:
        shutil.rmtree(top)
        shutil.rmtree(output, ignore_errors=True)
