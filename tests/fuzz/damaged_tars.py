"""Strategies for tars with members of all kinds and for damage to them, and other readers to compare with."""

from __future__ import annotations

import io
import os
import random
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import strategies as st

from pipeline.filenames import EXTENSIONS

BLOCK = 512
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
SPARSE = [["--format=gnu"], *(["--format=posix", f"--sparse-version={version}"] for version in ("0.0", "0.1", "1.0"))]

stems = st.sampled_from(
    ["a", "b", "c", "22.05", "22.06", "d/a", "._a", "é", "x" * 90, "d/" + "y" * 140, ".c", "__meta__"]
)
extensions = st.sampled_from([".jpg", ".jpg", ".PNG", ".left.jpg", ".txt", ".json", ".tar", "", ".jpg.gz"])
names = st.builds("".join, st.tuples(stems, extensions))
sizes = st.sampled_from([0, 1, 100, 511, 512, 513, 1024, 1500])


@cache
def sparse_fragment(form: int) -> bytes:
    """Returns a sparse file of ten parts as GNU tar stores it, without the end of the tar."""
    with TemporaryDirectory() as folder:
        with Path(folder, "sparse.png").open("wb") as file:
            for part in range(10):
                file.seek(part * 16384)
                file.write(bytes([part + 1]) * 4096)
            file.truncate(200_000)
        command = ["tar", "-S", *SPARSE[form], "--mtime=@0", "-b1", "-C", folder, "-cf", "-", "sparse.png"]
        return subprocess.run(command, check=True, capture_output=True).stdout[: -2 * BLOCK]


def _file(name: str, size: int, seed: int) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = size
    return info, random.Random(f"{name} {seed}").randbytes(size)


def _other(name: str, kind: bytes, target: str, size: int) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info, b""


def _inner(name: str, seed: int) -> tuple[tarfile.TarInfo, bytes]:
    data = built([_file("inner.jpg", 700, seed)], tarfile.GNU_FORMAT, comment=False)
    info = tarfile.TarInfo(f"{name}.tar")
    info.size = len(data)
    return info, data


seeds = st.integers(0, 5)
links = st.builds(_other, names, st.sampled_from([tarfile.LNKTYPE, tarfile.SYMTYPE]), names, st.just(0))
others = st.builds(
    _other, names, st.sampled_from([tarfile.DIRTYPE, tarfile.FIFOTYPE]), st.just(""), st.sampled_from([0, 4096])
)
files = st.builds(_file, names, sizes, seeds)
members = st.one_of(
    files, files, files, files, links, others, st.builds(_inner, stems, seeds), st.integers(0, len(SPARSE) - 1)
)


def built(found: list[tuple[tarfile.TarInfo, bytes] | int], form: int, *, comment: bool) -> bytes:
    """Builds a tar of these members; numbers stand for sparse files."""
    buffer = io.BytesIO()
    pax = {"comment": "of all members"} if comment and form == tarfile.PAX_FORMAT else {}
    with tarfile.open(fileobj=buffer, mode="w", format=form, pax_headers=pax) as tar:
        for member in found:
            if isinstance(member, int):
                buffer.write(sparse_fragment(member))
                tar.offset = buffer.tell()
                continue
            info, data = member
            try:
                info.tobuf(form, "utf-8", "surrogateescape")
            except ValueError:  # a name that has no room in a header of 1988
                continue
            tar.addfile(info, io.BytesIO(data) if data else None)
    return buffer.getvalue()


tars = st.builds(built, st.lists(members, max_size=8), st.sampled_from(FORMATS), comment=st.booleans())
Damage = Callable[[bytes], bytes]
places = st.floats(0, 1, exclude_max=True)


def _zeroed(place: float, blocks: int) -> Damage:
    def damage(data: bytes) -> bytes:
        start = int(place * len(data)) // BLOCK * BLOCK
        return data[:start] + bytes(min(blocks * BLOCK, len(data) - start)) + data[start + blocks * BLOCK :]

    return damage


def _flipped(place: float, bit: int) -> Damage:
    def damage(data: bytes) -> bytes:
        at = int(place * len(data))
        return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] if data else data

    return damage


def _inserted(place: float, count: int, step: int) -> Damage:
    def damage(data: bytes) -> bytes:
        at = int(place * len(data)) // step * step
        return data[:at] + random.Random(count).randbytes(count * step) + data[at:]

    return damage


def _removed(place: float, blocks: int) -> Damage:
    def damage(data: bytes) -> bytes:
        at = int(place * len(data)) // BLOCK * BLOCK
        return data[:at] + data[at + blocks * BLOCK :]

    return damage


def _cut(place: float) -> Damage:
    return lambda data: data[: int(place * len(data))]


counts = st.integers(1, 8)
damages = st.one_of(
    st.builds(_zeroed, places, counts),
    st.builds(_flipped, places, st.integers(0, 7)),
    st.builds(_inserted, places, counts, st.just(BLOCK)),
    st.builds(_removed, places, counts),
    st.builds(_cut, places),
)
odd_damages = st.builds(_inserted, places, st.integers(1, 700), st.just(1))


def _damaged(parts: list[bytes], done: list[Damage]) -> bytes:
    data = b"".join(parts)
    for damage in done:
        data = damage(data)
    return data


damaged_tars = st.builds(
    _damaged, st.lists(tars, min_size=1, max_size=2), st.lists(damages, max_size=3) | st.lists(odd_damages, max_size=1)
)


def is_image(name: str) -> bool:
    """Returns whether a name is that of an image by the rules in docs/inputs.md."""
    base = name.rpartition("/")[2]
    return "." in base and base.rpartition(".")[2].lower() in EXTENSIONS and not base.startswith("._")


def images_by_tarfile(path: Path) -> Iterator[bytes]:
    """Reads the images by `tarfile`, up to the place where it fails."""
    try:
        with tarfile.open(path, ignore_zeros=True) as tar:
            for info in tar:
                if is_image(info.name) and (
                    info.isreg() or info.islnk() or info.issym() or info.type not in tarfile.SUPPORTED_TYPES
                ):
                    try:
                        file = tar.extractfile(info)
                        data = file.read() if file else b""
                    except (tarfile.TarError, KeyError, RecursionError, OSError):
                        continue
                    yield data
    except Exception:  # noqa: BLE001 - its own shortcomings are not the point
        return


def images_by_gnu_tar(path: Path, folder: Path) -> Iterator[bytes]:
    """Extracts the images by GNU tar, one file per name, without truncated members."""
    command = ["tar", "-i", "--quoting-style=literal", "-C", folder, "-xvf", path]
    said = subprocess.run(command, capture_output=True, check=False)
    lines = said.stdout.splitlines()
    if lines and b"Unexpected EOF" in said.stderr:
        Path(os.fsdecode(os.path.join(os.fsencode(folder), lines[-1].lstrip(b"/")))).unlink(missing_ok=True)
    for above, _, found in os.walk(folder):
        for name in found:
            file = Path(above, name)
            if is_image(name) and file.is_file() and not file.is_symlink():
                yield file.read_bytes()
