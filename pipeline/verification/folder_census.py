"""Lists the input files independently of the job's listing: by `os.listdir`, `pathlib`, a paginator of boto3.

Stores other than S3 are not listed, because pyarrow's or fsspec's listing is the only one there is.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.filenames import EXTENSIONS
from pipeline.inputs.brace_expansion import expand_input
from pipeline.shards import STANDARD_INPUT
from pipeline.storage.filesystems import is_remote, is_s3

TABLE = ".parquet"


def list_files(inputs: Iterable[str]) -> Iterator[str]:
    """Yields paths and URLs of files that hold images, by their names; files named as input are always included."""
    for given in (name for text in inputs for name in expand_input(text) if text != STANDARD_INPUT):
        if is_s3(given):
            yield from _on_s3(given)
        elif not is_remote(given):
            path = Path(given).expanduser().absolute()
            if os.path.isdir(path):  # noqa: PTH112 - Path's raises where it may not look
                yield from _without_metadata_tables(_below(str(path)))
            elif os.path.lexists(path):
                yield str(path)
            elif glob.has_magic(given):
                yield from _matching(path)


def _below(top: str) -> Iterator[str]:
    """Yields the files below a folder, unordered, visiting each folder once. `os.walk` fails for deep folders."""
    folders, links, listed = [top], list[str](), set[tuple[int, int]]()
    while folders or links:
        folder = folders.pop() if folders else links.pop()
        try:
            status = os.stat(folder)  # noqa: PTH116 - as below, of millions
            if (status.st_dev, status.st_ino) in listed:
                continue
            names = os.listdir(folder)  # noqa: PTH208
        except OSError:  # the job's listing has an error row for it
            continue
        listed.add((status.st_dev, status.st_ino))
        for name in names:
            path = os.path.join(folder, name)  # noqa: PTH118
            if not os.path.isdir(path):  # noqa: PTH112
                yield path
            else:
                (links if os.path.islink(path) else folders).append(path)  # noqa: PTH114


def _matching(pattern: Path) -> Iterator[str]:
    """Yields the files that match a pattern, without hidden files and folders, as in a shell."""
    fixed = next(i for i, part in enumerate(pattern.parts) if glob.has_magic(part))
    top = Path(*pattern.parts[:fixed])
    found = (path for path in top.glob(str(Path(*pattern.parts[fixed:]))) if not path.is_dir())
    shown = (path for path in found if not any(part.startswith(".") for part in path.relative_to(top).parts))
    yield from _without_metadata_tables(map(str, shown))


def _on_s3(url: str) -> Iterator[str]:
    from pipeline.storage import s3_client

    path = url.removeprefix("s3://").rstrip("/")
    if glob.has_magic(path):
        return
    below = [f"s3://{key}" for key in s3_client.keys_below(path)]
    yield from (key for key in below if _is_input(key) and not key.endswith(TABLE))


def _without_metadata_tables(paths: Iterable[str]) -> Iterator[str]:
    """Yields the paths that are inputs; Parquet files beside other inputs only if they hold images."""
    tables, others = [], False
    for path in filter(_is_input, paths):
        if path.lower().endswith(TABLE):
            tables.append(path)
        else:
            others = True
            yield path
    yield from (path for path in tables if not others or _holds_images(path))


def _is_input(path: str) -> bool:
    base = path.rpartition("/")[2].lower().rstrip(" .")
    extension = base.rpartition(".")[2] if "." in base else ""
    return not base.startswith(".") and (extension in EXTENSIONS or extension in ("tar", "parquet"))


def _holds_images(path: str) -> bool:
    """Returns whether a Parquet file has a binary column and is not a `metadata.parquet`."""
    if not os.path.isfile(path):  # noqa: PTH113 - opening a pipe would wait for ever
        return False
    try:
        schema = pq.read_schema(path)
    except (OSError, ValueError, pa.ArrowException):
        return False
    is_note = path.rpartition("/")[2].lower() == "metadata.parquet"
    return not is_note and any(
        pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type) for field in schema
    )
