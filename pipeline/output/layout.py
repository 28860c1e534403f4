"""The names of the files in an output folder.

_job.json        the settings that determine the captions
_lease.json      the driver that may write; absent when none runs
_epochs/         the commits that the newest driver found, and its job: commits of older drivers do not count
_plan.json       the total amount of work, for `shardtalk status`
part-*.parquet   or .jsonl: the rows
_commits/        a commit record for each part
_exports/        the rows in other formats, on request
.huggingface.yaml  tells Hugging Face `datasets` that only the parts are data (JSON is YAML)
_manifest.json   written last, once all rows are committed; readers rely on it

What belongs to one driver (lease, epochs, plan, commit records) lies in its control folder: the output folder itself,
or that of a partition, which has a manifest of its own, too. The parts of partition 3 of 16 are `part-3-of-16-*`.

_partitions/3-of-16/_lease.json, _epochs/, _plan.json, _commits/, _manifest.json
"""

from __future__ import annotations

import re

from configs.partition import Partition

JOB = "_job.json"
MANIFEST = "_manifest.json"
PART = "part-"
HUGGING_FACE = ".huggingface.yaml"
PARTITIONS = "_partitions"
_PART_OF = re.compile(rf"{PART}(\d+)-of-(\d+)-")


def control_path(partition: Partition | None) -> str:
    """Returns the path of a driver's control folder in the output folder, with a slash at its end; empty for itself."""
    return f"{PARTITIONS}/{partition.name}/" if partition else ""


def part_prefix(partition: Partition | None) -> str:
    """Returns how the names of the parts of a driver begin."""
    return f"{PART}{partition.name}-" if partition else PART


def partition_of(part: str) -> Partition | None:
    """Returns the partition whose driver wrote a part, by its name; None for one of a driver of the whole output."""
    match = _PART_OF.match(part)
    return Partition(int(match[1]), int(match[2])) if match else None
