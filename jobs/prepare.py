"""`shardtalk prepare`: makes training shards of images and their captions.

Reads every image twice: first to check that it can be decoded, since splits and vocabulary depend on that, then to
    write
it. Images are processed one by one, so memory grows with the captions only. `stats.json` is written last: an output
without it is incomplete.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from configs.prepare import PrepareConfig
from jobs import cli
from jobs.console.messages import print_line
from model.tokenizers import tokenize, tokenize_as_neuraltalk2
from model.vocabulary import UNKNOWN, Vocabulary
from pipeline.datasets.annotations import (
    SPLITS,
    CaptionedImage,
    SplitName,
    assign_splits,
    assign_splits_as_neuraltalk2,
    read_annotations,
)
from pipeline.datasets.statistics import Skipped, SplitStatistics, build_record
from pipeline.errors import DataError, InputError, OutputError

Splits = Mapping[SplitName, Sequence[CaptionedImage]]
Tokenizer = Callable[[str], list[str]]

_TOKENIZERS: dict[str, Tokenizer] = {"standard": tokenize, "neuraltalk2": tokenize_as_neuraltalk2}


def run(config: PrepareConfig) -> int:
    """Writes shards, vocabulary and statistics; returns the exit code.

    Raises InputError, OutputError or ConfigError, if possible before anything is written.
    """
    output = Path(config.output)
    _check(config, output)
    if config.h5:
        return _convert(config, output)
    annotated = read_annotations(Path(config.captions))
    _assign(annotated, config)  # fails early, before all images are decoded
    skipped = Skipped()
    tokenizer = _TOKENIZERS[config.tokenizer]
    captioned = list(_with_words(annotated, tokenizer, skipped))
    splits = _assign(list(_readable(captioned, config, skipped)), config)
    counted = _counted(splits, config)
    counts = Counter(word for image in counted for caption in image.captions for word in tokenizer(caption))
    vocabulary = _vocabulary(counts, config)
    _claim(output)
    written = _write_shards(splits, vocabulary, config, output)
    _save(output, vocabulary, _stats(config, counts, vocabulary, written, skipped))
    _report(output, vocabulary, written, skipped)
    return 0


def _check(config: PrepareConfig, output: Path) -> None:
    if config.images_root and not Path(config.images_root).is_dir():
        raise InputError(f"images_root {config.images_root} is no folder; give the one that the file paths start from")
    if output.exists() and not output.is_dir():
        raise OutputError(f"output {output} is not a folder; choose another")
    if output.is_dir() and any(output.iterdir()) and not config.overwrite:
        raise OutputError(
            f"output {output} already has files; choose another, or give --overwrite=true to replace them"
        )


def _convert(config: PrepareConfig, output: Path) -> int:
    """Converts the output of neuraltalk2's prepro.py, keeping pixels and ids."""
    from pipeline.datasets.neuraltalk2_hdf5 import Neuraltalk2Dataset
    from pipeline.datasets.shard_writer import KeyAssigner, ShardWriter

    prepared = Neuraltalk2Dataset.read(Path(config.h5), Path(config.captions))
    _claim(output)
    keys, report = KeyAssigner(), {split: SplitStatistics() for split in SPLITS}
    for split in dict.fromkeys(image.split for image in prepared.images if image.split):
        with ShardWriter(output / split, split, shard_images=config.shard_images) as writer:
            for image, ids, png in tqdm(prepared.of(split), desc=f"writing {split}", unit="image"):
                tokens = [caption.split() for caption in image.captions]
                longest = max(map(len, ids))
                sample = build_record(image, tokens, ids, prepared.vocabulary, report[split], max_tokens=longest)
                writer.write(keys.assign(image.file_path), {"png": png, "json": _utf8(sample)})
        report[split].shards = len(writer.shards)
    counts = Counter(word for image in prepared.images for caption in image.captions for word in caption.split())
    _save(output, prepared.vocabulary, _stats(config, counts, prepared.vocabulary, report, Skipped()))
    _report(output, prepared.vocabulary, report, Skipped())
    return 0


def _assign(images: Sequence[CaptionedImage], config: PrepareConfig) -> Splits:
    assign = assign_splits_as_neuraltalk2 if config.tokenizer == "neuraltalk2" else assign_splits
    return assign(images, num_val=config.num_val, num_test=config.num_test, seed=config.seed)


def _counted(splits: Splits, config: PrepareConfig) -> Iterable[CaptionedImage]:
    """Returns the images whose captions determine the vocabulary."""
    return splits["train"] if config.tokenizer == "standard" else chain.from_iterable(splits.values())


def _with_words(images: Iterable[CaptionedImage], tokenizer: Tokenizer, skipped: Skipped) -> Iterable[CaptionedImage]:
    """Yields images without their captions that have no words; skips images without any other caption."""
    for image in images:
        kept = tuple(caption for caption in image.captions if tokenizer(caption))
        if not kept:
            skipped.image(image, "no_caption", f"none of its {len(image.captions)} captions has a word")
            continue
        if len(kept) < len(image.captions):
            for position, caption in enumerate(image.captions):
                if not tokenizer(caption):
                    found = {"file_path": image.file_path, "position": position, "caption": caption}
                    skipped.captions.append(found | {"reason": "no word"})
        yield replace(image, captions=kept)


