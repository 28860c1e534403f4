"""How a Ray job divides its input into read tasks."""

from pathlib import Path

import pytest
from conftest import pictures, tar_of_pictures

from pipeline.inference.ray_runner import SpanDatasource
from pipeline.inputs.listing import list_inputs
from pipeline.read_options import DEFAULTS
from pipeline.shards import Span


def sizes(spans: list[Span], *, wanted: int) -> list[int]:
    """Returns the number of spans in each read task."""
    source = SpanDatasource(spans, wanted=wanted, batch_size=4, options=DEFAULTS)
    tasks = source.get_read_tasks(1)
    rows = [sum(len(table) for table in task()) for task in tasks]
    assert len(rows) == len(source.groups)
    return rows


@pytest.mark.parametrize(
    ("wanted", "expected"), [(1, [10]), (2, [5, 5]), (3, [4, 4, 2]), (8, [4, 4, 2]), (99, [4, 4, 2])]
)
def test_a_task_reads_a_batch_of_images_or_more(wanted: int, expected: list[int], tmp_path: Path) -> None:
    shards = list_inputs([str(pictures(tmp_path / "in", 10))]).shards
    assert sizes([*map(Span, shards)], wanted=wanted) == expected


def test_few_tars_have_a_task_each(tmp_path: Path) -> None:
    for i in range(3):
        tar_of_pictures(tmp_path / f"{i}.tar", 2)
    assert sizes([*map(Span, list_inputs([str(tmp_path / "{0..2}.tar")]).shards)], wanted=8) == [2, 2, 2]
