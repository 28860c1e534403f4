"""The manifest of an output: written last, once every input is committed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from configs.partition import Partition
from pipeline.errors import OutputError
from pipeline.output.cleanup import sweep
from pipeline.output.commit_log import CommitLog
from pipeline.output.layout import HUGGING_FACE, MANIFEST, PART, control_path
from pipeline.schema import ROW, TOKEN_PROBS, describe_column, extended
from pipeline.storage.folder import Folder


def read_manifest(folder: Folder, partition: Partition | None = None) -> dict[str, Any] | None:
    """Reads the manifest of an output, or of one of its partitions; returns None if there is none, or it is damaged."""
    name = control_path(partition) + MANIFEST
    try:
        found = json.loads(folder.read(name)) if folder.exists(name) else None
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("files"), dict) else None


def is_finished(folder: Folder, commit_log: CommitLog, partition: Partition | None = None) -> bool:
    """Returns whether there is a manifest that lists these commits. A paused driver may have written an older one."""
    return is_of(read_manifest(folder, partition), commit_log)


def is_of(manifest: Mapping[str, Any] | None, commit_log: CommitLog) -> bool:
    """Returns whether a manifest lists these commits."""
    return manifest is not None and bool(manifest["files"] == _files(commit_log))


def finish(
    folder: Folder,
    commit_log: CommitLog,
    *,
    job: Mapping[str, Any],
    run: Mapping[str, Any],
    confirm: Callable[[], None],
    partition: Partition | None = None,
) -> dict[str, Any]:
    """Writes and returns the manifest of an output, or of one of its partitions.

    Args:
        commit_log: the commits of the output, or of the partition.
        job: the settings given to `write_job`.
        run: statistics, device and versions of the run that completed the output.
        confirm: raises if this process may no longer write, as for `sweep`.
        partition: the partition; None for the whole output.
    """
    sweep(folder, commit_log, confirm=confirm, partition=partition)
    name = control_path(partition) + MANIFEST
    before = folder.version(name)
    confirm()
    try:
        return write_manifest(folder, name, commit_log, job=job, run=run, before=before)
    except FileExistsError as error:
        raise OutputError(f"{folder.url} was completed by another driver in the meantime") from error


def write_manifest(
    folder: Folder,
    name: str,
    commit_log: CommitLog,
    *,
    job: Mapping[str, Any],
    run: Mapping[str, Any],
    before: str | None,
) -> dict[str, Any]:
    """Writes and returns a manifest of this name.

    Args:
        before: the `Folder.version` of the manifest that it replaces; None if there is none.

    Raises FileExistsError if it has another version.
    """
    manifest = {
        "totals": {
            "rows": commit_log.rows,
            "captions": commit_log.rows - sum(commit_log.errors.values()),
            "errors": sum(commit_log.errors.values()),
            "shards": len(commit_log.row_ranges),
        },
        "errors": commit_log.errors,
        **job,
        **run,
        "files": _files(commit_log),
    }
    if name == MANIFEST:
        folder.write(HUGGING_FACE, json.dumps(_describe_to_datasets(job), indent=2).encode())
    folder.replace(name, json.dumps(manifest, indent=2, ensure_ascii=False).encode(), before)
    return manifest


def _files(commit_log: CommitLog) -> dict[str, dict[str, Any]]:
    return {
        commit.file: {"rows": commit.rows, "sha256": commit.file_sha256}
        for commit in sorted(commit_log.commits, key=lambda commit: commit.file)
    }


def _describe_to_datasets(job: Mapping[str, Any]) -> dict[str, Any]:
    """Describes data files and column types to Hugging Face `datasets`, which infers JSON types from the first part."""

    fields = extended(ROW, [TOKEN_PROBS] if job.get("search", {}).get("token_probs") else [])
    features = [*map(describe_column, fields), *job.get("columns", [])]
    return {
        "configs": [{"config_name": "default", "data_files": f"{PART}*.{job['format']}"}],
        "dataset_info": {"config_name": "default", "features": features},
    }
