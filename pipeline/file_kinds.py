"""Which files of a folder are input, by their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from pipeline.errors import InputError
from pipeline.names import EXTENSIONS, printable
from pipeline.shards import Form, Shard

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def is_input(name: str, ignored: Counter[str]) -> bool:
    """Whether a file of a folder holds images, by its name; counts it by its kind if not."""
    base = name.rpartition("/")[2].lower()
    extension = base.rpartition(".")[2] if "." in base else ""
    if base.startswith("."):
        ignored["hidden"] += 1
        return False
    if extension in EXTENSIONS or extension in (Form.TAR, Form.PARQUET):
        return True
    ignored[printable(f".{extension}" if extension else "no extension")] += 1
    return False


def id_of(name: str) -> str:
    """The image_id of an image file; empty for a shard of many images."""
    return "" if name.lower().endswith((".tar", ".parquet")) else printable(name)


def refuse_compressed(path: str) -> None:
    """Raises InputError for a tar that is compressed."""
    if path.lower().endswith(_COMPRESSED):
        raise InputError(f"{printable(path)} is compressed, so it cannot be read from the middle; unpack it first")


def tables_if_alone(shards: Iterable[Shard], ignored: Counter[str]) -> Iterator[Shard]:
    """The shards of a folder. Parquet files beside images or tars tell of them, say, and are ignored."""
    tables, others = [], False
    for shard in shards:
        if shard.form == Form.PARQUET:
            tables.append(shard)
        else:
            others = True
            yield shard
    if not others:
        yield from tables
    elif tables:
        ignored[".parquet"] += len(tables)
