"""Folders with unusual names, links and special files, compared with `find`."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.inputs.listing import Listing, list_inputs
from pipeline.readers.reader import read
from pipeline.shards import Span

LONG = os.environ.get("CHAOS") == "full"
usual = settings(
    max_examples=500 if LONG else 30, derandomize=not LONG, deadline=None, suppress_health_check=list(HealthCheck)
)

BYTES = st.binary(min_size=1, max_size=6).map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"0"))
ODD = st.sampled_from(
    [rb"a\xff", b"a\xff", rb"a\\xff", b"a\\\xff", b"-", b" ", b"\n", b"{1,2}", b"*", b"?", b"[a]", b"~"]
)
STEM = (BYTES | ODD).filter(lambda name: name not in (b".", b".."))
EXTENSION = st.sampled_from([b".jpg", b".PNG", b".heic", b".tar", b".parquet", b".txt", b"", b".tar.gz", b".jpg.gz"])
THINGS = ["file", "file", "folder", "link", "self", "pipe", "zero", "socket", "broken"]


@st.composite
def things(draw: st.DrawFn) -> list[tuple[bytes, str, int]]:
    """Generates name, kind, and a number that selects the folder and the target of a link."""
    entry = st.tuples(st.builds(bytes.__add__, STEM, EXTENSION), st.sampled_from(THINGS), st.integers(0, 9))
    return draw(st.lists(entry, min_size=1, max_size=25))


def made(top: Path, wanted: list[tuple[bytes, str, int]]) -> None:
    """Creates the files; a name that exists already is left out."""
    folders = [os.fsencode(top)]
    for name, kind, number in wanted:
        path = os.path.join(folders[number % len(folders)], name)
        target = {"link": folders[-1 - number % len(folders)], "self": name, "zero": b"/dev/zero", "broken": b"gone"}
        if os.path.lexists(path):
            continue
        if kind == "folder":
            os.mkdir(path)
            folders.append(path)
        elif kind in target:
            os.symlink(target[kind], path)
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            bound(path)
        else:
            Path(os.fsdecode(path)).write_bytes(b"no image")


def bound(path: bytes) -> None:
    """Creates a socket under a short name, as their length is limited, and renames it."""
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{short}/s")
        os.rename(f"{short}/s", path)


def found_by(top: Path, *options: str) -> set[bytes]:
    """Lists the paths below the folder that are no folders, by `find`."""
    command = ["find", *options[:1], top, *options[1:], "-print0"]
    return set(subprocess.run(command, check=False, capture_output=True).stdout.split(b"\0")) - {b""}


@usual
@given(things())
def test_what_find_finds_is_a_row_or_counted(wanted: list[tuple[bytes, str, int]]) -> None:
    top = Path(tempfile.mkdtemp())
    try:
        made(top, wanted)
        (top / "one.jpg").write_bytes(b"x")
        listing = list_inputs([str(top)])
        paths = {os.fsencode(shard.path) for shard in listing.shards}
        real = found_by(top, "-P", "!", "-type", "d", "!", "-type", "l")
        images = {path for path in real if path.lower().endswith((b".jpg", b".png", b".heic", b".tar"))}
        assert {path for path in images if not os.path.basename(path).startswith(b".")} <= paths
        assert all(map(os.path.lexists, paths))
        assert len(real | links(top)) <= len(paths) + listing.ignored.total() + folder_links(top)
        rows = rows_of(listing)
        assert [row["error_code"] for row in rows if not row["image"] and row["error_code"] is None] == []
        assert len({(row["shard"], row["index"]) for row in rows}) == len(rows)
        assert {row["shard_id"] for row in rows} == {shard.id for shard in listing.shards}
    finally:
        shutil.rmtree(top)


def links(top: Path) -> set[bytes]:
    """Lists the links that do not lead to a folder."""
    return {path for path in found_by(top, "-P", "-type", "l") if not os.path.isdir(path)}


def folder_links(top: Path) -> int:
    """Lists the links to folders, which are followed."""
    return sum(os.path.isdir(path) for path in found_by(top, "-P", "-type", "l"))


def rows_of(listing: Listing) -> list[dict[str, object]]:
    """Reads the rows of all shards."""
    tables = read([Span(shard) for shard in listing.shards], batch_size=7)
    return [row for table in tables for row in table.to_pylist()]
