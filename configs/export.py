"""Options of `shardtalk export`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from configs.errors import ConfigError

Format = Literal["csv", "jsonl", "coco", "vis", "txt", "xmp", "webdataset", "huggingface"]
FILE_ENDINGS = {"csv": ".csv", "jsonl": ".jsonl", "coco": ".json", "vis": ".json"}
"""Formats that are a single file, and how its name ends."""
_OUT_AND_DEST = 2


@dataclass(frozen=True)
class ExportConfig:
    """Write the captions of an output in a form that other programs read. The same command again finishes what is left.

    OUT is the folder that `shardtalk caption` wrote. DEST is a file for csv, jsonl, coco and vis, otherwise a new
    folder; either may be a URL such as s3://bucket/folder. For txt and xmp, DEST may also be the folder of images that
    was captioned. Each file is then written beside its image, and a file that exists already stays as it is.
    """

    to: Format
    """csv: a table for spreadsheets. jsonl: all columns, a line per row. coco: COCO results. vis: neuraltalk2's
    vis.json. txt: a text file per image. xmp: an XMP sidecar per image. webdataset: tars of images and captions.
    huggingface: a folder for `datasets.load_dataset("imagefolder")`."""
    paths: list[str] = field(default_factory=list)
    """The folder that `shardtalk caption` wrote, then the file or folder to write."""
    min_log_prob_per_token: float = -math.inf
    """Leave out captions whose log-probability divided by their number of tokens is smaller; it is 0 or less, such as
    -1.5."""
    errors: Literal["include", "exclude", "only"] = "include"
    """Rows with an error, in csv and jsonl. The other formats hold captions only."""
    review: str = ""
    """Review that was downloaded from the gallery page: captions that it rejects are left out, edited ones replace the
    captioner's, and those that it keeps are exported whatever min_log_prob_per_token."""
    extension: str = "txt"
    """Extension of the files with captions, for txt and webdataset, such as caption or cap.txt."""
    allow_missing: bool = False
    """Leave out captions whose image is gone or has changed, in webdataset and huggingface; otherwise the tar or folder
    to which it belongs is not written, and the exit code is 1."""
    unverified: bool = False
    """Export whatever rows there are. Otherwise the output must be finished, and is verified against itself first."""

    def __post_init__(self) -> None:
        if len(self.paths) != _OUT_AND_DEST:
            raise ConfigError(f"need two paths, OUT and DEST, and {len(self.paths)} are given")
        if math.isnan(self.min_log_prob_per_token) or self.min_log_prob_per_token > 0:
            raise ConfigError(f"min_log_prob_per_token is {self.min_log_prob_per_token:g}; it must be 0 or less")
        if self.errors != "include" and self.to not in ("csv", "jsonl"):
            raise ConfigError(f"errors is {self.errors}, but {self.to} holds captions only; csv and jsonl hold errors")
        if not re.fullmatch(r"\w+(\.\w+)*", self.extension):
            raise ConfigError(f"extension is {self.extension!r}; it must be letters, digits and dots, such as cap.txt")
        ending = FILE_ENDINGS.get(self.to)
        if ending and not self.destination.endswith(ending):
            raise ConfigError(f"DEST is {self.destination}; {self.to} is a file, whose name must end in {ending}")

    @property
    def output(self) -> str:
        """The folder that is read."""
        return self.paths[0]

    @property
    def destination(self) -> str:
        """The file or folder that is written."""
        return self.paths[1].rstrip("/") or "/"
