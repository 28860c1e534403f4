"""Options that had another name in an earlier version, for messages and for what earlier versions wrote."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

RENAMED = {
    "search.no_repeat_ngram": "search.no_repeat_ngram_size",
    "search.groups": "search.num_beam_groups",
    "search.diversity": "search.diversity_penalty",
    "search.length_normalization": "search.length_penalty",
    "search.beam_search": "search.method",
    "batch_images": "batch_size",
    "local.decode_threads": "local.num_threads",
    "local.num_decode_threads": "local.num_threads",
    "threads": "num_decode_threads",
    "fragment_rows": "rows_per_file",
    "fragment_s": "commit_interval_s",
    "grace_s": "shutdown_timeout_s",
    "best_by": "selection_metric",
    "stages.NAME.batch_images": "stages.NAME.batch_size",
    "stages.NAME.accumulate": "stages.NAME.gradient_accumulation_steps",
    "stages.NAME.optimizer.momentum": "stages.NAME.optimizer.beta1",
    "stages.NAME.optimizer.smoothing": "stages.NAME.optimizer.beta2",
    "stages.NAME.cnn.momentum": "stages.NAME.cnn.beta1",
    "stages.NAME.cnn.smoothing": "stages.NAME.cnn.beta2",
    "stages.NAME.clip_norm": "stages.NAME.max_grad_norm",
    "stages.NAME.clip_value": "stages.NAME.max_grad_value",
    "stages.NAME.smallest_crop": "stages.NAME.min_crop_scale",
    "stages.NAME.views": "stages.NAME.cached_augmentations",
    "stages.NAME.foretelling_weight": "stages.NAME.bag_of_words_weight",
    "stages.NAME.written_weight": "stages.NAME.cross_entropy_weight",
    "stages.NAME.average_decay": "stages.NAME.ema_decay",
}
"""The name now by the name then; NAME stands for the name of a stage."""


def new_name(option: str) -> str | None:
    """The name now of an option; None if it is not one of an earlier version."""
    stage = re.match(r"stages\.([^.]+)\.", option)
    general = re.sub(r"^stages\.[^.]+\.", "stages.NAME.", option)
    name = RENAMED.get(general)
    return name.replace("NAME", stage[1]) if name and stage else name


def with_new_names(options: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """Options that an earlier version stored, nested as their sections are, by their names now.

    neuraltalk2's search, which was an option of its own, is now one of the methods.
    """
    found: dict[str, Any] = {}
    for name, value in options.items():
        option = f"{section}{name}"
        if option == "search.beam_search":
            greedy = {"beam_size": 1} if options.get("method") == "greedy" else {}
            found |= {"method": "neuraltalk2"} | greedy if value == "neuraltalk2" else {}
            continue
        new = RENAMED.get(option, option).rpartition(".")[2]
        if isinstance(value, Mapping):
            found[new] = with_new_names(value, f"{option}.")
        elif option == "stages":
            found[new] = [with_new_names(stage, "stages.NAME.") for stage in value]
        else:
            found[new] = value
    return found
