"""Reads an object repeatedly: `python -m benchmarks.s3_reading WAY ENDPOINT TIMES`, prints MiB/s as JSON.

Ways: "boto3" reads as shards are read; "pyarrow" uses pyarrow's filesystem below; "stream" is pyarrow's own stream.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow.fs as pafs

from pipeline.storage.filesystems import READ_AHEAD_BYTES, open_at
from pipeline.storage.remote_file import PyArrowSource, RemoteFile

PIECE_BYTES = 1 << 20
OBJECT = "bucket/object"


def _system() -> pafs.S3FileSystem:
    return pafs.S3FileSystem(endpoint_override=os.environ["AWS_ENDPOINT_URL"], region="us-east-1")


WAYS: Mapping[str, Callable[[], Any]] = {
    "boto3": lambda: open_at(f"s3://{OBJECT}"),
    "pyarrow": lambda: io.BufferedReader(RemoteFile(PyArrowSource(_system(), OBJECT)), READ_AHEAD_BYTES),
    "stream": lambda: _system().open_input_stream(OBJECT),
}


def measure(way: str, times: int) -> float:
    """Returns MiB/s of reading an object `times` times, after one read that does not count."""
    read = 0
    for i in range(times + 1):
        if i == 1:
            read, started = 0, time.perf_counter()
        with WAYS[way]() as file:
            while piece := file.read(PIECE_BYTES):
                read += len(piece)
    return read / (time.perf_counter() - started) / (1 << 20)


if __name__ == "__main__":
    credentials = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "none"}
    os.environ.update(credentials, AWS_ENDPOINT_URL=sys.argv[2], AWS_DEFAULT_REGION="us-east-1")
    print(json.dumps({"mib_per_s": measure(sys.argv[1], int(sys.argv[3]))}))
