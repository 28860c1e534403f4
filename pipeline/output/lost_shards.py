"""Finds the rows that report an unreadable shard, or part of one, rather than an image that could not be decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.output.commit_log import Damage
from pipeline.schema import ErrorCode
from pipeline.shards import ShardFormat, format_of

SHARD_ERRORS = frozenset({ErrorCode.TRUNCATED_SHARD, ErrorCode.CORRUPT_SHARD})
SHARD_OR_IMAGE_ERRORS = frozenset({ErrorCode.UNREADABLE, "changed_input"})
"""Errors of a shard if the row's image_id is the shard's name, of an image otherwise."""
MAX_REASON_CHARACTERS = 300
"""Maximum length of a reason in a commit record."""


def find_damage(
    rows: pa.Table, shard_ids: Mapping[str, str], known: Mapping[str, Damage] | None = None
) -> dict[str, Damage]:
    """Counts the rows that report unreadable places in tars, Parquet files and lists, by shard id.

    Args:
        rows: a table of `schema.ROW`.
        shard_ids: shard id by path.
        known: damage of the same rows from an earlier commit, for its bytes; None: the column `num_bytes` has them.
    """
    codes, bytes_of = pa.array(sorted(SHARD_ERRORS | SHARD_OR_IMAGE_ERRORS)), "num_bytes"
    found: dict[str, Damage] = {}
    names = ["shard", "image_id", "error_code", "error_message", *([bytes_of] if bytes_of in rows.column_names else [])]
    for row in rows.select(names).filter(pc.is_in(rows["error_code"], codes)).to_pylist():
        if row["error_code"] in SHARD_ERRORS or _is_named_after(row["image_id"], row["shard"]):
            shard = shard_ids[row["shard"]]
            reason = f"{row['error_code']}: {row['error_message']}"[:MAX_REASON_CHARACTERS]
            before = found.get(shard, Damage(0, reason))
            found[shard] = Damage(before.rows + 1, before.reason, before.bytes + (row.get(bytes_of) or 0))
    if known is None:
        return found
    return {shard: replace(one, bytes=known[shard].bytes if shard in known else 0) for shard, one in found.items()}


def _is_named_after(image_id: str, path: str) -> bool:
    """Returns whether an image_id is the file name of its shard, or that and a byte offset, rather than an image's."""
    name = path.rpartition("/")[2]
    return (image_id == name or image_id.startswith(f"{name}@")) and format_of(name) != ShardFormat.IMAGE
