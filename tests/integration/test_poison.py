"""Images that kill their worker process."""

import os
import signal
import sys
from functools import partial
from pathlib import Path

import pyarrow as pa
import ray
from conftest import pictures

from cluster.connect import Resources
from model.captioner import checkpoint
from pipeline.captioners.network_captioner import NetworkCaptioner
from pipeline.inference.caption_stage import CaptionStage
from pipeline.inference.decode_stage import DecodeStage
from pipeline.inference.ray_runner import run_ray
from pipeline.inputs.listing import list_inputs
from pipeline.shards import Span


class PoisonedDecode(DecodeStage):
    """Kills its process at one image, like a decoder with a bug or a process without memory."""

    def __call__(self, rows: pa.Table) -> pa.Table:
        for image_id, image in zip(rows["image_id"].to_pylist(), rows["image"].to_pylist(), strict=True):
            if image_id == "1.jpg" and image is not None:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(rows)


def test_only_the_image_that_kills_the_actor_is_an_error(local_ray: Resources, captioner: Path, tmp_path: Path) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests
    listing = list_inputs([str(pictures(tmp_path / "in", 3))])
    tables = run_ray(
        map(Span, listing.shards),
        PoisonedDecode([checkpoint.load_preprocessing(captioner)]),
        partial(CaptionStage, NetworkCaptioner([str(captioner)])),
        batch_size=3,
        actors=(1, 1),
        fitting=lambda: 1,
        actor_resources={"num_cpus": 0.9},
        report_startup=lambda up, wanted: None,
    )
    rows = {row["image_id"]: row for table in tables for row in table.to_pylist()}
    assert {name: row["error_code"] for name, row in rows.items()} == {
        "0.jpg": None,
        "1.jpg": "worker_died",
        "2.jpg": None,
    }
    assert "decode this image alone" in rows["1.jpg"]["error_message"]
