"""The JSON record that `shardtalk prepare` writes beside each image, and its statistics."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from model.vocabulary import Vocabulary
from pipeline.datasets.annotations import CaptionedImage


@dataclass
class Skipped:
    """The images and captions that were left out, with the reason."""

    images: list[dict[str, Any]] = field(default_factory=list)
    captions: list[dict[str, Any]] = field(default_factory=list)

    def image(self, image: CaptionedImage, error_code: str, reason: str) -> None:
        """Records an image that is left out with its captions."""
        self.images.append({"file_path": image.file_path, "error_code": error_code, "reason": reason})


@dataclass
class SplitStatistics:
    """The statistics of a split."""

    images: int = 0
    captions: int = 0
    tokens: int = 0
    """Number of tokens before truncation."""
    unknown_tokens: int = 0
    truncated_captions: int = 0
    shards: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    """Number of captions by length in tokens, before truncation."""

    def report(self) -> dict[str, Any]:
        """Returns the statistics for `stats.json`."""
        return asdict(self) | {
            "unknown_token_share": self.unknown_tokens / max(1, self.tokens),
            "longest_caption": max(self.lengths, default=0),
            "lengths": {str(length): self.lengths[length] for length in sorted(self.lengths)},
        }


def build_record(
    image: CaptionedImage,
    tokens: list[list[str]],
    encoded: list[list[int]],
    vocabulary: Vocabulary,
    statistics: SplitStatistics,
    *,
    max_tokens: int,
) -> dict[str, Any]:
    """Returns the JSON record of an image, and adds it to the statistics.

    Args:
        image: the image with its captions.
        tokens, encoded: words and word ids of each caption.
        vocabulary: the vocabulary of the ids.
        statistics: the counts of the image's split.
        max_tokens: maximum number of ids of a caption.
    """
    unknown = set(vocabulary.suppressed_ids)
    statistics.images += 1
    statistics.captions += len(tokens)
    statistics.tokens += sum(map(len, tokens))
    statistics.unknown_tokens += sum(word in unknown for ids in encoded for word in ids)
    statistics.truncated_captions += sum(len(words) > max_tokens for words in tokens)
    statistics.lengths.update(map(len, tokens))
    found = {"image_id": image.image_id, "file_path": image.file_path, "captions": image.captions}
    return found | {"tokens": tokens, "ids": [ids[:max_tokens] for ids in encoded]}
