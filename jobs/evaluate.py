"""`shardtalk evaluate`: scores captions against reference captions, and measures their diversity.

(caption →) read captions and references → pair → score → write. Imports torch only if it captions or reads shards.
"""

from __future__ import annotations

import json
import logging
import math
import platform
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.caption import CaptionConfig
from configs.evaluate import EvaluateConfig
from jobs import __version__, cli
from pipeline.errors import InputError
from pipeline.evaluation.diversity import diversity, tokenized_captions
from pipeline.evaluation.java import Java, JavaError, find_java
from pipeline.evaluation.matching import Pairing, pair
from pipeline.evaluation.metrics import METRICS, Scores, score
from pipeline.evaluation.predictions import Prediction, is_output, read_captions, read_job
from pipeline.evaluation.references import References, read_prepared, read_references
from pipeline.output.job_record import check_outside_inputs
from pipeline.storage.folder import Folder

log = logging.getLogger("shardtalk.evaluate")

LABELS = {"Bleu_1": "BLEU-1", "Bleu_2": "BLEU-2", "Bleu_3": "BLEU-3", "Bleu_4": "BLEU-4", "ROUGE_L": "ROUGE-L"}
DIVERSITY_LABELS = {
    "div_1": "Div-1",
    "div_2": "Div-2",
    "vocabulary": "words in use",
    "mean_words": "words per caption",
    "distinct_captions": "distinct captions",
    "novel": "novel captions",
    "broken_endings": "broken endings",
    "repeated_bigrams": "repeated bigrams",
}


def run(config: EvaluateConfig) -> int:
    """Scores captions, prints a table and writes the requested files; returns the exit code."""
    for name in filter(None, (config.output, config.per_image_file)):
        check_outside_inputs(name, filter(None, [config.captions]))
    references = _references(config)
    with tempfile.TemporaryDirectory() as scratch:
        captions = config.captions or str(Path(scratch, "captions"))
        if config.captioner:
            code = _caption(config, captions)
            if code:
                return code
        said, job = read_captions(captions), read_job(captions) if is_output(captions) else {}
    pairing = pair(said, references.images, match=config.match)
    _log_unpaired(config, pairing)
    java, without_java = _find_java(config.timeout_s)
    ours = {str(place): one.caption or "" for place, (one, _) in enumerate(pairing.pairs)}
    theirs = {str(place): image.captions for place, (_, image) in enumerate(pairing.pairs)}
    scores = score(ours, theirs, java=java, without_java=without_java)
    report = _report(pairing, scores) | {
        "diversity": asdict(diversity(ours.values(), tokenized_captions(references.training_captions))),
        "provenance": {
            "captions": config.captions,
            "captioner": config.captioner,
            "references": references.source,
            "novel_against": references.training_source,
            "job": job,
            "versions": _versions(java),
        },
    }
    sys.stdout.write(table(report))
    _write(config, report, pairing, scores)
    return cli.FAILED if scores.failed else 0


def _references(config: EvaluateConfig) -> References:
    training = Path(config.train) if config.train else None
    if config.data:
        return read_prepared(config.data, config.split or "val", training)
    return read_references(Path(config.references), config.split or None, training)


def _caption(config: EvaluateConfig, where: str) -> int:
    """Captions the images of the data as `shardtalk caption` does; returns its exit code."""
    from jobs import caption

    inputs = [f"{config.data}/{config.split or 'val'}"]
    code = caption.run(CaptionConfig(output=where, inputs=inputs, **config.captioning_options()))
    if code == cli.INTERRUPTED and not config.captions:
        log.info("the captions are lost; give OUT to keep them and go on")
    return code


def _log_unpaired(config: EvaluateConfig, pairing: Pairing) -> None:
    """Logs what could not be paired. Raises InputError if that leaves nothing to score, or images are missing."""
    unmatched, missing = pairing.without_references, pairing.without_caption
    if not pairing.pairs:
        names = (
            f"{unmatched[0].image_id!r} and {missing[0].file_path!r} (id {missing[0].image_id})" if unmatched else ""
        )
        raise InputError(f"no caption is of an image of the references{f': they have {names}, say' if names else ''}")
    if unmatched:
        log.info(
            f"{len(unmatched)} captions have no references and do not count; the first is {unmatched[0].image_id!r}'s"
        )
    if missing:
        found = f"{len(missing)} of {len(missing) + len(pairing.pairs)} images of the references have no caption"
        if not config.allow_missing:
            raise InputError(
                f"{found}; the first is {missing[0].file_path!r}; give --split, or --allow_missing to leave them out"
            )
        log.info(f"{found} and are left out; the first is {missing[0].file_path!r}")
    errors = Counter(one.error_code or "no caption" for one, _ in pairing.pairs if one.caption is None)
    if errors:
        causes = ", ".join(f"{code} {count}" for code, count in errors.items())
        log.info(
            f"{errors.total()} images have an error instead of a caption and count as captioned with nothing: {causes}"
        )


