"""Stubs in place of a captioner, for benchmarks of all that is around it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from model.captioner import checkpoint
from model.nn.captioning_network import Architecture
from model.vision.preprocessing import Preprocessing
from model.vocabulary import Vocabulary
from pipeline.schema import CAPTIONED

CAPTION = "a stub"


class StubCaption:
    """Gives every image the same caption. Takes the place of `ray_runner.CaptionActor`."""

    def __init__(self, *_: object) -> None:
        pass

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Maps decoded rows to `schema.CAPTIONED`."""
        count = len(rows)
        values = {"caption": [CAPTION] * count, "num_tokens": [3] * count, "batch_images": [count] * count}
        columns = {
            field.name: pa.array(values[field.name], field.type)
            if field.name in values
            else rows[field.name]
            if field.name in rows.column_names
            else pa.nulls(count, field.type)
            for field in CAPTIONED
        }
        return pa.table(columns, schema=CAPTIONED)


def make_captioner(directory: Path) -> None:
    """Saves a captioner, of which only the preprocessing is used."""
    vocabulary = Vocabulary(("stub",))
    architecture = Architecture(vocabulary_size=vocabulary.size, cnn="squeezenet1_1", embedding_size=4, hidden_size=4)
    checkpoint.save(
        directory,
        architecture.build(),
        architecture=architecture,
        vocabulary=vocabulary,
        preprocessing=Preprocessing(image_size=8, resize_size=8),
        provenance={},
        scores={},
    )
