"""Exports a folder that `datasets.load_dataset("imagefolder", data_dir=…)` reads, with a column for each field.

NAME/000000007.jpg       an image, called by the number of its row in the unit's shard or part
NAME/metadata.parquet    a row for each image, written last: a folder without it is not finished, and is not read

Metadata is Parquet because types guessed from JSON lines would differ between folders.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.exports.rows import Row, confidence_of
from pipeline.exports.units import THREADS, ImageReader, Unit, image_extension
from pipeline.schema import CONFIDENCE, ROW
from pipeline.storage.folder import Folder
from pipeline.storage.prefetch import prefetch_map

METADATA = "metadata.parquet"
COLUMNS = pa.schema(
    [
        pa.field("file_name", pa.string()),  # of the image, in the same folder; `datasets` makes it the column `image`
        *(ROW.field(name) for name in ("caption", "image_id", "shard", "index", "log_prob", "num_tokens")),
        pa.field(CONFIDENCE, pa.float32()),  # null if the output has none
    ]
)


def write_image_folder(folder: Folder, unit: Unit, rows: Iterator[Row], images: ImageReader) -> int:
    """Writes the folder of a unit; returns the number of captions in it. A unit without captions has none.

    Args:
        folder: the destination.
        rows: the selected rows of the unit.

    Raises MissingImageError.
    """

    def write(item: tuple[int, tuple[Row, bytes]]) -> Row:
        number, (row, image) = item
        name = f"{number:09}.{image_extension(row, image)}"
        folder.write(f"{unit.name}/{name}", image)
        return {"file_name": name, CONFIDENCE: confidence_of(row)} | {
            key: row[key] for key in COLUMNS.names if key in ROW.names
        }

    found: Iterator[tuple[int, tuple[Row, bytes]]] = enumerate(images.images(unit, rows), unit.start)
    with closing(prefetch_map(write, found, threads=THREADS, depth=2 * THREADS)) as written:
        metadata = list(written)
    if metadata:
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(metadata, schema=COLUMNS), buffer)
        folder.write(f"{unit.name}/{METADATA}", buffer.getvalue())
    return len(metadata)
