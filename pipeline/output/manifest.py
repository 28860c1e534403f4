"""The manifest of an output: written last, once every input is committed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from pipeline.errors import OutputError
from pipeline.output.cleanup import sweep
from pipeline.output.commit_log import Ledger
from pipeline.output.layout import HUGGING_FACE, MANIFEST, PART
from pipeline.schema import ROW, TOKEN_PROBS, extended
from pipeline.storage.folder import Folder


def is_finished(folder: Folder, ledger: Ledger) -> bool:
    """Whether the manifest is there, and of these commits. A driver that woke up late may have written an older one."""
    if not folder.exists(MANIFEST):
        return False
    try:
        return bool(json.loads(folder.read(MANIFEST))["files"] == _files(ledger))
    except (ValueError, KeyError, TypeError):
        return False


def finish(
    folder: Folder, ledger: Ledger, *, job: Mapping[str, Any], run: Mapping[str, Any], confirm: Callable[[], None]
) -> dict[str, Any]:
    """Writes the manifest, and returns it.

    Args:
        job: as given to `claim`.
        run: what is worth knowing of the run that finished it: timings, versions.
        confirm: as `sweep` takes it.
    """
    sweep(folder, ledger, confirm=confirm)
    manifest = {
        "totals": {
            "rows": ledger.rows,
            "captions": ledger.rows - sum(ledger.errors.values()),
            "errors": sum(ledger.errors.values()),
            "shards": len(ledger.intervals),
        },
        "errors": ledger.errors,
        **job,
        **run,
        "files": _files(ledger),
    }
    folder.write(HUGGING_FACE, json.dumps(_describe_to_datasets(job), indent=2).encode())
    before = folder.version(MANIFEST)
    confirm()
    try:
        folder.replace(MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False).encode(), before)
    except FileExistsError as error:
        raise OutputError(f"{folder.url} was finished by another driver meanwhile") from error
    return manifest


def _files(ledger: Ledger) -> dict[str, dict[str, Any]]:
    return {
        commit.file: {"rows": commit.rows, "sha256": commit.file_sha256}
        for commit in sorted(ledger.commits, key=lambda commit: commit.file)
    }


def _describe_to_datasets(job: Mapping[str, Any]) -> dict[str, Any]:
    """Which files are data, and the types of the columns: `datasets` guesses those of JSON by the first part."""

    def feature(field: pa.Field) -> dict[str, Any]:
        if pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type):
            return {"name": field.name, "list": [feature(inner) for inner in field.type.value_type]}
        if pa.types.is_list(field.type):
            return {"name": field.name, "list": feature(field.type.value_field)["dtype"]}
        return {"name": field.name, "dtype": "float32" if pa.types.is_float32(field.type) else str(field.type)}

    fields = extended(ROW, [TOKEN_PROBS.name] if job.get("search", {}).get("token_probs") else [])
    return {
        "configs": [{"config_name": "default", "data_files": f"{PART}*.{job['format']}"}],
        "dataset_info": {"config_name": "default", "features": [feature(field) for field in fields]},
    }
