"""What of a shard could not be read, told apart from images that could not be decoded: a lost shard is not one row."""

from __future__ import annotations

from collections.abc import Mapping

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


def find_damage(rows: pa.Table, shard_ids: Mapping[str, str]) -> dict[str, Damage]:
    """The rows (of `schema.ROW`) that stand for what could not be read of a shard of many images, by shard id.

    Args:
        shard_ids: shard id by path.
    """
    codes = pa.array(sorted(SHARD_ERRORS | SHARD_OR_IMAGE_ERRORS))
    found: dict[str, Damage] = {}
    for row in (
        rows.select(["shard", "image_id", "error_code", "error_message"])
        .filter(pc.is_in(rows["error_code"], codes))
        .to_pylist()
    ):
        if row["error_code"] in SHARD_ERRORS or _is_named_after(row["image_id"], row["shard"]):
            shard = shard_ids[row["shard"]]
            before = found.get(shard)
            reason = f"{row['error_code']}: {row['error_message']}"[:MAX_REASON_CHARACTERS]
            found[shard] = Damage(before.rows + 1, before.reason) if before else Damage(1, reason)
    return found


def _is_named_after(image_id: str, path: str) -> bool:
    """Whether a row has the name of its shard, or that and a place in it, and not an image's."""
    name = path.rpartition("/")[2]
    return (image_id == name or image_id.startswith(f"{name}@")) and format_of(name) != ShardFormat.IMAGE