def _readable(images: Sequence[CaptionedImage], config: PrepareConfig, skipped: Skipped) -> Iterable[CaptionedImage]:
    """Yields the images that can be decoded completely. Raises InputError if there is none."""
    from pipeline.datasets.shard_writer import check_image
    from pipeline.storage.prefetch import prefetch_map

    def check(image: CaptionedImage) -> DataError | None:
        try:
            check_image(Path(config.images_root, image.file_path))
        except DataError as error:
            return error
        return None

    errors = prefetch_map(check, images, threads=config.num_decode_threads, depth=4 * config.num_decode_threads)
    usable = 0
    for image, error in tqdm(zip(images, errors, strict=True), desc="reading", unit="image", total=len(images)):
        if error:
            skipped.image(image, error.code, error.message)
        else:
            usable += 1
            yield image
    if not usable:
        first = skipped.images[0]
        raise InputError(
            f"none of {len(skipped.images)} images can be used, the first, {first['file_path']!r}: {first['reason']}; "
            f"is images_root {config.images_root} right?"
        )


def _vocabulary(counts: Counter[str], config: PrepareConfig) -> Vocabulary:
    """Builds the vocabulary, with UNK: other splits may have words that the training captions lack."""
    if config.vocabulary:
        from model.captioner import checkpoint  # imports torch

        return Vocabulary.load(checkpoint.find(config.vocabulary) / checkpoint.VOCABULARY)
    vocabulary = Vocabulary.from_counts(counts, word_count_threshold=config.word_count_threshold)
    if vocabulary.words == (UNKNOWN,):
        raise InputError(
            f"no word is in the training captions more than {config.word_count_threshold} times; "
            "lower --word_count_threshold or give more captions"
        )
    known = UNKNOWN in vocabulary.words or config.tokenizer == "neuraltalk2"
    return vocabulary if known else Vocabulary((*vocabulary.words, UNKNOWN))


def _claim(output: Path) -> None:
    """Creates the folder and removes the files of an earlier run, first those that mark it as complete."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name in ("stats.json", "vocabulary.json"):
            (output / name).unlink(missing_ok=True)
        for split in SPLITS:
            for ending in ("tar", "tar.part"):
                for shard in (output / split).glob(f"{split}-{'[0-9]' * 6}.{ending}"):
                    shard.unlink()
    except OSError as error:
        raise OutputError(f"output {output} cannot be written to: {error.strerror}; choose another") from error


def _write_shards(
    splits: Splits, vocabulary: Vocabulary, config: PrepareConfig, output: Path
) -> dict[SplitName, SplitStatistics]:
    from pipeline.datasets.shard_writer import KeyAssigner, ShardWriter, stored_image
    from pipeline.storage.prefetch import prefetch_map

    def store(image: CaptionedImage) -> tuple[CaptionedImage, str, bytes]:
        path = Path(config.images_root, image.file_path)
        try:
            return image, *stored_image(path, image_size=config.image_size, quality=config.image_quality)
        except DataError as error:
            raise InputError(f"{path} changed since it was checked: {error.message}; run again") from error

    keys, report = KeyAssigner(), {split: SplitStatistics() for split in SPLITS}
    for split in filter(splits.get, SPLITS):
        stored = prefetch_map(
            store, splits[split], threads=config.num_decode_threads, depth=2 * config.num_decode_threads
        )
        with ShardWriter(output / split, split, shard_images=config.shard_images) as writer:
            for image, extension, data in tqdm(stored, desc=f"writing {split}", unit="image", total=len(splits[split])):
                tokens = [_TOKENIZERS[config.tokenizer](caption) for caption in image.captions]
                encoded = [vocabulary.encode(words) for words in tokens]
                sample = build_record(image, tokens, encoded, vocabulary, report[split], max_tokens=config.max_tokens)
                writer.write(keys.assign(image.file_path), {extension: data, "json": _utf8(sample)})
        report[split].shards = len(writer.shards)
    return report


def _stats(
    config: PrepareConfig,
    counts: Counter[str],
    vocabulary: Vocabulary,
    written: Mapping[SplitName, SplitStatistics],
    skipped: Skipped,
) -> dict[str, Any]:
    rare = sum(seen <= config.word_count_threshold for seen in counts.values())
    return {
        "splits": {split: done.report() for split, done in written.items()},
        "vocabulary_size": vocabulary.size,
        "distinct_words": len(counts),
        "rare_words": rare,
        "rare_word_share": rare / len(counts),
        "skipped_images": skipped.images,
        "skipped_captions": skipped.captions,
        "config": asdict(config),
    }


def _save(output: Path, vocabulary: Vocabulary, stats: Mapping[str, Any]) -> None:
    part = output / "vocabulary.json.part"
    vocabulary.save(part)
    part.replace(output / "vocabulary.json")
    part = output / "stats.json.part"
    part.write_bytes(_utf8(stats, indent=1))
    part.replace(output / "stats.json")


def _utf8(value: Any, indent: int | None = None) -> bytes:
    """Encodes JSON as UTF-8; lone surrogates become escapes, which are valid JSON, too."""
    return json.dumps(value, ensure_ascii=False, indent=indent).encode("utf-8", "backslashreplace")


def _report(
    output: Path, vocabulary: Vocabulary, written: Mapping[SplitName, SplitStatistics], skipped: Skipped
) -> None:
    lines = [
        f"{output / split}: {done.images} images, {done.captions} captions in {done.shards} shards"
        for split, done in written.items()
        if done.images
    ]
    lines.append(f"{output / 'vocabulary.json'}: {vocabulary.size - 1} words")
    causes = Counter(image["error_code"] for image in skipped.images)
    why = "".join(f", {count} {cause}" for cause, count in sorted(causes.items()))
    lines.append(
        f"{output / 'stats.json'}: skipped {len(skipped.images)} images{why}; {len(skipped.captions)} captions"
    )
    for line in lines:
        print_line(line)


def main(argv: list[str] | None = None) -> int:
    """Runs `shardtalk prepare` with these arguments; returns the exit code."""
    return cli.main(["prepare", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
