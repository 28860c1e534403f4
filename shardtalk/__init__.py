"""Caption images in bulk: every image exactly once, as a caption or a typed error.

>>> import shardtalk
>>> shardtalk.caption("photos", "captions", search={"beam_size": 3})["totals"]
{'rows': 329, 'captions': 328, 'errors': 1, 'shards': 329}
>>> shardtalk.read("captions").to_pandas()
>>> shardtalk.verify("captions", "photos")
[]

`Captioner` captions images that are in memory; a subclass of `ImageCaptioner`, a captioner of your own, captions whole
jobs. What is not in `__all__` may change with any version. Importing this package takes no time: torch, pyarrow and Ray
are imported once they are needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from configs.search import Search
from jobs import __version__
from shardtalk.outputs import JobError, caption, read, verify

if TYPE_CHECKING:
    from model.captioner import Candidate, Caption, Captioner, Ensemble
    from model.vision.preprocessing import Preprocessing
    from pipeline.captioners.protocol import EncodedImages, ImageCaptioner, RgbImages
    from pipeline.errors import CaptionerError

__all__ = [
    "Candidate",
    "Caption",
    "Captioner",
    "CaptionerError",
    "EncodedImages",
    "Ensemble",
    "ImageCaptioner",
    "JobError",
    "Preprocessing",
    "RgbImages",
    "Search",
    "__version__",
    "caption",
    "read",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Imports the classes that need torch or pyarrow when they are first used."""
    found: Any = None
    if name in ("Candidate", "Caption", "Captioner", "Ensemble"):
        from model import captioner as found
    elif name == "Preprocessing":
        from model.vision import preprocessing as found
    elif name == "CaptionerError":
        from pipeline import errors as found
    elif name in ("EncodedImages", "ImageCaptioner", "RgbImages"):
        from pipeline.captioners import protocol as found
    if found:
        return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Returns the public names."""
    return sorted(__all__)
