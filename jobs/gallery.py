"""`shardtalk gallery`: writes a web page that shows the images and captions of an output.

PAGE.html       opens from disk in any browser, without a server
PAGE_files/
  data.js       the fields shown on tiles and searched in: all rows, one per line
  data-NNN.js   the other fields of 1,000 rows each, loaded when one of them is opened
  thumbnails/NNN/NNNNNN.jpg
  gallery.css, and the scripts of `SCRIPTS`

Data are scripts because a page on disk may not fetch files. Captions, names and messages are untrusted: they are stored
as JSON without `<`, `>` and `&`, and the page inserts them as text.
"""

from __future__ import annotations

import hashlib
import html
import json
import logging
import math
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import pyarrow as pa
from tqdm import tqdm

from configs.gallery import GalleryConfig
from jobs import cli
from jobs.console import messages
from pipeline.errors import DataError, InputError, OutputError
from pipeline.images.thumbnails import thumbnail
from pipeline.read_options import ReadOptions
from pipeline.results.gallery_rows import GalleryRows, describe_job, read_options, select_rows
from pipeline.results.image_sources import ImageSource, locate_images, read_image_source
from pipeline.schema import CONFIDENCE
from pipeline.storage.filesystems import is_remote
from pipeline.storage.folder import Folder
from pipeline.storage.prefetch import prefetch_map

log = logging.getLogger("shardtalk.gallery")

TEMPLATES = Path(__file__).with_name("templates")
SCRIPTS = ("elements.js", "review.js", "views.js", "viewer.js", "gallery.js")
"""The page's code, in the order in which it is loaded."""
GROUP = 1_000
"""Rows per `data-NNN.js`, and thumbnails per folder."""
THREADS = min(4, os.cpu_count() or 1)

INDEX = (
    *("image_id", "shard", "index", "caption", "log_prob", "num_tokens", CONFIDENCE),
    *("error_code", "error_message"),
)
"""Fields of a row in `data.js`, followed by 1 if it has a thumbnail, else 0."""
DETAILS = ("width", "height")
"""Fields of a row in `data-NNN.js`, followed by [caption, log_prob] of each candidate."""


def run(config: GalleryConfig) -> int:
    """Writes the page and prints its path; returns the exit code."""
    folder = Folder(config.output)
    shown = select_rows(folder, max_images=config.max_images, seed=config.seed)
    summary = describe_job(folder, shown.total) | {
        "output": config.output.rstrip("/").rpartition("/")[2] or config.output,
        # Under this the browser keeps the decisions on this output; the path itself is nobody's business.
        "id": hashlib.sha256(os.fsencode(_absolute(folder.url))).hexdigest()[:16],
        "has_confidence": shown.has_confidence,
        "total": shown.total,
        "errors": shown.errors,
    }
    page = Path(config.page or Path(config.output, "_gallery", "index.html")).expanduser().absolute()
    files = page.with_name(f"{page.stem}_files")
    try:
        _clear(page, files)
        pictures = write_thumbnails(files / "thumbnails", shown.rows, config.thumbnail_size, read_options(folder))
        _write_data(files, shown, pictures, summary)
        _write_page(page, files)
    except OSError as error:
        raise OutputError(f"cannot write the page {page}: {error.strerror or error}") from error
    _summarise(shown, pictures)
    messages.print_line(str(page))
    return 0


def _absolute(url: str) -> str:
    return url if is_remote(url) else str(Path(url).absolute())


def _clear(page: Path, files: Path) -> None:
    """Removes the files of an earlier run, the page first, which must never show a caption with the wrong picture."""
    page.unlink(missing_ok=True)
    for pattern in ("data*.js", "thumbnails/[0-9]*/[0-9]*.jpg"):
        for path in files.glob(pattern):
            path.unlink()


