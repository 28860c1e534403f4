"""Synthetic inputs in the forms that Shardtalk reads, made once by the first row that needs them."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from benchmarks.gpu.bench import Bench
from benchmarks.pictures import make_folder
from configs.prepare import PrepareConfig
from jobs import prepare
from jobs.captioning.flow import CPU_BATCH_IMAGES, CUDA_BATCH_IMAGES
from model.captioner import checkpoint
from model.vision.preprocessing import Preprocessing
from pipeline.datasets.shard_writer import ShardWriter
from pipeline.inference.decode_stage import DecodeStage
from pipeline.inputs.listing import list_inputs
from pipeline.output.commit_log import CommitLog
from pipeline.readers.reader import read
from pipeline.shards import Span
from pipeline.storage.prefetch import prefetch_map

CAPTIONER = "flickr8k-mobilenet-v2"
IMAGES, SHARD_IMAGES, LEAST_IMAGES = 20_000, 1_000, 48
TRAINED_IMAGES, CAPTIONS, WORDS, CAPTION_WORDS = 2_000, 5, 10_000, 11


def preprocessing() -> Preprocessing:
    """Returns the preprocessing of the captioner that ships."""
    return checkpoint.load_preprocessing(checkpoint.find(CAPTIONER))


def batch_images(bench: Bench) -> int:
    """Returns the default batch size of a caption job."""
    return CUDA_BATCH_IMAGES if bench.device.type == "cuda" else CPU_BATCH_IMAGES


def shards(bench: Bench) -> str:
    """Makes tars of 1,000 JPEGs of 640×480 each, 20,000 in all, as hard links to one file; returns their glob."""

    def make(folder: Path) -> None:
        count = bench.scaled(IMAGES, least=LEAST_IMAGES)
        each = min(count, SHARD_IMAGES)
        pictures = make_folder(folder / "pictures", each, width=640, height=480)
        with ShardWriter(folder, "photos", shard_images=each) as writer:
            for path in sorted(pictures.iterdir()):
                writer.write(path.stem, {"jpg": path.read_bytes()})
        for i in range(1, count // each):
            os.link(writer.shards[0], folder / f"photos-{i:06}.tar")
        shutil.rmtree(pictures)

    return f"{_made(bench, 'shards', make)}/*.tar"


def spans(bench: Bench) -> list[Span]:
    """Returns the spans that a new job plans for the tars."""
    return list(CommitLog().remaining_work(list_inputs([shards(bench)]).shards))


def encoded(bench: Bench, images: int) -> list[pa.Table]:
    """Returns at least `images` images as the reader yields them, in batches; those of one tar, repeated."""
    tables = list(read(spans(bench)[:1], batch_size=batch_images(bench)))
    found = list[pa.Table]()
    while sum(map(len, found)) < images:
        found.append(tables[len(found) % len(tables)])
    return found


def decoded(bench: Bench, images: int) -> list[pa.Table]:
    """Returns at least `images` images as the decode stage yields them."""
    decode, threads = DecodeStage([preprocessing()]), bench.cores
    return list(prefetch_map(decode, encoded(bench, images), threads=threads, depth=threads))


def captioned(bench: Bench) -> Path:
    """Makes prepared training shards of 224×224 pictures with five synthetic captions each; returns their folder."""

    def make(folder: Path) -> None:
        pictures = make_folder(folder / "pictures", bench.scaled(TRAINED_IMAGES, least=32), width=224, height=224)
        draw = random.Random(0)
        entries = [
            {"file_path": path.name, "split": "train", "captions": _captions(draw)} for path in pictures.iterdir()
        ]
        (folder / "captions.json").write_text(json.dumps(entries))
        prepare.run(
            PrepareConfig(
                str(folder / "captions.json"),
                str(folder / "data"),
                images_root=str(pictures),
                word_count_threshold=0,
                num_decode_threads=bench.cores,
            )
        )

    return _made(bench, "captioned", make) / "data"


def _captions(draw: random.Random) -> list[str]:
    """Makes captions of words with a skewed frequency distribution."""
    return [" ".join(f"w{int(WORDS * draw.random() ** 3)}" for _ in range(CAPTION_WORDS)) for _ in range(CAPTIONS)]


def _made(bench: Bench, name: str, make: Callable[[Path], None]) -> Path:
    """Makes a folder unless it exists; renames it once it is complete, since a process may be stopped at any time."""
    folder, unfinished = bench.scratch / name, bench.scratch / f"{name}.part"
    if not folder.exists():
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        make(unfinished)
        unfinished.rename(folder)
    return folder
