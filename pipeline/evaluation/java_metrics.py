"""The metrics that need Java: Penn Treebank tokens, METEOR and SPICE, from pycocoevalcap's jars.

Jars and arguments are pycocoevalcap's, so the values are the same. Its own classes are not used because they write
into the installed package, use any `java` on PATH, and hang if it dies.
"""

from __future__ import annotations

import json
import math
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

from pipeline.evaluation.java import Java, JavaError, MissingError

SPICE_MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
_LINE_BREAKS = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")

Tokens = Mapping[str, Sequence[str]]
"""Captions by image, as tokens joined by single spaces."""


def package() -> Path:
    """Returns the folder of pycocoevalcap."""
    spec = find_spec("pycocoevalcap")
    assert spec and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


def tokenize_ptb(captions: Sequence[str], java: Java) -> list[str]:
    """Tokenizes captions as the Penn Treebank does: lower case, without punctuation, joined by spaces.

    Raises JavaError.
    """
    folder = package() / "tokenizer"
    text = "".join(f"{_LINE_BREAKS.sub(' ', caption)}\n" for caption in captions)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "captions.txt")
        file.write_bytes(text.encode("utf-8", "replace"))
        tokenizer = ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase", str(file)]
        output = java.run("-cp", str(folder / "stanford-corenlp-3.4.1.jar"), *tokenizer, folder=folder)
    lines = output.decode("utf-8", "replace").split("\n")
    if len(lines) != len(captions) + 1:
        raise JavaError(f"it gave {len(lines) - 1} lines for {len(captions)} captions")
    return [" ".join(word for word in line.rstrip().split(" ") if word not in PUNCTUATIONS) for line in lines[:-1]]


def meteor(references: Tokens, captions: Tokens, java: Java) -> tuple[float, list[float]]:
    """Computes METEOR 1.5 (Denkowski and Lavie, 2014) of all images and of each, in [0, 1]. Raises JavaError."""
    folder = package() / "meteor"
    arguments = ("-jar", "-Xmx2G", str(folder / "meteor-1.5.jar"), "-", "-", "-stdio", "-l", "en", "-norm")
    with java.start(*arguments, folder=folder) as scorer:
        statistics = []
        for image, (caption,) in captions.items():
            theirs = " ||| ".join(text.replace("|||", "") for text in references[image])
            scorer.send_line(f"SCORE ||| {theirs} ||| {caption.replace('|||', '').replace('  ', ' ')}")
            statistics.append(scorer.read_line())
        scorer.send_line(" ||| ".join(["EVAL", *statistics]))
        *each, total = (_number(scorer.read_line()) for _ in range(len(captions) + 1))
    return total, each


def spice(references: Tokens, captions: Tokens, java: Java) -> tuple[float, list[float]]:
    """Computes SPICE (Anderson et al., 2016) of all images and of each, in [0, 1]. Raises JavaError."""
    folder = package() / "spice"
    missing = [name for name in SPICE_MODELS if not (folder / "lib" / name).exists()]
    if missing:
        raise MissingError(
            "it needs the models of CoreNLP 3.6.0; download them once (0.5 GB) with"
            f" `{Path(sys.executable).name} -m pycocoevalcap.spice.get_stanford_models`"
        )
    asked = [
        {"image_id": place, "test": caption, "refs": list(references[image])}
        for place, (image, (caption,)) in enumerate(captions.items())
    ]
    with tempfile.TemporaryDirectory() as scratch:
        given, found = Path(scratch, "in.json"), Path(scratch, "out.json")
        given.write_text(json.dumps(asked), encoding="utf-8")
        # pycocoevalcap's cache in the installed package is not used: it only saves time.
        paths = ["-jar", "-Xmx8G", str(folder / "spice-1.0.jar"), str(given), "-out", str(found)]
        java.run(*paths, "-subset", "-silent", folder=folder)
        return _read_spice(found, len(captions))


def _read_spice(file: Path, images: int) -> tuple[float, list[float]]:
    try:
        found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        by_place = {item["image_id"]: _number(item["scores"]["All"]["f"]) for item in found}
        each = [by_place[place] for place in range(images)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JavaError(f"it wrote no scores: {error}") from error
    return sum(each) / images, each


def _number(value: object) -> float:
    try:
        return math.nan if value is None else float(str(value))
    except ValueError as error:
        raise JavaError(f"it wrote {str(value)[:60]!r} instead of a score") from error
