"""Makes outputs of chosen rows and images, and the gallery pages of them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from configs.gallery import GalleryConfig
from jobs.gallery import run
from pipeline.filenames import printable
from pipeline.output.writer import ENCODERS
from pipeline.schema import CONFIDENCE, ROW

COLOURS = ["red", "lime", "blue", "yellow", "black"]
Row = dict[str, Any]


def captioned(image_id: str, shard: Path | str, index: int = 0, caption: str = "a dog", **more: Any) -> Row:
    candidates = [{"caption": caption, "log_prob": -3.5}]
    row = {"image_id": image_id, "shard": printable(str(shard)), "index": index, "caption": caption, "log_prob": -3.5}
    return row | {"num_tokens": 3, "candidates": candidates, "width": 40, "height": 30} | more


def failed(image_id: str, shard: Path | str, code: str = "corrupt_image", index: int = 0) -> Row:
    return {"image_id": image_id, "shard": str(shard), "index": index, "error_code": code, "error_message": "7 bytes"}


def picture(colour: str, size: tuple[int, int] = (40, 30), orientation: int = 1) -> bytes:
    image = Image.new("RGB", size, colour)
    image.getexif()[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=image.getexif())
    return buffer.getvalue()


def images(folder: Path, count: int) -> list[Row]:
    rows = []
    for i in range(count):
        path = folder / f"{i}.jpg"
        path.write_bytes(picture(COLOURS[i % len(COLOURS)]))
        rows.append(captioned(path.name, path, caption=f"dog {i}"))
    return rows


def tar(path: Path, colours: Sequence[str]) -> Path:
    with tarfile.open(path, "w") as file:
        for i, colour in enumerate(colours):
            for name, data in ((f"{i}.txt", b"a dog"), (f"{i}.jpg", picture(colour))):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    return path


def output(folder: Path, rows: list[Row], form: str = "parquet", name: str = "part-0") -> Path:
    out = folder / "out"
    out.mkdir(parents=True, exist_ok=True)
    schema = ROW.append(pa.field(CONFIDENCE, pa.float32())) if any(CONFIDENCE in row for row in rows) else ROW
    (out / f"{name}.{form}").write_bytes(ENCODERS[form](pa.Table.from_pylist(rows, schema=schema)))
    return out


def gallery(out: Path, **options: Any) -> Path:
    assert run(GalleryConfig(output=str(out), **options)) == 0
    return Path(options.get("page") or out / "_gallery" / "index.html")
