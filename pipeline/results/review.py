"""Reads the decisions that a person made on the gallery page, and applies them to rows.

docs/gallery.md describes the file.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import InputError
from pipeline.schema import CONFIDENCE, TOKEN_PROBS
from pipeline.storage.filesystems import open_at

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

VERSION = 1
SCORES = ("log_prob", "num_tokens", "candidates", CONFIDENCE, TOKEN_PROBS.name)
"""Columns that describe the captioner's caption, and are null in a row whose caption a person wrote."""

Key = tuple[str, int, str]
"""`shard`, `index` and `image_id` of a row. They stay as they are when a job is resumed."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision on one row."""

    shard: str
    index: int
    image_id: str
    reviewed_caption: str | None
    """The caption on which it was made; null for a row with an error. On another caption it does not count."""
    decision: Literal["keep", "reject"]
    caption: str | None = None
    """The caption that replaces it; null if there is none."""

    def apply(self, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """Returns the row as the person wants it, with nulls for `SCORES` if it has another caption.

        Returns None for a row that is rejected.
        """
        if self.decision == "reject":
            return None
        if self.caption is None:
            return dict(row)
        return {**row, **{name: None for name in SCORES if name in row}, "caption": self.caption}


@dataclass(frozen=True, slots=True)
class ReviewFile:
    """The contents of a review file."""

    format: Literal["shardtalk-review"]
    version: int
    decisions: list[Decision]


@dataclass
class Review:
    """The decisions on the rows of an output."""

    decisions: Mapping[Key, Decision]
    sha256: str
    """Hash of the file."""
    applied: Counter[str] = field(default_factory=Counter)
    """Numbers of the decisions found by `of`: `keep`, `edit`, `reject`; `outdated`, those on other captions."""

    def of(self, row: Mapping[str, Any]) -> Decision | None:
        """Returns the decision on a row, and counts it; None if there is none, or it was made on another caption."""
        decision = self.decisions.get((row["shard"], row["index"], row["image_id"]))
        if decision is None:
            return None
        if decision.reviewed_caption != row["caption"]:
            self.applied["outdated"] += 1
            return None
        self.applied["edit" if decision.decision == "keep" and decision.caption else decision.decision] += 1
        return decision


def read_review(path: str) -> Review:
    """Reads the file that the gallery page downloads.

    Args:
        path: local path or URL.

    Raises InputError if it cannot be read, is no review, contradicts itself, or has a newer version.
    """
    from pydantic import TypeAdapter, ValidationError  # late: --help does without

    try:
        with open_at(path) as file:
            data = file.read()
    except OSError as error:
        raise InputError(f"the review {path} cannot be read: {error.strerror or error}") from error
    try:
        review = TypeAdapter(ReviewFile).validate_json(data, strict=True)
    except ValidationError as error:
        raise InputError(f"{path} is not a review: {_describe(error.errors(include_url=False)[0])}") from error
    if review.version != VERSION:
        raise InputError(f"{path} is a review of version {review.version}; this Shardtalk reads version {VERSION}")
    return Review(_by_key(path, review.decisions), hashlib.sha256(data).hexdigest())


def _by_key(path: str, decisions: list[Decision]) -> dict[Key, Decision]:
    found: dict[Key, Decision] = {}
    for number, decision in enumerate(decisions):
        if decision.caption is not None and (decision.reviewed_caption is None or not decision.caption.strip()):
            raise InputError(f"{path}: decisions[{number}] has a caption that is empty, or for a row with an error")
        key = (decision.shard, decision.index, decision.image_id)
        if key in found:
            raise InputError(
                f"{path}: decisions[{number}] is the second one on {decision.image_id} of {decision.shard}"
            )
        found[key] = decision
    return found


def _describe(error: ErrorDetails) -> str:
    """Describes the first mistake: `decisions[3].decision is 'maybe'; it must be 'keep' or 'reject'`."""
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).removeprefix(".")
    if error["type"] == "missing":
        return f"{place} is missing"
    expected = error["msg"].replace("Input should be", "it must be")
    if not place:
        return expected
    return f"{place} is {error['input']!r:.80}; {expected}"
