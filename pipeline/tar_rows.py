"""A tar's rows: its samples, each with its image, or why it has none."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.errors import DataError
from pipeline.ledger import Span
from pipeline.names import EXTENSIONS
from pipeline.outcome import Outcome, ReadOptions
from pipeline.schema import ErrorCode
from pipeline.shard_file import open_shard
from pipeline.tar import Sample, samples


def tar_outcomes(span: Span, options: ReadOptions) -> Iterator[Outcome]:
    """The outcomes of a span of a tar, in order. Raises DataError or OSError where it cannot be read on."""
    shard = span.shard
    seen = _keys_before(span) if span.offset and span.doubled is None else set()
    with open_shard(shard, span.offset) as file:
        walk = samples(
            file,
            size=shard.size,
            offset=span.offset,
            wanted={*EXTENSIONS, *map(str.lower, options.siblings)}.__contains__,
        )
        for index, sample in enumerate(walk, span.start):
            is_doubled = sample.key in seen if span.doubled is None else index in span.doubled
            beside = {name: data for name in options.siblings if (data := sample.files.get(name.lower())) is not None}
            yield Outcome(sample.key, sample.stop, _image(sample, is_doubled=is_doubled), beside)
            seen.add(sample.key)


def _image(sample: Sample, *, is_doubled: bool) -> bytes | DataError:
    if is_doubled:
        return DataError(ErrorCode.DUPLICATE_KEY, f"{sample.key!r} came before in the same tar")
    for extension, data in sample.files.items():
        if data is not None and extension in EXTENSIONS:
            return data
    members = ", ".join(f".{extension}" if extension else "no extension" for extension in sample.files)
    return DataError(ErrorCode.NO_IMAGE, f"the sample has no image: {members}")


def _keys_before(span: Span) -> set[str]:
    """Keys of the rows before a span, from the tar's headers alone: a key may be doubled across an interruption."""
    keys = set()
    with open_shard(span.shard, skim=True) as file:
        for sample in samples(file, size=span.shard.size, wanted=lambda _: False):
            if sample.start >= span.offset:
                break
            keys.add(sample.key)
    return keys
