"""Builds captioned rows, and a writer for them."""

import pyarrow as pa

from pipeline.output.commit_log import CommitLog
from pipeline.output.writer import PartWriter
from pipeline.schema import CAPTIONED
from pipeline.storage.folder import Folder

FORMATS = ("parquet", "jsonl")


def captioned(*positions: tuple[str, int]) -> pa.Table:
    """Builds rows of shards by name and index; the fifth is the last of its shard, and odd ones are errors."""
    return pa.Table.from_pylist(
        [
            {
                "image_id": f"k{index}",
                "shard": f"/data/{shard}.tar",
                "index": index,
                "shard_id": shard,
                "next_offset": 1000 * (index + 1),
                "last": index == 4,
                "caption": None if index % 2 else "a ‘dog’\nruns",
                "log_prob": None if index % 2 else -1.5,
                "num_tokens": None if index % 2 else 4,
                "candidates": None if index % 2 else [{"caption": "a ‘dog’\nruns", "log_prob": -1.5}],
                "width": 30,
                "height": 20,
                "error_code": "corrupt_image" if index % 2 else None,
                "error_message": "cut" if index % 2 else None,
            }
            for shard, index in positions
        ],
        schema=CAPTIONED,
    )


def part_writer(
    folder: Folder, *, file_format: str = "parquet", rows_per_file: int = 100, commit_interval_s: float = 1e9
) -> PartWriter:
    return PartWriter(
        folder,
        CommitLog.load(folder),
        file_format=file_format,
        rows_per_file=rows_per_file,
        commit_interval_s=commit_interval_s,
    )
