"""What of a shard could not be read, told apart from images that could not be decoded: a lost shard is not one row."""

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
"""Of a shard where the row has the shard's name, of an image where it has its own."""
MAX_REASON_CHARACTERS = 300
"""Of a reason in a commit record."""


def find_damage(
    rows: pa.Table, shard_ids: Mapping[str, str], known: Mapping[str, Damage] | None = None
) -> dict[str, Damage]:
    """The rows (of `schema.ROW`) that stand for what could not be read of a shard of many images, by shard id.

    Args:
        shard_ids: shard id by path.
        known: that of the same rows as it was found before, for the bytes; else they are in the column `num_bytes`.
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
    """Whether a row has the name of its shard, or that and a place in it, and not an image's."""
    name = path.rpartition("/")[2]
    return (image_id == name or image_id.startswith(f"{name}@")) and format_of(name) != ShardFormat.IMAGE
