"""Options of `shardtalk evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from configs.caption import LocalConfig, RayConfig, captioners_and_weights
from configs.errors import ConfigError
from configs.rerank import Rerank, check_reranking
from configs.search import Search


@dataclass(frozen=True)
class EvaluateConfig:
    """Score captions against people's: BLEU, METEOR, ROUGE-L, CIDEr, SPICE, and how diverse they are.

    OUT is the folder that `shardtalk caption` wrote, or a JSON file of [{image_id, caption}], such as COCO results or
    vis.json. With --captioner the images of --data are captioned first, into OUT if it is given.

    An image whose row is an error counts as captioned with nothing. METEOR, SPICE and the tokens that papers use need
    Java; what is missing is said. Exit code 1 if a Java that was found failed.
    """

    captions: str = ""
    """OUT."""
    references: str = ""
    """People's captions: JSON of neuraltalk2's, Karpathy's or COCO's form."""
    data: str = ""
    """Instead of references, the folder or URL that `shardtalk prepare` wrote."""
    split: Literal["", "train", "val", "test"] = ""
    """Of the references or data; empty: all references, or the val split of the data."""
    train: str = ""
    """JSON of training captions: others are novel. Empty: those of the train split of references or data."""
    match: Literal["auto", "file", "id"] = "auto"
    """By what images are found in the references: name of their file, id, or either."""
    allow_missing: bool = False
    """Score only the images that have captions; else each image of the references must have one."""
    output: str = ""
    """JSON file for the scores."""
    per_image: str = ""
    """Parquet file for the scores of each image; empty: next to the output, if there is one."""
    timeout_s: float = 3600.0
    """Longest that Java may take for each of tokens, METEOR and SPICE."""
    captioner: list[str] | str = ""
    """Directory, URL or name of a captioner that captions the images of --data first; more than once, an ensemble."""
    weights: str = ""
    """Of the captioners of an ensemble, such as 0.7,0.3; empty: equal ones."""
    runner: Literal["auto", "local", "ray"] = "auto"
    """For --captioner, as are all options below; see `shardtalk caption --help`."""
    search: Search = field(default_factory=Search)
    """How a caption is looked for."""
    rerank: Rerank = field(default_factory=Rerank)
    """Another order of the candidates."""
    device: str = "auto"
    """auto takes cuda where there is one, else cpu."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of matrix products; auto is float32 on the CPU, 16 bits on cuda."""
    batch_images: int = 0
    """Images captioned at a time; 0: 256 on cuda, 32 on the CPU."""
    local: LocalConfig = field(default_factory=LocalConfig)
    """The local runner."""
    ray: RayConfig = field(default_factory=RayConfig)
    """The Ray runner."""

    @property
    def per_image_file(self) -> str:
        """Where the scores of each image go; empty: nowhere."""
        return self.per_image or (f"{self.output.removesuffix('.json')}.parquet" if self.output else "")

    def __post_init__(self) -> None:
        captioners_and_weights(self.captioner, self.weights)
        check_reranking(self.rerank, self.search)
        if bool(self.references) == bool(self.data):
            raise ConfigError("give either --references FILE or --data SHARDS, what the captions are compared with")
        if self.captioner and not self.data:
            raise ConfigError("--captioner needs --data SHARDS, the images to caption")
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
