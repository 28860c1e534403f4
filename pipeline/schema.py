"""The columns. Declared once: what is written, and what travels between the stages before it."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import pyarrow as pa

from pipeline.errors import DataError


class ErrorCode(StrEnum):
    """Why a row has no caption."""

    UNREADABLE = "unreadable"  # the file cannot be opened or read
    CHANGED_INPUT = "changed_input"  # the object was replaced after it was listed, or while it was read
    EMPTY_FILE = "empty_file"  # zero bytes
    NOT_AN_IMAGE = "not_an_image"  # of no format that Pillow knows
    CORRUPT_IMAGE = "corrupt_image"  # begins like an image and cannot be decoded to its end
    UNSUPPORTED_FORMAT = "unsupported_format"  # an image that this installation cannot decode; says what to do
    TOO_LARGE = "too_large"  # more bytes than `max_image_bytes`; not read
    DECOMPRESSION_BOMB = "decompression_bomb"  # more pixels than `pipeline.images.decoding.MAX_PIXELS`
    NO_IMAGE = "no_image"  # a null in a table; in a tar, a link to nothing that is in it
    TRUNCATED_SHARD = "truncated_shard"  # a tar that ends early; what came before it is captioned
    CORRUPT_SHARD = "corrupt_shard"  # bytes of a tar that are no members; what lies before and behind is captioned
    OUT_OF_MEMORY = "out_of_memory"  # too little to decode it, or on the device to caption even this image alone
    WORKER_DIED = "worker_died"  # the process ended, without a word, each time it worked on this image alone
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
"""Only on request: probability, in [0, 1], of each word of `caption` and of its end; null where there is an error."""

POSITION = pa.schema(
    [
        pa.field("shard_id", pa.string(), nullable=False),  # `pipeline.inputs.listing.Shard.id`
        pa.field("next_offset", pa.int64(), nullable=False),  # byte offset in the shard at which the next sample begins
        pa.field("last", pa.bool_(), nullable=False),  # no sample of the shard comes after this one
    ]
)
"""What the ledger needs to know of a row beside its index. Travels with it, and is not written."""

MEASURES = pa.schema(
    [
        pa.field("num_bytes", pa.int64()),  # of the encoded image; of a shard's damage, what it covers
        pa.field("read_s", pa.float32()),  # seconds spent on this row: its share of a table's
        pa.field("decode_s", pa.float32()),
        pa.field("caption_s", pa.float32()),
        pa.field("batch_images", pa.int32()),  # rows captioned together with it, and itself
        # JSON object: files of the shard up to the next row that are no images, by kind; null if there are none
        pa.field("ignored", pa.string()),
    ]
)
"""What the report needs to know of a row. Travels with it, and is not written."""

ENCODED = pa.schema(
    [
        *(ROW.field(name) for name in ("image_id", "shard", "index", "error_code", "error_message", "siblings")),
        *POSITION,
        *(MEASURES.field(name) for name in ("num_bytes", "read_s", "ignored")),
        pa.field("image", pa.large_binary()),  # the encoded file; null where there is an error
    ]
)
"""What the reader gives to the decoder. The decoder adds `pixels`, `width`, `height`, `decode_s` and drops `image`."""

CAPTIONED = pa.schema([*ROW, *POSITION, *MEASURES])
"""What the captioner gives to the sink."""


def extended(schema: pa.Schema, columns: Container[str]) -> pa.Schema:
    """`ROW` or `CAPTIONED`, and at its end the column on request if it is among these."""
    return schema.append(TOKEN_PROBS) if TOKEN_PROBS.name in columns else schema


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """What was found where a row should be."""

    image_id: str
    next_offset: int
    """Byte offset at which the next row begins."""
    image: bytes | DataError
    siblings: Mapping[str, bytes] = field(default_factory=dict)
    """What lies beside the image, by extension."""
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Files of the shard up to the next row that are no images and lie beside none, by kind."""
    lost_bytes: int = 0
    """Of the shard, where it stands for a place of it that could not be read."""