def _find_java(timeout_s: float) -> tuple[Java | None, str]:
    try:
        return find_java(timeout_s), ""
    except JavaError as error:
        return None, str(error)


def _report(pairing: Pairing, scores: Scores) -> dict[str, Any]:
    return {
        "scores": {metric: _finite(scores.totals.get(metric)) for metric in METRICS},
        "missing": scores.missing,
        "tokens": scores.tokens,
        "counts": {
            "images": len(pairing.pairs),
            "references": sum(len(image.captions) for _, image in pairing.pairs),
            "errors": sum(one.caption is None for one, _ in pairing.pairs),
            "captions_without_references": len(pairing.without_references),
            "references_without_caption": len(pairing.without_caption),
        },
    }


def _versions(java: Java | None) -> dict[str, str | None]:
    found = {"shardtalk": __version__, "pycocoevalcap": version("pycocoevalcap"), "python": platform.python_version()}
    return found | {"java": java.version if java else None}


def table(report: dict[str, Any]) -> str:
    """Formats the report as text."""
    counts, variety = report["counts"], report["diversity"]
    why = report["missing"].get("PTB tokens")
    tokens = f"Shardtalk's own ({why}), NOT comparable with papers" if why else "Penn Treebank's"
    lines = [f"{counts['images']:,} images, {counts['references']:,} references; tokens: {tokens}"]
    for metric, value in report["scores"].items():
        shown = f"{value:.4f}" if value is not None else f"missing: {report['missing'].get(metric, 'not a number')}"
        lines.append(f"{LABELS.get(metric, metric):18} {shown}")
    for name, label in DIVERSITY_LABELS.items():
        value = variety[name]
        lines.append(f"{label:18} {value:,}" if isinstance(value, int) else f"{label:18} {value:.4f}")
    lines.append(f"novel: not among the captions of {report['provenance']['novel_against']}")
    return "".join(f"{line}\n" for line in lines)


def _write(config: EvaluateConfig, report: dict[str, Any], pairing: Pairing, scores: Scores) -> None:
    """Writes the requested files, each atomically."""
    if config.per_image_file:
        buffer = pa.BufferOutputStream()
        pq.write_table(_rows(pairing.pairs, scores), buffer)
        _put(config.per_image_file, buffer.getvalue().to_pybytes())
    if config.output:
        _put(
            config.output, (json.dumps(report, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
        )


def _rows(pairs: Iterable[tuple[Prediction, Any]], scores: Scores) -> pa.Table:
    """Builds a table with a row per image: its caption, its references, and a column per metric."""
    said, images = zip(*pairs, strict=True)
    columns = {
        "image_id": pa.array([_encodable(one.image_id) for one in said], pa.string()),
        "file_path": pa.array([_encodable(image.file_path) for image in images], pa.string()),
        "caption": pa.array([one.caption and _encodable(one.caption) for one in said], pa.string()),
        "references": pa.array(
            [[_encodable(text) for text in image.captions] for image in images], pa.list_(pa.string())
        ),
        "error_code": pa.array([one.error_code for one in said], pa.string()),
    }
    for metric in METRICS:
        values = scores.per_image.get(metric, [None] * len(said))
        columns[metric] = pa.array(map(_finite, values), pa.float64())
    return pa.table(columns)


def _encodable(text: str) -> str:
    """Replaces lone surrogates, which JSON may have and UTF-8 cannot encode, by question marks."""
    return text.encode("utf-8", "replace").decode()


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _put(file: str, data: bytes) -> None:
    parent, _, name = file.rpartition("/")
    Folder(parent or ("/" if file.startswith("/") else ".")).write(name, data)


if __name__ == "__main__":
    sys.exit(cli.main(["evaluate", *sys.argv[1:]]))
