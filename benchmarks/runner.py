"""Measures a runner in steady state: the caption job's flow from the first rows to the last.

`python -m benchmarks.runner [options of shardtalk caption]` prints {"images_per_s", "startup_s"}.
"""

from __future__ import annotations

import json
import sys
import time

from cluster import connect
from configs.caption import CaptionConfig
from configs.loading.parsing import parse
from jobs.captioning.flow import caption_spans
from jobs.cli import COMMANDS
from pipeline.captioners.registry import build_captioner
from pipeline.inputs.listing import list_inputs
from pipeline.output.commit_log import CommitLog


def main(arguments: list[str]) -> None:
    """Captions the inputs, drops the rows, and prints speed and start-up time."""
    config = parse(CaptionConfig, arguments, COMMANDS["caption"])
    spans = list(CommitLog().remaining_work(list_inputs(config.inputs).shards))
    started = time.perf_counter()
    resources = connect.connect() if config.runner == "ray" else None
    ready = [  # (when, how many)
        (time.perf_counter(), len(rows)) for rows in caption_spans(config, build_captioner(config), spans, resources)
    ]
    steady = sum(images for _, images in ready[1:]) / (ready[-1][0] - ready[0][0])
    print(json.dumps({"images_per_s": steady, "startup_s": ready[0][0] - started}))


if __name__ == "__main__":
    main(sys.argv[1:])
