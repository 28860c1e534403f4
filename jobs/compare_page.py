"""The page of `shardtalk compare`: images with both captions, those that differ first. HTML without a script.

PAGE.html                         opens from disk in any browser
PAGE_files/thumbnails/NNN/NNNNNN.jpg
"""

from __future__ import annotations

import html
import os
from difflib import SequenceMatcher
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from jobs.gallery import GROUP, TEMPLATES, write_thumbnails
from pipeline.evaluation.comparison import Comparison
from pipeline.results.gallery_rows import read_options
from pipeline.storage.folder import Folder

TITLE = "Two outputs compared"


def write_page(page: Path, found: Comparison, summary: str, folder: Folder, *, max_images: int, size: int) -> None:
    """Writes the page and its thumbnails, the page last. Raises OSError.

    Args:
        page: the HTML file.
        summary: text above the images.
        folder: output A, in whose record is how images are read.
        max_images: maximum number of images; those that differ come first, each kind ordered by shard and index.
        size: longer side of a thumbnail in pixels.
    """
    different = found.different.slice(0, max_images)
    same = found.same.slice(0, max_images - len(different))
    rows = pa.concat_tables([different, same])
    files = page.with_name(f"{page.stem}_files")
    page.unlink(missing_ok=True)
    for path in files.glob("thumbnails/[0-9]*/[0-9]*.jpg"):
        path.unlink()
    # An image that could be decoded for one of the outputs can be decoded for the page.
    failed = _errors_of_both(rows["error_code_a"], rows["error_code_b"])
    places = pa.table({"shard": rows["shard"], "index": rows["index"], "error_code": failed})
    pictures = write_thumbnails(files / "thumbnails", places, size, read_options(folder))
    items = [
        _item(number, row, quote(os.fsencode(files.name)) if has_picture else "")
        for number, (row, has_picture) in enumerate(zip(rows.to_pylist(), pictures, strict=True))
    ]
    sections = [
        _section("Captions that differ", items[: len(different)], len(found.different)),
        _section("The same captions", items[len(different) :], len(found.same)),
    ]
    values = {"title": TITLE, "summary": html.escape(summary), "size_px": f"{size}px", "sections": "".join(sections)}
    page.parent.mkdir(parents=True, exist_ok=True)
    unfinished = page.with_name(f".{page.name}.tmp")
    template = Template((TEMPLATES / "compare.html").read_text(encoding="utf-8"))
    unfinished.write_text(template.substitute(values), encoding="utf-8")
    unfinished.replace(page)


def _errors_of_both(a: pa.ChunkedArray, b: pa.ChunkedArray) -> pa.Array:
    """Returns the error codes of rows that are errors in both outputs, and null for the others."""
    codes = (code if other else None for code, other in zip(a.to_pylist(), b.to_pylist(), strict=True))
    return pa.array(list(codes), pa.string())


def _section(title: str, items: list[str], total: int) -> str:
    shown = f"{total:,}" if len(items) == total else f"{len(items):,} of {total:,}"
    return f"<h2>{title}: {shown}</h2>\n<ol>\n{''.join(items)}</ol>\n"


def _item(number: int, row: dict[str, Any], files: str) -> str:
    a, b = _marked(row["caption_a"], row["caption_b"])
    source = f"./{files}/thumbnails/{number // GROUP:03}/{number:06}.jpg"
    picture = f'<img src="{html.escape(source)}" alt="" loading="lazy" decoding="async">' if files else ""
    captions = (
        f"<dt>{side}</dt><dd dir=auto>{text if text is not None else _error(row[f'error_code_{side.lower()}'])}</dd>"
        for side, text in (("A", a), ("B", b))
    )
    name = f"<dt>image</dt><dd dir=auto>{html.escape(row['image_id'])}</dd>"
    return f"<li><div>{picture}</div><dl>{''.join(captions)}{name}</dl></li>\n"


def _error(code: str | None) -> str:
    return f"<span class=error>{html.escape(code or '')}</span>"


def _marked(a: str | None, b: str | None) -> tuple[str | None, str | None]:
    """Returns both captions as HTML, in which the words are marked that the other one does not have there."""
    if a is None or b is None or a == b:
        return a and html.escape(a), b and html.escape(b)
    words = a.split(), b.split()
    shown: tuple[list[str], list[str]] = ([], [])
    for kind, *ends in SequenceMatcher(None, *words, autojunk=False).get_opcodes():
        for side, (start, stop) in enumerate((ends[:2], ends[2:])):
            text = html.escape(" ".join(words[side][start:stop]))
            if text:
                shown[side].append(text if kind == "equal" else f"<mark>{text}</mark>")
    return " ".join(shown[0]), " ".join(shown[1])
