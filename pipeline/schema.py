"""The table schemas: the rows of the output, and the columns that pass between the stages before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pyarrow as pa

from pipeline.errors import DataError


class ErrorCode(StrEnum):
    """The reason why a row has no caption."""

    UNREADABLE = "unreadable"  # the file cannot be opened or read
    CHANGED_INPUT = "changed_input"  # the object was replaced after it was listed, or while it was read
    EMPTY_FILE = "empty_file"  # zero bytes
    NOT_AN_IMAGE = "not_an_image"  # no image format that Pillow knows
    CORRUPT_IMAGE = "corrupt_image"  # begins like an image and cannot be decoded to its end
    UNSUPPORTED_FORMAT = "unsupported_format"  # an image that this installation cannot decode; the message has advice
    TOO_LARGE = "too_large"  # more bytes than `max_image_bytes`; not read
    DECOMPRESSION_BOMB = "decompression_bomb"  # more pixels than `pipeline.images.decoding.MAX_PIXELS`
    NO_IMAGE = "no_image"  # a null in a table; a link in a tar whose target is not in the tar
    TRUNCATED_SHARD = "truncated_shard"  # a tar that ends early; what came before it is captioned
    CORRUPT_SHARD = "corrupt_shard"  # a damaged place in a tar; the members before and behind it are captioned
    OUT_OF_MEMORY = "out_of_memory"  # too little memory to decode it, or on the device to caption this image alone
    CAPTIONER_FAILED = "captioner_failed"  # the captioner raised an exception at this image, or took too long
    WORKER_DIED = "worker_died"  # the process was killed each time it worked on this image alone
    EMPTY_SHARD = "empty_shard"  # a tar or table without images


ROW = pa.schema(
    [
        # Path relative to the input folder; in a tar, WebDataset key or member's name, or where it is damaged.
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),  # path or URL of the file that holds the image
        pa.field("index", pa.int64(), nullable=False),  # position in the shard, from 0; 0 for an image file
        pa.field("caption", pa.string()),  # null where there is an error
        pa.field("log_prob", pa.float32()),  # sum of natural-log token probabilities, ≤ 0
        pa.field("num_tokens", pa.int32()),  # tokens scored: the words and END, ≥ 1
        # n-best, best first; the first is `caption`
        pa.field("candidates", pa.list_(pa.struct([("caption", pa.string()), ("log_prob", pa.float32())]))),
        pa.field("width", pa.int32()),  # pixels, as displayed; null where the image could not be opened
        pa.field("height", pa.int32()),
        pa.field("error_code", pa.string()),  # of `ErrorCode`; null where there is a caption
        pa.field("error_message", pa.string()),
        pa.field(
            "siblings", pa.string()
        ),  # JSON object of what lies beside the image, by extension; null unless asked for
    ]
)
"""A row of the output. (shard, index) is its identity; in a tar, so is (shard, image_id)."""

TOKEN_PROBS = pa.field("token_probs", pa.list_(pa.float32()))
"""A column that our networks add on request: probability, in [0, 1], of each word of `caption` and of END."""

CONFIDENCE = "confidence"
"""Name of the column that outputs of some captioners have: the probability, in [0, 1], that a caption is right."""

POSITION = pa.schema(
    [
        pa.field("shard_id", pa.string(), nullable=False),  # `pipeline.shards.Shard.id`
        pa.field("next_offset", pa.int64(), nullable=False),  # byte offset in the shard at which the next sample begins
        pa.field("last", pa.bool_(), nullable=False),  # no sample of the shard comes after this one
    ]
)
"""Columns for the commit log, besides the index. They accompany each row and are not written."""

MEASURES = pa.schema(
    [
        pa.field("num_bytes", pa.int64()),  # size of the encoded image, or of the unreadable place of a shard
        pa.field("read_s", pa.float32()),  # seconds spent on this row: its share of the time of a table
        pa.field("decode_s", pa.float32()),
        pa.field("caption_s", pa.float32()),
        pa.field("batch_images", pa.int32()),  # rows captioned together with it, and itself
        # JSON object: number of ignored files of the shard up to the next row, by kind; null if there are none
        pa.field("ignored", pa.string()),
    ]
)
"""Columns for `pipeline.inference.run_stats`. They accompany each row and are not written."""

ENCODED = pa.schema(
    [
        *(ROW.field(name) for name in ("image_id", "shard", "index", "error_code", "error_message", "siblings")),
        *POSITION,
        *(MEASURES.field(name) for name in ("num_bytes", "read_s", "ignored")),
        pa.field("image", pa.large_binary()),  # the encoded file; null if there is an error
    ]
)
"""Output of the reader. The decode stage adds `pixels`, `width`, `height`, `decode_s` and drops `image`."""

CAPTIONED = pa.schema([*ROW, *POSITION, *MEASURES])
"""Output of the caption stage, input of the part writer."""


def extended(schema: pa.Schema, columns: Iterable[pa.Field]) -> pa.Schema:
    """Returns `ROW` or `CAPTIONED`, followed by those of `columns` that are not in `CAPTIONED`: a captioner's own."""
    return pa.schema([*schema, *(field for field in columns if field.name not in CAPTIONED.names)])


_FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}
"""The names that Hugging Face `datasets` has for pyarrow's."""


def describe_column(field: pa.Field) -> dict[str, Any]:
    """Returns the name and the type of a column as JSON, as Hugging Face `datasets` describes features."""
    if pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type):
        return {"name": field.name, "list": [describe_column(inner) for inner in field.type.value_type]}
    if pa.types.is_list(field.type):
        return {"name": field.name, "list": describe_column(field.type.value_field)["dtype"]}
    return {"name": field.name, "dtype": _FLOATS.get(str(field.type), str(field.type))}


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """One row as a reader yields it: an encoded image, or the error in its place."""

    image_id: str
    next_offset: int
    """Byte offset at which the next row begins."""
    image: bytes | DataError
    siblings: Mapping[str, bytes] = field(default_factory=dict)
    """Files or columns kept beside the image, by extension or column name."""
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Number of ignored files of the shard up to the next row (no images, no siblings), by kind."""
    lost_bytes: int = 0
    """Size in bytes of the unreadable place of the shard that an error row reports; 0 for images."""
