"""Options of `shardtalk caption`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from configs.errors import ConfigError
from configs.rerank import Rerank, check_reranking
from configs.search import Search


def captioners_and_weights(captioner: list[str] | str, weights: str) -> tuple[list[str], list[float]]:
    """The captioners one by one, and the weight of each, which add up to 1. Raises ConfigError."""
    names = [captioner] if isinstance(captioner, str) else captioner
    try:
        given = [float(weight) for weight in weights.split(",")] if weights else [1.0] * len(names)
    except ValueError as error:
        raise ConfigError(f"weights is {weights!r}; expected numbers such as 0.7,0.3") from error
    if not names:
        raise ConfigError("captioner is an empty list; give one or more")
    if len(given) != len(names) or not all(0.0 < weight < math.inf for weight in given):
        raise ConfigError(f"weights is {weights!r}; need one above 0 for each of {len(names)} captioners")
    return names, [weight / sum(given) for weight in given]


@dataclass(frozen=True)
class LocalConfig:
    """The local runner."""

    decode_threads: int = 2
    """That decode images ahead of the captioner."""


@dataclass(frozen=True)
class RayConfig:
    """The Ray runner."""

    address: str = ""
    """Of a cluster to connect to; empty takes RAY_ADDRESS, or starts Ray on this machine."""
    min_actors: int = 0
    """Captioners at least; 0: as many as at most. Fewer lets the pool grow and shrink with the work."""
    max_actors: int = 0
    """Captioners at most; 0: one for each GPU that the cluster has now, or for each CPU where it has no GPU."""
    num_gpus: float = -1.0
    """Of each captioner; a fraction shares a GPU; -1: 1 where the cluster has GPUs, else 0."""
    num_cpus: float = 0.9
    """Of each captioner. Less than 1 leaves room for the tasks that read; above 1 it computes with as many threads."""


@dataclass(frozen=True)
class CaptionConfig:
    """Caption images: one row per image, as a caption or a typed error. The same command again finishes what is left.

    INPUT is a folder (with all below it), an image file, a tar shard, a Parquet file with a column of images, a list of
    paths or URLs (.txt, .csv, .tsv, .jsonl, or - for standard input), a glob, or braces such as
    shards/{0000..0099}.tar; of this machine, or a URL such as s3://bucket/folder or https://host/photo.jpg.
    """

    output: str
    """Folder for the rows; a new one, or that of the same job to go on with."""
    inputs: list[str] = field(default_factory=list)
    """Images."""
    captioner: list[str] | str = "flickr8k-mobilenet-v2"
    """Directory or URL of a captioner, or the name of one that ships. A cluster's workers must reach it, too.
    Given more than once, an ensemble: captioners of one vocabulary that choose each word together."""
    weights: str = ""
    """Of the captioners of an ensemble, such as 0.7,0.3; empty: equal ones."""
    runner: Literal["auto", "local", "ray"] = "auto"
    """local: this process. ray: Ray Data. auto: ray where a cluster is connected or RAY_ADDRESS is set."""
    format: Literal["parquet", "jsonl"] = "parquet"
    """Of the rows."""
    search: Search = field(default_factory=Search)
    """How a caption is looked for."""
    rerank: Rerank = field(default_factory=Rerank)
    """Another order of the candidates."""
    siblings: str = ""
    """With txt,json: key.txt and key.json beside an image of a tar or folder, or the columns txt and json of a Parquet
    file, are kept as JSON in the column `siblings`."""
    image_members: str = ""
    """With left.jpg,depth.png: of a tar, only members of these names or ends of names are images; empty: all that have
    an image's extension."""
    max_image_bytes: int = 512 << 20
    """A larger image is an error, `too_large`, and is not read."""
    image_column: str = ""
    """Of Parquet files: the column of images, dotted within structs (data.image); empty: found by its kind and name."""
    key_column: str = ""
    """Of Parquet files and lists: the column that gives the rows their image_id; empty: found by its name."""
    path_column: str = ""
    """Of CSV, TSV and JSON lines: the column of paths or URLs; empty: found by its name."""
    images_root: str = ""
    """Folder to which paths in Parquet files and lists are relative, and outside of which no path in a Parquet file may
    lead; empty: the folder of the file itself."""
    device: str = "auto"
    """auto takes cuda where there is one, else cpu."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of matrix products; auto is float32 on the CPU, 16 bits on cuda."""
    batch_images: int = 0
    """Images captioned at a time; 0: 256 on cuda, 32 on the CPU."""
    max_error_rate: float = 0.5
    """The job fails (exit code 1) if more than this share of all rows are errors, and stops early after 1,000 rows."""
    max_lost_shards: float = -1.0
    """The job fails (exit code 1) if more than this share of its shards (tars, Parquet files and other files of many
    images), by their number or their bytes, is lost: not one image of them could be read, or less than half of their
    bytes. -1: 0.01, or 1 where max_error_rate is 1."""
    retry_errors: bool = False
    """Caption again what ended in an error that may have passed: unreadable, out_of_memory, or any of a file that has
    changed since and held no image that was captioned."""
    fragment_rows: int = 10_000
    """Rows of a full output file."""
    fragment_s: float = 60.0
    """Seconds after which a file is committed even if it is not full: what a crash can cost."""
    grace_s: float = 30.0
    """Asked to stop (SIGINT, SIGTERM), the job commits what is done and ends, at the latest after this time."""
    vis_json: bool = False
    """Write OUT/_exports/vis.json: [{image_id, caption, file_name}]."""
    coco_json: bool = False
    """Write OUT/_exports/coco.json, COCO results: [{image_id, caption}], ids as numbers where they are."""
    local: LocalConfig = field(default_factory=LocalConfig)
    """The local runner."""
    ray: RayConfig = field(default_factory=RayConfig)
    """The Ray runner."""

    @property
    def captioners(self) -> list[str]:
        """`captioner`, one by one."""
        return captioners_and_weights(self.captioner, self.weights)[0]

    @property
    def captioner_weights(self) -> list[float]:
        """`weights`, of each captioner; they add up to 1."""
        return captioners_and_weights(self.captioner, self.weights)[1]

    @property
    def lost_shards_allowed(self) -> float:
        """`max_lost_shards`, with its default in the place of -1."""
        if self.max_lost_shards >= 0:
            return self.max_lost_shards
        return 1.0 if self.max_error_rate == 1.0 else 0.01

    @property
    def sibling_names(self) -> list[str]:
        """`siblings`, one by one."""
        return sorted({name.strip().removeprefix(".") for name in self.siblings.split(",")} - {""})

    @property
    def image_member_names(self) -> list[str]:
        """`image_members`, one by one."""
        return sorted({name.strip().removeprefix(".").lower() for name in self.image_members.split(",")} - {""})

    def __post_init__(self) -> None:
        captioners_and_weights(self.captioner, self.weights)
        if self.max_image_bytes < 1:
            raise ConfigError(f"max_image_bytes is {self.max_image_bytes}; it must be at least 1")
        check_reranking(self.rerank, self.search)
        if not 0.0 <= self.max_error_rate <= 1.0:
            raise ConfigError(f"max_error_rate is {self.max_error_rate}; it must be in [0, 1]")
        if self.max_lost_shards != -1.0 and not 0.0 <= self.max_lost_shards <= 1.0:
            raise ConfigError(f"max_lost_shards is {self.max_lost_shards}; it must be in [0, 1], or -1")
        if (
            self.batch_images < 0
            or self.fragment_rows < 1
            or min(self.fragment_s, self.grace_s) < 0
            or self.local.decode_threads < 1
        ):
            raise ConfigError(
                "need batch_images ≥ 0, fragment_rows ≥ 1, fragment_s ≥ 0, grace_s ≥ 0 and local.decode_threads ≥ 1"
            )
        if self.ray.min_actors < 0 or self.ray.max_actors < 0 or self.ray.num_cpus < 0:
            raise ConfigError("need ray.min_actors ≥ 0, ray.max_actors ≥ 0 and ray.num_cpus ≥ 0")
