"""Compares the captions of two outputs of the same images.

Memory holds names and captions of both, about 600 bytes an image at the most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError, OutputError
from pipeline.output.commit_log import CommitLog
from pipeline.output.part_reader import read_part
from pipeline.storage.folder import Folder

_COLUMNS = ("shard", "index", "image_id", "caption", "error_code")
_SIDE = "side"


@dataclass(frozen=True)
class Comparison:
    """The images that two outputs have in common, and how many each has alone."""

    rows: pa.Table
    """`shard` and `index` in A, `image_id`, `caption_a`, `caption_b`, `error_code_a`, `error_code_b`, and `differs`,
    which is True if the captions differ or one of them is an error. Ordered by shard and index, or by image_id if that
    pairs them."""
    only_a: int
    only_b: int

    @property
    def different(self) -> pa.Table:
        """The rows that differ."""
        return self.rows.filter(self.rows["differs"])

    @property
    def same(self) -> pa.Table:
        """The rows that do not differ."""
        return self.rows.filter(pc.invert(self.rows["differs"]))


def compare(a: Folder, b: Folder) -> Comparison:
    """Pairs the rows of two outputs by shard and index, or by image_id if they have no shard in common.

    Raises InputError if they have no image in common, or if image_ids by which they are paired are not unique;
    OutputError for a damaged part.
    """
    ours, theirs = _read(a), _read(b)
    keys = ["shard", "index"]
    if not pc.any(pc.is_in(ours["shard"], theirs["shard"].unique())).as_py():
        keys = ["image_id"]
        for folder, rows in ((a, ours), (b, theirs)):
            if len(rows["image_id"].unique()) < len(rows):
                raise InputError(
                    f"{a.url} and {b.url} have no shard in common, and image_ids of {folder.url} not unique"
                )
    rows = pa.concat_tables([_sided(ours, 0), _sided(theirs, 1)]).sort_by(
        [(key, "ascending") for key in [*keys, _SIDE]]
    )
    before, after = rows.slice(0, len(rows) - 1), rows.slice(1)
    is_pair = pc.equal(before[keys[0]], after[keys[0]])
    for key in keys[1:]:
        is_pair = pc.and_(is_pair, pc.equal(before[key], after[key]))
    a_rows, b_rows = before.filter(is_pair), after.filter(is_pair)
    if not len(a_rows):
        raise InputError(f"{a.url} and {b.url} have no image in common; compare outputs of the same input")
    columns = {name: a_rows[name] for name in ("shard", "index", "image_id")}
    for name in ("caption", "error_code"):
        columns |= {f"{name}_a": a_rows[name], f"{name}_b": b_rows[name]}
    equal = pc.fill_null(pc.equal(a_rows["caption"], b_rows["caption"]), False)
    both_errors = pc.and_(pc.is_null(a_rows["caption"]), pc.is_null(b_rows["caption"]))
    columns["differs"] = pc.invert(pc.or_(equal, both_errors))
    return Comparison(pa.table(columns), len(ours) - len(a_rows), len(theirs) - len(a_rows))


def _sided(rows: pa.Table, side: int) -> pa.Table:
    return rows.append_column(_SIDE, pa.repeat(pa.scalar(side, pa.int8()), len(rows)))


def _read(folder: Folder) -> pa.Table:
    """Reads the columns of an output that are compared."""
    tables = []
    for commit in CommitLog.load(folder).commits:
        try:
            tables.append(read_part(folder, commit.file).select(_COLUMNS))
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise OutputError(f"{folder.url}/{commit.file} is damaged: {error}") from error
    if not tables:
        raise OutputError(f"{folder.url} holds no rows")
    rows = pa.concat_tables(tables)
    texts = {name: rows[name].cast(pa.large_string()) for name in _COLUMNS if name != "index"}
    return pa.table(texts | {"index": rows["index"]})


def words_changed(a: str, b: str) -> float:
    """Returns the share of the words of two captions that are not in common, in their order: 0 to 1."""
    return 1.0 - SequenceMatcher(None, a.split(), b.split(), autojunk=False).ratio()


@dataclass(frozen=True)
class Interval:
    """The mean of paired differences, and what a bootstrap says of it."""

    mean: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    p_value: float
    """Probability, two-sided, of a difference of the other sign, or of none."""


def paired_bootstrap(a: Sequence[float], b: Sequence[float], *, resamples: int, seed: int) -> Interval:
    """Resamples images with replacement, and returns the mean of b − a with its interval (Koehn, 2004).

    Args:
        a: a score of each image.
        b: another score of the same images.
        resamples: number of samples.
        seed: random seed.
    """
    differences = np.asarray(b, np.float64) - np.asarray(a, np.float64)
    draws = np.random.default_rng(seed)
    count = len(differences)
    means = np.array([differences[draws.integers(0, count, count)].mean() for _ in range(resamples)])
    low, high = np.percentile(means, [2.5, 97.5])
    tail = min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
    p_value = min(1.0, 2.0 * (int(tail) + 1) / (resamples + 1))
    return Interval(float(differences.mean()), float(low), float(high), p_value)