def write_thumbnails(folder: Path, rows: pa.Table, size: int, options: ReadOptions) -> list[bool]:
    """Writes `NNN/NNNNNN.jpg` for each row, by thousands; returns for each row whether it has one.

    Args:
        folder: a local folder.
        rows: with the columns shard, index and error_code; ascending by shard and index, or else tars are read again.
        size: longer side in pixels.
        options: the options by which the job read its inputs.
    """
    shards, codes = rows["shard"].to_pylist(), rows["error_code"].to_pylist()
    # Images that could not be decoded for captioning are not tried again.
    places = locate_images(zip(shards, rows["index"].to_pylist(), strict=True), options)
    found = (None if code else source for code, source in zip(codes, places, strict=True))
    pictures = []
    with (
        closing(
            prefetch_map(partial(_thumbnail, size=size, options=options), found, threads=THREADS, depth=4 * THREADS)
        ) as jpegs,
        tqdm(jpegs, total=len(rows), unit="image", disable=None, dynamic_ncols=True) as bar,
    ):
        for number, jpeg in enumerate(bar):
            if number % GROUP == 0:
                (folder / f"{number // GROUP:03}").mkdir(parents=True, exist_ok=True)
            if jpeg is not None:
                (folder / f"{number // GROUP:03}" / f"{number:06}.jpg").write_bytes(jpeg)
            pictures.append(jpeg is not None)
    return pictures


def _thumbnail(source: ImageSource | None, size: int, options: ReadOptions) -> bytes | None:
    """Makes a JPEG; None for an image that is gone, has changed or cannot be decoded."""
    try:
        return thumbnail(read_image_source(source, options), size=size) if source else None
    except (OSError, DataError, InputError):
        return None


def _write_data(files: Path, shown: GalleryRows, pictures: list[bool], summary: dict[str, Any]) -> None:
    index = _lines(shown.rows.select(INDEX), map(int, pictures))
    (files / "data.js").write_text(_script("show", _json(summary), index), encoding="ascii")
    for start in range(0, len(shown.rows), GROUP):
        rows = shown.rows.slice(start, GROUP)
        candidates = ([[c["caption"], c["log_prob"]] for c in given or []] for given in rows["candidates"].to_pylist())
        script = _script("detail", str(start), _lines(rows.select(DETAILS), candidates))
        (files / f"data-{start // GROUP:03}.js").write_text(script, encoding="ascii")


def _lines(rows: pa.Table, last: Iterator[Any]) -> Iterator[str]:
    for row, more in zip(rows.to_pylist(), last, strict=True):
        yield _json([*row.values(), more])


def _script(function: str, argument: str, lines: Iterator[str]) -> str:
    """Formats a call of one of the page's functions."""
    return f"gallery.{function}({argument}, [\n" + ",\n".join(lines) + "\n]);\n"


def _json(value: Any) -> str:
    r"""Formats JSON in ASCII that is safe anywhere in a page: `<`, `>` and `&` become `\uNNNN`."""
    text = json.dumps(_rounded(value), separators=(",", ":"), allow_nan=False)
    return text.translate({ord(character): f"\\u{ord(character):04x}" for character in "<>&"})


def _rounded(value: Any) -> Any:
    """Rounds floats to four places; those that are not finite become None."""
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value


def _write_page(page: Path, files: Path) -> None:
    """Writes the page, last: once it exists, all its files do."""
    for name in (*SCRIPTS, "gallery.css"):
        (files / name).write_bytes((TEMPLATES / name).read_bytes())
    template = Template((TEMPLATES / "gallery.html").read_text(encoding="utf-8"))
    folder = html.escape("./" + quote(os.fsencode(files.name)))
    unfinished = page.with_name(f".{page.name}.tmp")
    unfinished.write_text(template.substitute(files=folder), encoding="utf-8")
    unfinished.replace(page)


def _summarise(shown: GalleryRows, pictures: list[bool]) -> None:
    errors = sum(shown.errors.values())
    without = shown.rows["error_code"].null_count - sum(pictures)
    sampled = f", a sample of {len(pictures)} shown" if len(pictures) < shown.total else ""
    log.info(
        f"{shown.total - errors} captions and {errors} errors{sampled}"
        f"{f'; {without} images are no longer found' if without else ''}",
    )


if __name__ == "__main__":
    sys.exit(cli.main(["gallery", *sys.argv[1:]]))
