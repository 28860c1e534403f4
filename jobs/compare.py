"""`shardtalk compare`: compares two outputs of the same images.

join → count → (score against references) → write. Imports torch only for the page.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from configs.compare import CompareConfig
from jobs import cli
from jobs.console import messages
from pipeline.errors import InputError, OutputError
from pipeline.evaluation.comparison import Comparison, compare, paired_bootstrap, words_changed
from pipeline.evaluation.predictions import Prediction
from pipeline.output.job_record import check_is_output
from pipeline.storage.folder import Folder

log = logging.getLogger("shardtalk.compare")


def run(config: CompareConfig) -> int:
    """Prints how two outputs differ, and writes the requested files; returns the exit code."""
    folders = [Folder(path) for path in config.paths]
    for folder in folders:
        check_is_output(folder)
    found = compare(*folders)
    report = {"a": config.paths[0], "b": config.paths[1], "counts": _counts(found)}
    if config.references:
        report["cider"] = _cider(config, found)
    text = describe(report)
    for line in text.splitlines():
        messages.print_line(line)
    if config.output:
        parent, _, name = config.output.rpartition("/")
        data = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
        Folder(parent or ("/" if config.output.startswith("/") else ".")).write(name, data.encode())
    if config.page:
        from jobs.compare_page import write_page  # imports torch

        page = Path(config.page).expanduser().absolute()
        try:
            write_page(page, found, text, folders[0], max_images=config.max_images, size=config.thumbnail_size)
        except OSError as error:
            raise OutputError(f"cannot write the page {page}: {error.strerror or error}") from error
        messages.print_line(str(page))
    return 0


def _counts(found: Comparison) -> dict[str, int | float]:
    different = found.different
    captions = zip(different["caption_a"].to_pylist(), different["caption_b"].to_pylist(), strict=True)
    changed = [words_changed(a, b) for a, b in captions if a is not None and b is not None]
    return {
        "images": len(found.rows),
        "only_a": found.only_a,
        "only_b": found.only_b,
        "same": len(found.rows) - len(different),
        "different": len(changed),
        "errors_only_a": len(different) - different["error_code_a"].null_count,
        "errors_only_b": len(different) - different["error_code_b"].null_count,
        "words_changed": sum(changed) / len(changed) if changed else 0.0,
    }


@dataclass(frozen=True, slots=True)
class _Pair(Prediction):
    """The caption of A, and that of B."""

    other: str | None = None


def _cider(config: CompareConfig, found: Comparison) -> dict[str, Any]:
    """Scores both outputs over the images that both have and the references know; an error is an empty caption."""
    from pipeline.evaluation.java import JavaError, find_java
    from pipeline.evaluation.matching import pair
    from pipeline.evaluation.metrics import score_cider
    from pipeline.evaluation.references import read_references

    references = read_references(Path(config.references), config.split or None, None)
    columns = (found.rows[name].to_pylist() for name in ("image_id", "caption_a", "error_code_a", "caption_b"))
    pairing = pair([_Pair(*values) for values in zip(*columns, strict=True)], references.images, match=config.match)
    if not pairing.pairs:
        raise InputError(f"no image of {config.paths[0]} is of the references")
    if left := len(pairing.without_references):
        log.info(f"{left} images have no references and do not count for CIDEr")
    try:
        java, without_java = find_java(config.timeout_s), ""
    except JavaError as error:
        java, without_java = None, str(error)
    theirs = {str(place): image.captions for place, (_, image) in enumerate(pairing.pairs)}
    scores = []
    for side in ("caption", "other"):
        ours = {str(place): getattr(each, side) or "" for place, (each, _) in enumerate(pairing.pairs)}
        scores.append(score_cider(ours, theirs, java=java, without_java=without_java))
    a, b = (each.per_image["CIDEr"] for each in scores)
    interval = paired_bootstrap(a, b, resamples=config.resamples, seed=config.seed)
    return {
        "images": len(pairing.pairs),
        "tokens": scores[0].tokens,
        "a": scores[0].totals["CIDEr"],
        "b": scores[1].totals["CIDEr"],
        "difference": asdict(interval),
    }


def describe(report: dict[str, Any]) -> str:
    """Formats the report as text."""
    counts = report["counts"]
    lines = [
        f"A: {report['a']}",
        f"B: {report['b']}",
        f"{counts['images']:,} images in both, {counts['only_a']:,} only in A, {counts['only_b']:,} only in B",
        f"{counts['different']:,} captions differ ({counts['different'] / counts['images']:.1%}),"
        f" by {counts['words_changed']:.0%} of their words on average",
        f"{counts['errors_only_a']:,} are errors in A alone, {counts['errors_only_b']:,} in B alone",
    ]
    if cider := report.get("cider"):
        interval, tokens = cider["difference"], "Penn Treebank's" if cider["tokens"] == "PTB" else "Shardtalk's own"
        shown = " to ".join(f"{interval[end]:+.4f}" for end in ("low", "high"))
        lines.append(
            f"CIDEr over {cider['images']:,} images with references (tokens: {tokens}): A {cider['a']:.4f},"
            f" B {cider['b']:.4f}; B − A {interval['mean']:+.4f}, 95 % interval {shown}, p {interval['p_value']:.3f}"
            " (paired bootstrap)"
        )
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    sys.exit(cli.main(["compare", *sys.argv[1:]]))
