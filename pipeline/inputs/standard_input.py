"""A list of images from standard input, copied to a temporary file so that it can be read more than once."""

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
    """Returns the list as a shard, identified by its content and the current folder. Raises InputError if empty."""
    return _spooled(sys.stdin)


@lru_cache(1)  # standard input can be read only once
def _spooled(stream: TextIO | None) -> Shard:
    if stream is None or stream.isatty():
        raise InputError(f"{STANDARD_INPUT} is a list on standard input, but nothing is piped into it")
    digest, size, kind = hashlib.sha256(), 0, ""
    with tempfile.NamedTemporaryFile(prefix="shardtalk-", delete=False) as spooled:
        atexit.register(Path(spooled.name).unlink, missing_ok=True)
        while piece := stream.buffer.read(PIECE_BYTES):
            kind = kind or ("jsonl" if looks_like_json_lines(piece) else "txt")
            digest.update(piece)
            size += len(piece)
            spooled.write(piece)
    if not size:
        raise InputError(f"{STANDARD_INPUT} is a list on standard input, but it is empty")
    path = Path(f"{spooled.name}.{kind}")
    Path(spooled.name).rename(path)
    atexit.register(path.unlink, missing_ok=True)
    version = int(digest.hexdigest()[:15], 16)
    return Shard(str(Path(STANDARD_INPUT).absolute()), "", size, version, str(path))
