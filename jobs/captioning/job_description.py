"""Which captioners a job has, and what decides its captions."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from configs.caption import CaptionConfig
from model.captioner import checkpoint
from model.captioner.ensemble import check_same_vocabulary
from pipeline.inference import captioner_store
from pipeline.read_options import ReadOptions
from pipeline.storage.filesystems import is_remote


def find_captioners(config: CaptionConfig) -> tuple[list[Path], list[Path]]:
    """The captioners that speak, and the one that rescores, if there is one; all of one vocabulary.

    Raises CheckpointError for what is no captioner, VocabularyError where vocabularies differ.
    """
    speaking = [captioner_store.find(captioner) for captioner in config.captioners]
    rescoring = [captioner_store.find(config.rerank.captioner)] if config.rerank.captioner else []
    for captioner in [*speaking, *rescoring]:
        checkpoint.check(captioner)
    if len(speaking) + len(rescoring) > 1:
        check_same_vocabulary({str(path): checkpoint.load_vocabulary(path) for path in [*speaking, *rescoring]})
    return speaking, rescoring


def read_options(config: CaptionConfig) -> ReadOptions:
    """How the inputs are read."""
    root = config.images_root
    return ReadOptions(
        siblings=tuple(config.sibling_names),
        image_members=tuple(config.image_member_names),
        image_column=config.image_column,
        key_column=config.key_column,
        path_column=config.path_column,
        images_root=root if not root or is_remote(root) else str(Path(root).expanduser().absolute()),
        max_image_bytes=config.max_image_bytes,
    )


def describe(config: CaptionConfig, speaking: list[Path], rescoring: list[Path]) -> dict[str, Any]:
    """What decides the rows and captions: jobs that differ in it must not share an output."""
    reading = read_options(config)
    job: dict[str, Any] = {
        "captioner": _ensemble(speaking, config.captioner_weights) if len(speaking) > 1 else _known(speaking[0]),
        "search": asdict(config.search),
        "dtype": config.dtype,
        "siblings": config.sibling_names,
        "reading": reading.describe(),
        "format": config.format,
    }
    if config.rerank.by != "score":
        job["rerank"] = asdict(config.rerank) | {"captioner": _known(rescoring[0]) if rescoring else None}
    return job


def _ensemble(captioners: list[Path], weights: list[float]) -> dict[str, Any]:
    members = [_known(captioner) | {"weight": weight} for captioner, weight in zip(captioners, weights, strict=True)]
    return {"name": " + ".join(captioner.name for captioner in captioners), "members": members}


def _known(captioner: Path) -> dict[str, Any]:
    return {"name": captioner.name, "sha256": checkpoint.fingerprint(captioner)}
