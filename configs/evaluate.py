"""Options of `shardtalk evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from configs.captioning import CaptioningOptions
from configs.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(CaptioningOptions):
    """Score captions against reference captions: BLEU, METEOR, ROUGE-L, CIDEr, SPICE and diversity.

    OUT is the folder that `shardtalk caption` wrote, or a JSON file of [{image_id, caption}], such as COCO results or
    vis.json. With --captioner the images of --data are captioned first, into OUT if it is given.

    An image whose row is an error counts as an empty caption. METEOR, SPICE and the tokenizer of published scores
    need Java; the report says what is missing. The exit code is 1 if Java was found but failed.
    """

    captions: str = ""
    """The captions to score: a folder that `shardtalk caption` wrote, or a JSON file."""
    references: str = ""
    """JSON file of reference captions in neuraltalk2's, Karpathy's or COCO's format."""
    data: str = ""
    """Folder or URL that `shardtalk prepare` wrote, in place of references."""
    split: Literal["", "train", "val", "test"] = ""
    """Split of the references or data to score. Empty: all references, or the val split of the data."""
    train: str = ""
    """JSON file of training captions; captions that are not among them count as novel. Empty: the train split of the
    references or data."""
    match: Literal["auto", "file", "id"] = "auto"
    """How images are matched with the references: by file name, by id, or by either."""
    allow_missing: bool = False
    """Score only the images that have captions; otherwise every image of the references must have one."""
    output: str = ""
    """JSON file for the scores. Empty: none is written."""
    per_image: str = ""
    """Parquet file for the scores of each image. Empty: beside the file of --output, if that is given."""
    timeout_s: float = 3600.0
    """Maximum number of seconds that Java may take for each of the tokenizer, METEOR and SPICE."""
    captioner: list[str] = field(default_factory=list)
    """Directory, URL or name of a captioner with which the images of --data are captioned first; given more than once,
    the captioners form an ensemble."""

    @property
    def per_image_file(self) -> str:
        """Where the scores of each image go; empty: nowhere."""
        return self.per_image or (f"{self.output.removesuffix('.json')}.parquet" if self.output else "")

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.references) == bool(self.data):
            raise ConfigError(
                "give either --references FILE or --data FOLDER; the captions are compared with its captions"
            )
        if self.captioner and not self.data:
            raise ConfigError("--captioner needs --data FOLDER, the images to caption")
        if not self.captioner and not self.captions:
            raise ConfigError("no OUT given; give captions, or --captioner and --data to make them")
        if self.timeout_s <= 0:
            raise ConfigError(f"timeout_s is {self.timeout_s:g}; it must be more than 0")
        inputs = {self.captions, self.references, self.data, self.train} - {""}
        for name in (self.output, self.per_image_file):
            if name in inputs:
                raise ConfigError(f"{name} is both read and written; give another --output or --per_image")
        if self.output and self.output == self.per_image_file:
            raise ConfigError(f"output and per_image are both {self.output}; give two files")
