"""A list of images from standard input: kept in a file while the process runs, so that it can be read twice."""

from __future__ import annotations

import atexit
import hashlib
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TextIO

from pipeline.errors import InputError
from pipeline.readers.lists import looks_like_json_lines
from pipeline.shards import STANDARD_INPUT, Shard

PIECE_BYTES = 1 << 20


def shard() -> Shard:
    """The list, known by its content and this folder, to which its paths are relative. Raises InputError for none."""
    return _spooled(sys.stdin)


@lru_cache(1)  # it can be read once
def _spooled(stream: TextIO | None) -> Shard:
    if stream is None or stream.isatty():
        raise InputError(f"{STANDARD_INPUT} is a list on standard input, and nothing is piped into it")
    digest, size, kind = hashlib.sha256(), 0, ""
    with tempfile.NamedTemporaryFile(prefix="shardtalk-", delete=False) as spooled:
        atexit.register(Path(spooled.name).unlink, missing_ok=True)
        while piece := stream.buffer.read(PIECE_BYTES):
            kind = kind or ("jsonl" if looks_like_json_lines(piece) else "txt")
            digest.update(piece)
            size += len(piece)
            spooled.write(piece)
    if not size:
        raise InputError(f"{STANDARD_INPUT} is a list on standard input, and that is empty")
    path = Path(f"{spooled.name}.{kind}")
    Path(spooled.name).rename(path)
    atexit.register(path.unlink, missing_ok=True)
    version = int(digest.hexdigest()[:15], 16)
    return Shard(str(Path(STANDARD_INPUT).absolute()), "", size, version, str(path))
