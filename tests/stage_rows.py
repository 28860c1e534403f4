"""Builds rows for the decode stage."""

from pathlib import Path

import pyarrow as pa

from configs.search import Search
from model.captioner import checkpoint
from pipeline.captioners.network_captioner import NetworkCaptioner
from pipeline.inference.caption_stage import CaptionStage
from pipeline.inference.decode_stage import DecodeStage
from pipeline.schema import ENCODED

SEARCH = Search(beam_size=3, num_candidates=2, max_tokens=6)


def encoded_rows(*images: bytes | None) -> pa.Table:
    """Builds encoded rows; None stands for a row that could not be read."""
    return pa.Table.from_pylist(
        [
            {
                "image_id": f"{i}.jpg",
                "shard": f"/in/{i}.jpg",
                "index": 0,
                "shard_id": f"{i:016}",
                "next_offset": 0 if image is None else len(image),
                "last": True,
                "image": image,
                "error_code": "unreadable" if image is None else None,
                "error_message": "no such file" if image is None else None,
            }
            for i, image in enumerate(images)
        ],
        schema=ENCODED,
    )


def decode_stage(*captioners: Path) -> DecodeStage:
    """The decode stage of a network, or of an ensemble."""
    return DecodeStage([checkpoint.load_preprocessing(captioner) for captioner in captioners])


def caption_stage(*captioners: Path | str, search: Search = SEARCH, device: str = "cpu") -> CaptionStage:
    """The caption stage of a network, or of an ensemble, in float32."""
    return CaptionStage(NetworkCaptioner([*map(str, captioners)], search, dtype="float32"), device=device)
