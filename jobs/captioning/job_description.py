"""The description of a captioning job: its captioners, and everything else that determines rows and captions."""

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
    """Finds the directories of the captioners that search, and of the one that reranks, if any.

    Raises CheckpointError for anything that is no captioner, VocabularyError if their vocabularies differ.
    """
    searching = [captioner_store.find(captioner) for captioner in config.captioner]
    reranking = [captioner_store.find(config.rerank.captioner)] if config.rerank.captioner else []
    for captioner in [*searching, *reranking]:
        checkpoint.check(captioner)
    if len(searching) + len(reranking) > 1:
        check_same_vocabulary({str(path): checkpoint.load_vocabulary(path) for path in [*searching, *reranking]})
    return searching, reranking


def read_options(config: CaptionConfig) -> ReadOptions:
    """Returns how the inputs are read."""
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


def describe(config: CaptionConfig, searching: list[Path], reranking: list[Path]) -> dict[str, Any]:
    """Describes what determines rows and captions; jobs with different descriptions must not share an output."""
    reading = read_options(config)
    job: dict[str, Any] = {
        "captioner": _ensemble(searching, config.captioner_weights) if len(searching) > 1 else _identify(searching[0]),
        "search": asdict(config.search),
        "dtype": config.dtype,
        "siblings": config.sibling_names,
        "reading": reading.describe(),
        "format": config.format,
    }
    if config.rerank.by != "score":
        job["rerank"] = asdict(config.rerank) | {"captioner": _identify(reranking[0]) if reranking else None}
    return job


def _ensemble(captioners: list[Path], weights: list[float]) -> dict[str, Any]:
    members = [_identify(captioner) | {"weight": weight} for captioner, weight in zip(captioners, weights, strict=True)]
    return {"name": " + ".join(captioner.name for captioner in captioners), "members": members}


def _identify(captioner: Path) -> dict[str, Any]:
    return {"name": captioner.name, "sha256": checkpoint.fingerprint(captioner)}
