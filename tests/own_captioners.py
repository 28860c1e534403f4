"""A captioner of a user's own, as files in a folder of the user's, and the command line that is called there."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Run

HELPER = """
def words(image):
    return f"{image.width} by {image.height}"
"""

OWN = """
import io
import os
import threading
from dataclasses import dataclass

import pyarrow as pa
from PIL import Image

import helper_NUMBER as helper
from shardtalk import Candidate, Caption, CaptionerError, EncodedImages, ImageCaptioner, Preprocessing, RgbImages

SQUARE = Preprocessing(image_size=8, resize_size=8)
INPUTS = {"rgb": RgbImages(max_side=20), "encoded": EncodedImages(), "pixels": [SQUARE]}


@dataclass
class Own(ImageCaptioner):
    kind: str = "rgb"
    prompt: str = ""
    wrong: str = ""
    uses_gpu = False
    batch_size = 4
    columns = pa.schema([("mean", pa.float32()), ("sizes", pa.list_(pa.int32())), ("note", pa.string())])

    def __post_init__(self):
        self.inputs = INPUTS[self.kind]

    @property
    def identity(self):
        return f"own {self.kind} {self.prompt}"

    def load(self, device):
        self.device = device

    def caption(self, images):
        if self.kind == "pixels":
            opened = [Image.fromarray(pixels) for pixels in images[SQUARE.pixel_key]]
        else:
            opened = [Image.open(io.BytesIO(each)) if self.kind == "encoded" else each for each in images]
        return [self.one(image, len(opened)) for image in opened]

    def one(self, image, count):
        if self.wrong == "every":
            raise ValueError("never works")
        if self.wrong in ("batch", "alone") and image.width == 33:
            if self.wrong == "batch":
                raise KeyError("narrow")
            return KeyError("narrow")
        if self.wrong == "hang" and image.width == 33:
            threading.Event().wait()
        if self.wrong == "crash" and image.width == 33:
            os.abort()
        if self.wrong == "stop":
            raise CaptionerError("the account is empty")
        note = None if self.kind == "rgb" else self.kind
        columns = {"mean": image.convert("L").resize((1, 1)).getpixel((0, 0)), "sizes": list(image.size), "note": note}
        caption = f"{self.prompt}{helper.words(image)}, {image.convert('L').getpixel((3, 3))}"
        return Caption([Candidate(caption, -0.5, 2), Candidate("another")], columns)


def make(**options):
    return Own(**options)


def nothing():
    return "a text"


def broken():
    raise RuntimeError("no licence")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The module of a captioner in the working directory, which has a module beside it; returns its name."""
    number = abs(hash(tmp_path))  # each test's is another module
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / f"helper_{number}.py").write_text(HELPER)
    (folder / f"own_{number}.py").write_text(OWN.replace("NUMBER", str(number)))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return f"own_{number}"


CaptionBy = Callable[..., tuple[int, str]]


@pytest.fixture
def caption_by(shardtalk: Run, own: str, tmp_path: Path) -> CaptionBy:
    """`caption_by(INPUT, …, kind="rgb")` into tmp_path/out by that captioner, made with these arguments."""

    def run(*arguments: object, output: Path | None = None, factory: str = "Own", **options: Any) -> tuple[int, str]:
        usual = ["--output", output or tmp_path / "out", "--captioner", f"{own}:{factory}"]
        if "--runner" not in arguments:
            usual += ["--runner", "local"]
        return shardtalk("caption", *arguments, *usual, "--captioner_args", json.dumps(options))

    return run
