"""Options of `shardtalk caption`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from configs.captioning import CaptioningOptions
from configs.errors import ConfigError
from configs.partition import Partition


@dataclass(frozen=True, kw_only=True)
class CaptionConfig(CaptioningOptions):
    """Caption images: one row per image, a caption or a typed error. The same command again finishes what is left.

    INPUT is a folder (with everything below it), an image file, a tar shard, a Parquet file with a column of images, a
    list of paths or URLs (.txt, .csv, .tsv, .jsonl, or - for standard input), a glob, or braces such as
    shards/{0000..0099}.tar; on this machine, or a URL such as s3://bucket/folder or https://host/photo.jpg.
    """

    output: str
    """Folder or URL for the rows: a new one, or that of the same job to resume it."""
    inputs: list[str] = field(default_factory=list)
    """The images to caption."""
    format: Literal["parquet", "jsonl"] = "parquet"
    """File format of the rows."""
    siblings: list[str] = field(default_factory=list)
    """Extensions of the files beside an image whose contents are kept, as JSON in the column `siblings`: with txt,json,
    those of dog.txt and dog.json for dog.jpg in a folder or tar, or the columns txt and json of a Parquet file."""
    image_members: list[str] = field(default_factory=list)
    """Names, or ends of names, of the members of a tar that are captioned, such as left.jpg,depth.png. Empty: all
    members with the extension of an image."""
    max_image_bytes: int = 512 << 20
    """Maximum size of an image, in bytes. A larger one is not read and becomes an error, `too_large`."""
    image_column: str = ""
    """Column of Parquet files that holds the images; dotted inside structs (data.image). Empty: found by type and
    name."""
    key_column: str = ""
    """Column of Parquet files and lists that holds the image_id. Empty: found by name."""
    path_column: str = ""
    """Column of CSV, TSV and JSON lines that holds paths or URLs. Empty: found by name."""
    images_root: str = ""
    """Folder that paths in Parquet files and lists are relative to; paths in a Parquet file may not lead outside it.
    Empty: the folder of the file itself."""
    max_error_rate: float = 0.5
    """Share of all rows, in [0, 1]; with more errors the job fails (exit code 1), and stops early after 1,000 rows."""
    max_lost_shards: float = -1.0
    """Share of all shards (tars, Parquet files and other files of many images), in [0, 1]; if not one image of more
    shards could be read, the job fails (exit code 1). -1: 0.01, or 1 where max_error_rate is 1."""
    partition: str = ""
    """The share of this command, i/n such as 3/16: n commands that differ in i alone, at the same time or one after
    another, write one output. Each captions its own shards; the last to finish completes the output. Empty: this
    command writes all of it."""
    retry_errors: bool = False
    """Try the images again that ended in an error which may have passed: unreadable, out_of_memory,
    captioner_failed."""
    rows_per_file: int = 10_000
    """Number of rows in a full output file."""
    commit_interval_s: float = 60.0
    """Seconds after which rows are committed even if their file is not full; a crash costs at most this much work."""
    shutdown_timeout_s: float = 30.0
    """Seconds that a stop request (SIGINT, SIGTERM) leaves to commit what is done before the process ends."""
    vis_json: bool = False
    """Write OUT/_exports/vis.json: [{image_id, caption, file_name}]."""
    coco_json: bool = False
    """Write OUT/_exports/coco.json, COCO results: [{image_id, caption}], where numeric ids are numbers."""

    @property
    def lost_shards_allowed(self) -> float:
        """`max_lost_shards`, with the default instead of -1."""
        if self.max_lost_shards >= 0:
            return self.max_lost_shards
        return 1.0 if self.max_error_rate == 1.0 else 0.01

    @property
    def export_formats(self) -> list[str]:
        """The exports asked for by `vis_json` and `coco_json`."""
        return [name for name, wanted in (("vis", self.vis_json), ("coco", self.coco_json)) if wanted]

    @property
    def share(self) -> Partition | None:
        """`partition`; None if this command writes the whole output."""
        return Partition.parse(self.partition) if self.partition else None

    @property
    def sibling_names(self) -> list[str]:
        """`siblings` without leading dots, sorted."""
        return sorted({name.strip().removeprefix(".") for name in self.siblings} - {""})

    @property
    def image_member_names(self) -> list[str]:
        """`image_members` in lower case without leading dots, sorted."""
        return sorted({name.strip().removeprefix(".").lower() for name in self.image_members} - {""})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.captioner:
            raise ConfigError("captioner is an empty list; give one or more")
        _ = self.share
        if self.max_image_bytes < 1:
            raise ConfigError(f"max_image_bytes is {self.max_image_bytes}; it must be at least 1")
        if not 0.0 <= self.max_error_rate <= 1.0:
            raise ConfigError(f"max_error_rate is {self.max_error_rate}; it must be in [0, 1]")
        if self.max_lost_shards != -1.0 and not 0.0 <= self.max_lost_shards <= 1.0:
            raise ConfigError(f"max_lost_shards is {self.max_lost_shards}; it must be in [0, 1], or -1")
        if self.rows_per_file < 1 or min(self.commit_interval_s, self.shutdown_timeout_s) < 0:
            raise ConfigError("need rows_per_file ≥ 1, commit_interval_s ≥ 0 and shutdown_timeout_s ≥ 0")
